"""What projects use, in JetStream: a bucket that is made when a project with limits uses something.

Each process has a value of its own for each project, which it alone writes: there are no conflicts,
and what a process has counted outlives it. The bucket drops values that are two days old.
"""

from __future__ import annotations

import asyncio
import uuid
from collections.abc import Sequence
from dataclasses import dataclass, field

import orjson
from pydantic import TypeAdapter

from polos_service.quotas import Quota
from polos_service.store.nats.jetstream import JetStream
from polos_service.store.nats.messages import StoredMessage
from polos_service.store.nats.records import Number
from polos_service.store.nats.streams import make_stream
from polos_service.store.nats.subjects import USAGE, usage_subject
from polos_service.store.usage import Spent, check_starts, minute_of

VALUE: TypeAdapter[tuple[int, int, int, int, int]] = TypeAdapter(
    tuple[Number, Number, Number, Number, Number]
)
"""Reads a value: a minute and its starts, a day and its tokens and cost."""


@dataclass(slots=True)
class Used:
    """What one process has counted for a project."""

    minute: int = 0
    starts: int = 0
    day: int = 0
    tokens: int = 0
    usd_micros: int = 0
    writing: asyncio.Lock = field(default_factory=asyncio.Lock)

    @classmethod
    def of(cls, message: StoredMessage) -> Used:
        """Return what a message says.

        Raises:
            ValueError: it is not a value of ours.

        """
        return cls(*VALUE.validate_json(message.data, strict=True))

    def encode(self) -> bytes:
        """Return what a message says."""
        return orjson.dumps([self.minute, self.starts, self.day, self.tokens, self.usd_micros])

    def spend(self, day: int, spent: Spent) -> None:
        """Add what was spent in a day; another day begins at zero."""
        if day != self.day:
            self.day, self.tokens, self.usd_micros = day, 0, 0
        self.tokens += spent.tokens
        self.usd_micros += spent.usd_micros

    def start(self, minute: int) -> None:
        """Count a start; another minute begins at zero."""
        if minute != self.minute:
            self.minute, self.starts = minute, 0
        self.starts += 1


class Usage:
    """The UsageStore of one replica."""

    def __init__(self, jetstream: JetStream, replicas: int) -> None:
        """Keep values on so many servers, where the bucket is made here."""
        self._jetstream = jetstream
        self._replicas = replicas
        self._name = uuid.uuid4().hex
        self._own: dict[str, Used] = {}
        self._made = False

    async def spend(self, project: str, day: int, spent: Spent) -> None:
        """Add to what a project has spent in a day."""
        self._used(project).spend(day, spent)
        await self._write(project)

    async def spent(self, project: str, day: int) -> Spent:
        """Return what all processes have added for a project and a day."""
        used = [one for one in await self._all(project) if one.day == day]
        return Spent(sum(one.tokens for one in used), sum(one.usd_micros for one in used))

    async def start(self, project: str, quota: Quota, now: int) -> None:
        """Count a start. Replicas that count at the same moment may each let one more in.

        Raises:
            QuotaExceeded: the project may not make another one in this minute.

        """
        minute = minute_of(now)
        others = await self._all(project)
        starts = sum(one.starts for one in others if one.minute == minute)
        check_starts(project, quota, starts, now)
        self._used(project).start(minute)
        await self._write(project)

    def _used(self, project: str) -> Used:
        return self._own.setdefault(project, Used())

    async def _all(self, project: str) -> Sequence[Used]:
        """Return what every process has counted: of this one what it knows, not what is stored."""
        own = self._used(project)
        mine = usage_subject(project, self._name)
        found = [own]
        after = 0
        while page := await self._page(project, after + 1):
            for message in page:
                used = self._jetstream.foreign.read(Used.of, message)
                if used is not None and message.subject != mine:
                    found.append(used)
            after = page[-1].sequence
        return found

    async def _page(self, project: str, sequence: int) -> Sequence[StoredMessage]:
        await self._make()
        return await self._jetstream.page(USAGE, usage_subject(project, "*"), sequence)

    async def _write(self, project: str) -> None:
        """Store what this process has counted; later values never come before earlier ones."""
        used = self._used(project)
        await self._make()
        async with used.writing:
            value = used.encode()
            await self._jetstream.put_last(usage_subject(project, self._name), value)

    async def _make(self) -> None:
        if not self._made:
            await make_stream(self._jetstream, USAGE, self._replicas)
            self._made = True
