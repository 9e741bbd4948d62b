"""How far a replay has come, and what it found."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from google.protobuf.message import Message

from polos.v1.error_pb2 import FailureReason
from polos.v1.event_pb2 import Event
from polos_client.errors import StoreUnavailable
from polos_service.errors import Finished, Nondeterministic, Unable
from polos_service.replay.endings import same_end, words
from polos_service.runs.frame import FIELD
from polos_service.runs.gate import QUIET, Gate
from polos_service.runs.journal import Journal, is_given_up

FROM_OUTSIDE = frozenset(
    {
        FailureReason.FAILURE_REASON_INTERNAL,
        FailureReason.FAILURE_REASON_LOG_FULL,
        FailureReason.FAILURE_REASON_NONDETERMINISTIC,
        FailureReason.FAILURE_REASON_RUN_GIVEN_UP,
        FailureReason.FAILURE_REASON_RUN_TIMEOUT,
    }
)
"""Why a run fails without its code having decided it."""


LOOK = 0.01
"""Seconds between two looks whether the code is blocked at the end of the log."""


class ReplayDiffers(AssertionError):
    """The code does not go the way of the run's log. The message says where, in one sentence.

    Attributes:
        run_id: the run.
        sequence: the event of the log at which they differ.
        step_key: the step or wait at which they differ; None where it is how the run ends.
        difference: the sentence without the run.

    """

    def __init__(
        self, difference: str, *, run_id: str, sequence: int, step_key: str | None = None
    ) -> None:
        super().__init__(f"Run {run_id}: {difference}")
        self.run_id = run_id
        self.sequence = sequence
        self.step_key = step_key
        self.difference = difference

    def __reduce__(self) -> tuple[Any, ...]:
        return _differs, (self.difference, self.run_id, self.sequence, self.step_key)


def _differs(difference: str, run_id: str, sequence: int, step_key: str | None) -> ReplayDiffers:
    return ReplayDiffers(difference, run_id=run_id, sequence=sequence, step_key=step_key)


@dataclass(frozen=True, kw_only=True)
class Replayed:
    """The code goes the way of the log.

    Attributes:
        run_id: the run.
        events: how many events the log has.
        ended: True if the log has the run's end, and the code ends in the same way.
        goes_on: what the code does after the log's last event, in words; empty if it has ended.

    """

    run_id: str
    events: int
    ended: bool
    goes_on: str = ""

    def __str__(self) -> str:
        """Return it in one sentence."""
        told = f"Run {self.run_id}: the code goes the way of the log, {self.events} events"
        return f"{told}, to its end." if self.ended else f"{told}, and then {self.goes_on}."


class Course:
    """One replay: what its log has, what the code has asked for, and how it came out.

    The first thing that is found counts.

    Attributes:
        gate: hands out the recorded results.
        end: the event with which the code itself has ended the run; None if the log has none: the
            run goes on, or was ended from outside.
        moved: set whenever the code asks for something.

    """

    def __init__(self, events: Sequence[Event], journal: Journal, run_id: str) -> None:
        """Begin at the first event; the journal is the fold of the events."""
        self.gate = Gate(journal.results.values(), strict=not journal.retries)
        self.end = ended_by_code(events, run_id)
        self.moved = asyncio.Event()
        self._events = events
        self._run_id = run_id
        self._journal = journal
        self._keys = {sequence: key for key, sequence in journal.results.items()}
        self._asked: set[str] = set()
        self._beyond: list[tuple[str, str]] = []
        self._unended: list[str] = []
        self._cancelled: list[str] = []
        self._found: asyncio.Future[Replayed | ReplayDiffers] = (
            asyncio.get_running_loop().create_future()
        )

    @property
    def found(self) -> asyncio.Future[Replayed | ReplayDiffers]:
        """What came out, once it has."""
        return self._found

    def ask(self, key: str) -> None:
        """Note that the code asks for a step or a wait.

        Raises:
            Finished: the replay is over.

        """
        if self._found.done():
            raise Finished
        self._asked.add(key)
        if cancelled(self._journal, key):
            self._cancelled.append(key)
        self.moved.set()

    async def beyond(self, key: str, kind: str) -> None:
        """Wait for ever: the code asks for what has no end in the log."""
        if key in self._journal.kinds:
            self._unended.append(key)
        else:
            self._beyond.append((key, kind))
            if self.end is not None:
                self._new_step(key, kind)
        await asyncio.Event().wait()

    async def boundary(self, reason: Unable | StoreUnavailable | None) -> None:
        """Wait for ever: the code cannot go on with the log."""
        if isinstance(reason, Nondeterministic):
            key, recorded, asked = (
                reason.details[one] for one in ("step_key", "recorded", "asked")
            )
            self.differ(
                f"the log has the step {key!r} as {recorded!r}, and the code asks for it as "
                f"{asked!r}.",
                self._begin_of(key),
                key,
            )
        elif reason is not None:
            self.differ(str(reason), self._next)
        await asyncio.Event().wait()

    def emits(self, payload: Message) -> None:
        """Note that the code does something else that the log does not have."""
        name = FIELD.get(type(payload), type(payload).__name__)
        if (key := self._unasked()) is not None:
            self._skips(key, f"does not ask for it, but adds {name}")
        elif self.due is None and self.end is None:
            self.agree(f"continues with {name}")
        else:
            self.differ(f"the code adds the event {name}, which the log does not have.", self._next)

    def ends(self, payload: Message, told: str) -> None:
        """Note how the code ends.

        Args:
            payload: the run's last event, as the code would have it.
            told: the same in words: "ends with ..." or "fails: ...".

        """
        if (key := self._unasked()) is not None:
            self._skips(key, f"{told}")
        elif self.end is None:
            self.agree(told)
        elif not same_end(self.end, payload):
            recorded = words(getattr(self.end, self.end.WhichOneof("payload") or ""))
            self.differ(f"in the log the run {recorded}, and the code {told}.", self.end.sequence)
        else:
            self.agree("")

    async def settled(self) -> None:
        """Return when the code has come to the end of the log and is blocked there."""
        while True:
            asked = len(self._asked)
            for _ in range(2 * QUIET):
                await asyncio.sleep(0)
            at_end = self.due is None and self.end is None
            blocked = self._beyond or self._unended or self._cancelled
            if at_end and blocked and len(self._asked) == asked:
                self.stop("")
                return
            await asyncio.sleep(LOOK)

    def stop(self, patience: str) -> None:
        """Note that the code does nothing any more; `patience` says for how long, if it matters."""
        if self.due is not None:
            key = self._keys[self.due]
            if key in self._asked:
                self.differ(f"the code has stopped at the step {key!r}{patience}.", self.due, key)
            elif self._beyond:
                self._new_step(*self._beyond[0])
            else:
                self._skips(key, f"does not ask for it{patience}")
        elif self.end is not None:
            waiting = (
                f"the code waits for the end of {self._unended[0]!r}, which the log does not have"
            )
            blocked = waiting if self._unended else f"the code does not end{patience}"
            recorded = words(getattr(self.end, self.end.WhichOneof("payload") or ""))
            self.differ(f"in the log the run {recorded}, and {blocked}.", self.end.sequence)
        elif self._beyond:
            asked = ", ".join(f"{key!r} ({kind})" for key, kind in self._beyond)
            self.agree(f"asks for {asked}")
        elif begun := self._unended or self._cancelled:
            asked = ", ".join(repr(key) for key in begun)
            self.agree(f"continues with {asked}, which had begun")
        else:
            self.agree(f"does not ask for anything{patience}")

    def agree(self, goes_on: str) -> None:
        """Note that the code goes the way of the log, and how it goes on after its end."""
        if not self._found.done():
            count = len(self._events)
            ended = self.end is not None
            self._found.set_result(
                Replayed(run_id=self._run_id, events=count, ended=ended, goes_on=goes_on)
            )

    def differ(self, difference: str, sequence: int, step_key: str | None = None) -> None:
        """Note a difference."""
        if not self._found.done():
            where = f"event {sequence}: {difference}"
            self._found.set_result(
                ReplayDiffers(where, run_id=self._run_id, sequence=sequence, step_key=step_key)
            )

    @property
    def due(self) -> int | None:
        """The sequence of the next result that the code is to get; None after the last."""
        return self.gate.due

    @property
    def _next(self) -> int:
        """The sequence of the event that the log continues with."""
        if self.due is not None:
            return self.due
        return len(self._events) if self.end is None else self.end.sequence

    def _new_step(self, key: str, kind: str) -> None:
        self.differ(
            f"the code asks for the step {key!r} ({kind}), which the log does not have; the log "
            f"continues with {self._told(self._next)}.",
            self._next,
            key,
        )

    def _skips(self, key: str, instead: str) -> None:
        sequence = self._begin_of(key)
        self.differ(
            f"the log continues with {self._told(sequence)}, and the code {instead}.", sequence, key
        )

    def _unasked(self) -> str | None:
        """Return the first step that the log has and the code has not asked for."""
        if self._journal.retries:  # steps of an earlier start of the code
            return None
        return next((key for key in self._journal.kinds if key not in self._asked), None)

    def _begin_of(self, key: str) -> int:
        """Return the sequence of the event that began a step or a wait."""
        return next(
            event.sequence
            for event in self._events
            if event.run_id == self._run_id
            and key in (event.step_start.step_key, event.suspended.step_key)
        )

    def _told(self, sequence: int) -> str:
        event = self._events[sequence - 1]
        name = event.WhichOneof("payload") or "an unknown event"
        key = getattr(getattr(event, name, None), "step_key", "")
        return f"{name} of {key!r}" if key else name


def cancelled(journal: Journal, key: str) -> bool:
    """Return whether a step or a wait has ended because nobody waited for it any more."""
    if key in journal.resumed:
        return is_given_up(journal.resumed[key])
    failure = journal.finished[key].failure if key in journal.finished else None
    return failure is not None and failure.reason == FailureReason.FAILURE_REASON_STEP_CANCELLED


def ended_by_code(events: Sequence[Event], run_id: str) -> Event | None:
    """Return the event with which the run's code has ended the run; None if there is none."""
    last = events[-1]
    if not last.terminal or last.run_id != run_id or last.HasField("run_cancelled"):
        return None
    return None if last.HasField("error") and last.error.reason in FROM_OUTSIDE else last
