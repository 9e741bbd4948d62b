"""When to look at which run, as one replica knows it from a stream that it reads as it grows.

A run goes on or ends at any replica, which takes its messages out of the stream, but not what
others remember of them. So once that has doubled, the stream is read anew from its beginning,
beside what is remembered: what is kept is bounded by what the stream holds.
"""

from __future__ import annotations

import asyncio
import heapq
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, field
from typing import Generic, TypeVar

from polos_service.store.nats.jetstream import BATCH, JetStream
from polos_service.store.nats.messages import StoredMessage

T = TypeVar("T")

SLACK = 1000
"""Entries that are remembered before a stream is read anew, however few it holds."""

AT_ONCE = 100
"""Messages that are decoded before the event loop gets a turn."""

DROPPED = 1000
"""Entries that are dropped before the event loop gets a turn."""


@dataclass(slots=True)
class Pass(Generic[T]):
    """One reading of a stream from its beginning.

    Attributes:
        entries: a heap of when to look, in nanoseconds since the epoch, and at what.
        passed: the sequence of the last message that was read.

    """

    entries: list[tuple[int, T]] = field(default_factory=list)
    passed: int = 0


class Agenda(Generic[T]):
    """What is to be looked at when; what is looked at is in an order of its own."""

    def __init__(
        self,
        jetstream: JetStream,
        stream: str,
        pattern: str,
        entry_of: Callable[[StoredMessage], Awaitable[tuple[int, T] | None]],
    ) -> None:
        """Begin with nothing.

        Args:
            jetstream: where the stream is.
            stream: its name.
            pattern: the subjects that are read.
            entry_of: returns when to look at what because of a message; None: at nothing.

        """
        self._jetstream = jetstream
        self._stream = stream
        self._pattern = pattern
        self._entry_of = entry_of
        self._pass: Pass[T] = Pass()
        self._anew: Pass[T] | None = None
        self._most = SLACK

    def __len__(self) -> int:
        """Return how many entries are remembered."""
        return len(self._pass.entries) + (len(self._anew.entries) if self._anew else 0)

    @property
    def first(self) -> int | None:
        """When to look first; None: there is nothing to look at."""
        return self._pass.entries[0][0] if self._pass.entries else None

    def due(self, now: int, limit: int) -> Sequence[T]:
        """Take out what is to be looked at by now: so many at most, the first ones first."""
        entries = self._pass.entries
        found: list[T] = []
        while entries and entries[0][0] <= now and len(found) < limit:
            found.append(heapq.heappop(entries)[1])
        return found

    def add(self, look_at: int, what: T) -> None:
        """Put something in."""
        heapq.heappush(self._pass.entries, (look_at, what))

    async def read(self) -> bool:
        """Read the next page of the stream; return whether it was full: more may follow."""
        more = await self._go_on(self._pass)
        if self._anew is None and len(self._pass.entries) > self._most:
            self._anew = Pass()
        if self._anew is None:
            return more
        if await self._go_on(self._anew):
            return True
        former, self._pass, self._anew = self._pass.entries, self._anew, None
        self._most = 2 * len(self._pass.entries) + SLACK
        while former:
            del former[-DROPPED:]
            await asyncio.sleep(0)
        return more

    async def _go_on(self, one: Pass[T]) -> bool:
        page = await self._jetstream.page(self._stream, self._pattern, one.passed + 1)
        for number, message in enumerate(page, start=1):
            entry = await self._entry_of(message)
            if entry is not None:
                heapq.heappush(one.entries, entry)
            one.passed = message.sequence
            if number % AT_ONCE == 0:
                await asyncio.sleep(0)
        return len(page) >= BATCH
