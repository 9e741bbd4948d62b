"""A reader that does nothing but iterate, in a task of its own, while a test breaks things."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterable
from types import TracebackType
from typing import Generic, Self, TypeVar

from polos import Event
from tests.support.process import PATIENCE, until

T = TypeVar("T")


class Reader(Generic[T]):
    """Collects what an iterable yields.

    Attributes:
        seen: what it has yielded so far.

    """

    def __init__(self, source: AsyncIterable[T]) -> None:
        self.seen: list[T] = []
        self._task = asyncio.create_task(self._read(source))

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._task.cancel()
        await asyncio.wait({self._task})

    async def saw(self, what: T) -> None:
        """Wait until `what` was yielded, or the iteration has ended."""
        await until(lambda: what in self.seen or self._task.done(), f"{what!r} in the stream")
        if what not in self.seen:
            await self._task
            raise AssertionError(f"the stream ended without {what!r}")

    async def all(self) -> list[T]:
        """Wait for the end and return all that was yielded."""
        async with asyncio.timeout(PATIENCE):
            await self._task
        return self.seen

    async def _read(self, source: AsyncIterable[T]) -> None:
        async for one in source:
            self.seen.append(one)


class Events(Reader[Event]):
    """Collects events."""

    async def said(self, text: str) -> None:
        """Wait until a text_delta brought `text`, or the iteration has ended."""
        await until(lambda: text in texts(self.seen) or self._task.done(), f"the text {text!r}")
        assert text in texts(self.seen)

    async def came(self, kind: str) -> Event:
        """Wait for an event of that kind, and return the first one."""
        await until(lambda: kind in kinds(self.seen) or self._task.done(), f"a {kind} event")
        return next(event for event in self.seen if event.event_type == kind)


def kinds(events: list[Event]) -> list[str]:
    """Return the events' types."""
    return [event.event_type for event in events]


def texts(events: list[Event]) -> list[str]:
    """Return the contents of the text_delta events, void ones included."""
    return [event.data["content"] for event in events if event.event_type == "text_delta"]


def assert_whole(events: list[Event]) -> None:
    """Assert that the events are a whole log, each once: 1, 2, ..., and one end, at the end."""
    assert [event.sequence_id for event in events] == list(range(1, len(events) + 1))
    assert [event.proto.terminal for event in events] == [False] * (len(events) - 1) + [True]
