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
from polos_service.runs.journal import Journal
from polos_service.runs.journals import Journals
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

    def __init__(self, lineage: Lineage) -> None:
        self.lineage = lineage


class ReplayBranch(Branch):
    """The root run of a history, as its code sees it."""

    def __init__(
        self, holding: Holding, lineage: Lineage, journal: Journal, course: Course
    ) -> None:
        super().__init__(holding, lineage, journal)
        self._course = course
        self.gate = course.gate

    @property
    def replays(self) -> bool:
        """Whether the log goes on: with a step, or with the end that its code has given it."""
        return self._course.end is not None or super().replays

    def emit(self, payload: Message, private: bytes = b"") -> None:
        """Note that the code does what the log does not have.

        Raises:
            Finished: always: the replay is over.

        """
        del private
        self._course.emits(payload)
        raise Finished

    async def ask(self, key: str, kind: str) -> None:
        """Return if the log has the end of the step or the wait, and never otherwise.

        Raises:
            Finished: the replay is over.
            ValueError: the key was used before, is empty, or too long.

        """
        self._course.ask(key)
        await super().ask(key, kind)
        if key not in self.journal.results:
            await self._course.beyond(key, kind)

    async def never(self, key: str) -> NoReturn:
        """Wait for the code to give up what it gave up when this was recorded."""
        del key
        while True:
            await asyncio.Event().wait()


def context_of(journals: Journals, course: Course, clock: Stopped) -> RunContext:
    """Return the context of a run whose log has these journals."""
    lineage = cast("Lineage", journals.root.lineage)
    writer = cast("Writer", NoWriter(lineage))
    holding = Holding(lineage.run_id, "", journals, writer, clock, course.boundary)
    branch = ReplayBranch(holding, lineage, journals.root, course)
    return RunContext(branch, journals.root.start_time)
