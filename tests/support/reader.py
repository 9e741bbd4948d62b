"""A reader that does nothing but iterate, in a task of its own, while a test breaks things."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterable, Callable
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

    async def __aexit__(self, *_: object) -> None:
        self._task.cancel()
        await asyncio.wait({self._task})

    async def saw(self, holds: Callable[[T], bool]) -> T:
        """Wait for something of which `holds` is true, and return it.

        Fails if the iteration ends without it.
        """

        def found() -> list[T]:
            return [one for one in self.seen if holds(one)]

        await until(lambda: bool(found()) or self._task.done(), "what the test looks for")
        if not found():
            await self._task
            raise AssertionError(f"the stream ended with {self.seen}")
        return found()[0]

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
        """Wait until a text_delta brought `text`."""
        await self.saw(lambda event: event.data.get("content") == text)


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
