"""What replayed code works with: it gets what the log has, and nothing happens beyond that."""

from __future__ import annotations

import asyncio
from typing import NoReturn, cast

from google.protobuf.message import Message

from polos.v1.event_pb2 import Event
from polos_service.errors import Finished
from polos_service.replay.course import Course
from polos_service.runs.branch import Branch
from polos_service.runs.context import RunContext
from polos_service.runs.holding import Holding
from polos_service.runs.journal import Journal, Journals
from polos_service.runs.lineage import Lineage
from polos_service.runs.writer import Writer


class Stopped:
    """The clock of a replay: it shows the time of the log's last event, and never goes on."""

    def __init__(self, event: Event) -> None:
        self._time = event.create_time.ToNanoseconds()

    def now(self) -> int:
        """Return nanoseconds since the epoch."""
        return self._time

    async def sleep(self, seconds: float) -> None:
        """Return at once: nothing that the service waits for takes any time."""
        del seconds


class NoWriter:
    """The writer of a replay: nothing is written."""

    closed = False
    log_full = None
    latest = 0


class ReplayBranch(Branch):
    """The root run of a history, whose code asks what the log says, and records nothing."""

    def __init__(
        self, course: Course, holding: Holding, lineage: Lineage, journal: Journal
    ) -> None:
        super().__init__(holding, lineage, journal)
        self.recording = False
        self._course = course

    @property
    def replays(self) -> bool:
        """Whether the log goes on: with a step, or with the end that its code has given it."""
        return self._course.end is not None or super().replays

    def emit(self, payload: Message, private: bytes = b"") -> None:
        """Note what the code would record."""
        del private
        self._course.emits(payload)
        raise Finished

    async def ask(self, key: str, kind: str) -> None:
        """Note that the code asks for a step or a wait; one that the log lacks never ends."""
        self._course.ask(key)
        await super().ask(key, kind)
        if key not in self.journal.results:
            await self._course.beyond(key, kind)

    async def never(self, key: str) -> NoReturn:
        """Wait for the code to give up what it gave up then; the course tells if it does not."""
        del key
        await asyncio.Event().wait()
        raise AssertionError("nobody sets it")


class ReplayContext(RunContext):
    """The root run of a history, as its code sees it."""

    @classmethod
    def of(cls, journals: Journals, course: Course, clock: Stopped) -> ReplayContext:
        """Return the context of a run whose log has these journals."""
        lineage = cast("Lineage", journals.root.lineage)
        writer = cast("Writer", NoWriter())
        holding = Holding(lineage.run_id, "", journals, writer, clock, course.boundary)
        holding.gate = course.gate
        context = cls(holding, lineage, journals.root, journals.root.start_time)
        context._begin(ReplayBranch(course, holding, lineage, journals.root))
        return context
