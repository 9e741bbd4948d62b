"""What replayed code works with: it gets what the log has, and nothing happens beyond that."""

from __future__ import annotations

from typing import cast

from google.protobuf.message import Message

from polos.v1.event_pb2 import Event
from polos_service.errors import Finished
from polos_service.replay.course import Course
from polos_service.runs.context import Holding, RunContext
from polos_service.runs.journal import Journals
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

    closed = True
    log_full = None
    latest = 0


class ReplayContext(RunContext):
    """The root run of a history, as its code sees it."""

    @classmethod
    def of(cls, journals: Journals, course: Course, clock: Stopped) -> ReplayContext:
        """Return the context of a run whose log has these journals."""
        lineage = cast("Lineage", journals.root.lineage)
        writer = cast("Writer", NoWriter())
        holding = Holding(lineage.run_id, journals, writer, clock, course.boundary)
        holding.gate = course.gate
        context = cls(holding, lineage, journals.root, journals.root.start_time)
        context._course = course
        return context

    _course: Course

    @property
    def replays(self) -> bool:
        """Whether the log goes on: with a step, or with the end that its code has given it."""
        return self._course.end is not None or super().replays

    def _emit(self, payload: Message, private: bytes = b"") -> None:
        del private
        self._course.emits(payload)
        raise Finished

    async def _ask(self, key: str, kind: str) -> None:
        self._course.ask(key)
        await super()._ask(key, kind)
        if key not in self._journal.results:
            await self._course.beyond(key, kind)
