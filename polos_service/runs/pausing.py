"""A wait of a run: how it begins, how its end is recorded and comes back from the log."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from typing import Protocol

from polos.v1.error_pb2 import FailureReason
from polos.v1.event_pb2 import Resumed, Suspended, WaitKind
from polos_client.errors import StoreUnavailable
from polos_service.errors import StepError
from polos_service.runs.answers import CANCELLED, Answer
from polos_service.runs.branch import Branch
from polos_service.runs.journal import UNANSWERED, WAITS, awaited_run, is_given_up
from polos_service.runs.waiting import RUN, Waiting


class Other(Protocol):
    """The run that a wait is for. Each method may raise StoreUnavailable."""

    async def refusal(self, run_id: str) -> str:
        """Return why it must not be waited for, as `outcome` tells an end; or nothing."""
        ...

    async def outcome(self, run_id: str) -> str:
        """Return what it has ended with, as JSON text."""
        ...


@dataclass(frozen=True, kw_only=True, slots=True)
class Ended:
    """How a wait has ended.

    Attributes:
        resumed: the event's payload.
        sequence: the event's number in the log.
        time: when it happened, in nanoseconds since the epoch.

    """

    resumed: Resumed
    sequence: int
    time: int


class Pausing:
    """Performs the waits of one run."""

    def __init__(self, branch: Branch) -> None:
        self._branch = branch
        self._holding = branch.holding
        self._journal = branch.journal
        self._writer = branch.holding.writer

    async def wait(
        self,
        key: str,
        kind: WaitKind.ValueType,
        data_json: str,
        until: int | None,
        other: Other | None = None,
    ) -> Ended:
        """Wait, and return how the wait has ended, the same whenever it is asked for."""
        await self._branch.ask(key, WAITS[kind])
        recorded = self._journal.resumed.get(key)
        if recorded is not None:
            sequence = self._journal.results[key]
            await self._branch.turn(sequence, new=False)
            if is_given_up(recorded):
                await self._given_up(key)
            return Ended(resumed=recorded, sequence=sequence, time=self._journal.times[key])
        await self._holding.boundary(None)
        wait_id, told = self._begin(key, kind, data_json, until)
        try:
            answer = await self._answer(wait_id, told, other)
        except asyncio.CancelledError:
            self.cease(key)
            raise
        resumed = resumed_by(wait_id, told, answer)
        self._branch.emit(resumed)
        self._branch.waits.pop(key, None)
        self._waiting.awaited.pop(wait_id, None)
        sequence, time = self._writer.latest, self._writer.latest_time
        if answer is not None and kind not in UNANSWERED:
            self._holding.tidying.begin(self._over(wait_id, key, answer))
        if resumed.cancelled:  # by a claim before, whose end of the wait the log did not get
            self._journal.given_up[key] = time - self._journal.times.get(key, time)
            with self._branch.gate.holding(sequence):
                await self._branch.never(key)
        await self._branch.hand_out(sequence)
        return Ended(resumed=resumed, sequence=sequence, time=time)

    def cease(self, key: str) -> None:
        """Record that the run's code no longer waits, unless the run stops here.

        If somebody can answer the wait, its slot decides, and the log tells how it ended later.
        When the root run is cancelled, the log keeps a wait for another run open: a claim that
        goes on with the cancellation finds it there.
        """
        begun = self._branch.waits.pop(key, None)
        if begun is None or self._writer.closed or not self._branch.recording:
            return
        self._branch.gate.stir()
        waiting = self._holding.waiting
        if waiting is not None and begun[1].kind == RUN:
            if waiting.cancelled:
                return
            waiting.awaited.pop(begun[0], None)
        if begun[1].kind in UNANSWERED:
            self._branch.emit(resumed_by(*begun, CANCELLED, given_up=True))
        else:
            self._holding.tidying.begin(self._end_given_up(*begun))

    def drop(self, key: str) -> None:
        """Let nobody answer a wait any more whose run is cancelled; the log tells no end of it."""
        wait_id, told = self._branch.waits.pop(key)
        if told.kind not in UNANSWERED:
            self._holding.tidying.begin(self._drop(wait_id, key))

    @property
    def _waiting(self) -> Waiting:
        if self._holding.waiting is None:
            raise RuntimeError("A run whose context has nothing to wait with cannot wait.")
        return self._holding.waiting

    async def _given_up(self, key: str) -> None:
        """Wait for the code to give the wait up again; after a new start it cannot be had."""
        if key in self._journal.interrupted:
            raise StepError(
                FailureReason.FAILURE_REASON_STEP_CANCELLED,
                f"The wait {key!r} was given up before the workflow's function started over, and "
                "takes no answer any more. Wait with another key.",
            )
        with self._branch.gate.holding(self._journal.results[key]):
            await self._branch.never(key)

    def _begin(
        self, key: str, kind: WaitKind.ValueType, data_json: str, until: int | None
    ) -> tuple[int, Suspended]:
        """Begin a wait, or go on with the one that the log has; return its id, and what is told."""
        begun = self._journal.waits.get(key)
        if begun is None:
            told = Suspended(step_key=key, kind=kind, data_json=data_json)
            if until is not None:
                told.expire_time.FromNanoseconds(until)
            self._branch.emit(told)
            begun = self._writer.latest, told
        self._branch.waits[key] = begun
        if kind == RUN:
            self._waiting.awaited[begun[0]] = awaited_run(begun[1])
        return begun

    async def _answer(self, wait_id: int, told: Suspended, other: Other | None) -> Answer | None:
        try:
            with self._branch.working():  # a run that is parked knows when this wait ends
                # Before the event can be seen: whoever sees it may look the wait up.
                await self._waiting.open(self._branch.lineage, wait_id, told)
                await self._writer.flush()
                # After that: of two runs that begin to wait for each other, one sees the other.
                endless = None if told.HasField("expire_time") else other
                if endless and (refusal := await endless.refusal(awaited_run(told))):
                    return Answer(data_json=refusal)
            answer = await self._waiting.ending(self._branch.run_id, wait_id, told)
            if other is not None and answer is not None and answer.ending == "answered":
                with self._branch.working():
                    return Answer(data_json=await other.outcome(awaited_run(told)))
            return answer
        except StoreUnavailable as error:
            await self._branch.leave(error)

    async def _end_given_up(self, wait_id: int, told: Suspended) -> None:
        run_id, key = self._branch.run_id, told.step_key
        with self._branch.working():
            await self._writer.flush()  # nobody is refused because of what is not in the log
            try:
                answer = await self._waiting.inbox.end(run_id, key, CANCELLED)
            except StoreUnavailable as error:
                await self._branch.leave(error)
            if not self._branch.cancelled:
                self._branch.emit(resumed_by(wait_id, told, answer, given_up=True))
                await self._writer.flush()
        await self._over(wait_id, key, answer)

    async def _drop(self, wait_id: int, key: str) -> None:
        await self._writer.flush()  # nobody is refused because of what is not in the log
        answer = await self._waiting.inbox.end(self._branch.run_id, key, CANCELLED)
        await self._over(wait_id, key, answer)

    async def _over(self, wait_id: int, key: str, answer: Answer) -> None:
        """Take a wait out of the index and the inbox, once the log has its end."""
        await self._writer.flush()
        await self._waiting.over(self._branch.run_id, wait_id, key, answer)


def resumed_by(
    wait_id: int, told: Suspended, answer: Answer | None, *, given_up: bool = False
) -> Resumed:
    """Return the event that ends a wait; without an answer, because its time has come."""
    resumed = Resumed(step_key=told.step_key, wait_id=wait_id, kind=told.kind, given_up=given_up)
    if answer is None:
        return resumed
    match answer.ending:
        case "answered":
            resumed.data_json = answer.data_json
            resumed.request_id, resumed.principal = answer.request_id, answer.principal
        case "expired":
            resumed.expired = True
        case "cancelled":
            resumed.cancelled = resumed.given_up = True
    return resumed
