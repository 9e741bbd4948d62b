"""How the runs of one claim wait: for a time, or for an answer."""

from __future__ import annotations

import asyncio

from polos.v1.event_pb2 import Suspended, WaitKind
from polos.v1.run_pb2 import Wait
from polos_client.errors import RunExpired, RunNotFound
from polos_service.runs.activity import Activity
from polos_service.runs.answers import CANCELLED, EXPIRED, UNSETTLED, Answer
from polos_service.runs.clock import Clock
from polos_service.runs.frame import SECOND
from polos_service.runs.inbox import Inbox
from polos_service.runs.journal import UNANSWERED, awaited_run
from polos_service.runs.journals import Journals
from polos_service.runs.lineage import Lineage
from polos_service.store import CANCEL, Claim, RunStore, WaitRecord

LOOK = 1.0
"""Seconds after which the clock is looked at again, in case it was set."""

THRESHOLD = 10.0
"""Seconds beyond which a wait parks its run, if nothing else is open."""

ENDED = Answer()
"""How a wait for the end of a run ends when that has come."""

TIMER, RUN = WaitKind.WAIT_KIND_TIMER, WaitKind.WAIT_KIND_RUN

LOOK_AGAIN = 3600 * SECOND
"""Nanoseconds after which it is looked whether a run has ended although nobody has told it: a
former version of the service may have ended it."""


class Waiting:
    """The waits of a root run and its children, while one claim is worked on.

    Attributes:
        inbox: what has come for the run.
        activity: whether the run works, or only waits.
        awaited: the runs whose ends are waited for, by the ids of the waits.
        cancelled: True once the root run ends because somebody has cancelled it.

    """

    def __init__(
        self, store: RunStore, claim: Claim, clock: Clock, threshold: float = THRESHOLD
    ) -> None:
        self.activity = Activity(clock, threshold)
        self.inbox = Inbox(store, claim, self.activity.touch)
        self.awaited: dict[int, str] = {}
        self.cancelled = False
        self._store = store
        self._claim = claim
        self._clock = clock
        self._opened: set[int] = set()
        """The ids of the waits that this claim has put into the index."""

    async def open(self, lineage: Lineage, wait_id: int, told: Suspended) -> None:
        """Put a wait that somebody can answer into the index of open waits."""
        if told.kind in UNANSWERED:
            return
        self._opened.add(wait_id)
        now = self._clock.now()
        wait = Wait(
            run_id=lineage.run_id,
            step_key=told.step_key,
            wait_id=wait_id,
            kind=told.kind,
            data_json=told.data_json,
            workflow_id=lineage.workflow_id,
        )
        wait.create_time.FromNanoseconds(now)
        if told.HasField("expire_time"):
            wait.expire_time.CopyFrom(told.expire_time)
        record = WaitRecord(
            run_id=self._claim.run_id,
            wait_id=wait_id,
            create_time=now,
            data=wait.SerializeToString(),
        )
        await self._store.open_wait(self._claim.project, record)

    async def over(self, run_id: str, wait_id: int, step_key: str, answer: Answer) -> None:
        """Do what follows the durable end of a wait that somebody could have answered."""
        if answer.ending == "answered":
            await self.inbox.settle(run_id, step_key, answer)
        await self._close(wait_id)

    async def sweep(self, journals: Journals) -> None:
        """Do for waits what a claim before has left undone.

        Those that are over in the log are settled. The index loses them, and those that the log
        does not have: a wait stands in the index before its event is stored.
        """
        for command in self._claim.commands:
            if command.kind == CANCEL and journals.has_ended(command.run_id):
                await self.inbox.settle(command.run_id, "", CANCELLED)
        if not journals.size:
            return
        left, still_open = journals.left(), journals.open_waits()
        for command in self._claim.commands:
            place = command.run_id, command.step_key
            if command.kind in UNSETTLED and journals.resumed(*place) is not None:
                await self.inbox.settle(*place, Answer.of(command))
        for record in await self._store.open_waits(self._claim.project, self._claim.run_id):
            if record.wait_id in left:
                await self.inbox.end(*left[record.wait_id], CANCELLED)
            if record.wait_id not in still_open.keys() | self._opened:
                await self._close(record.wait_id)

    async def _close(self, wait_id: int) -> None:
        """Take a wait out of the index."""
        await self._store.close_wait(self._claim.project, self._claim.run_id, wait_id)

    async def ending(self, run_id: str, wait_id: int, told: Suspended) -> Answer | None:
        """Return how a wait ends, once it does; None if the time of a timer has come."""
        until = told.expire_time.ToNanoseconds() if told.HasField("expire_time") else None
        if told.kind == RUN:
            return await self._ended(wait_id, awaited_run(told), until)
        self.activity.wait(wait_id, until)
        try:
            if told.kind == TIMER:
                await self._until(until)
                return None
            return await self._answered(run_id, told.step_key, until)
        finally:
            self.activity.over(wait_id)

    async def _ended(self, wait_id: int, run_id: str, until: int | None) -> Answer:
        """Return how a wait for the end of a run ends: EXPIRED, or answered without data."""
        while until is None or until > self._clock.now():
            look = self._clock.now() + LOOK_AGAIN
            end = look if until is None else min(look, until)
            try:
                with self.activity.working():  # nobody tells a parked run what came before
                    if not await self._store.watch(self._claim.project, run_id, self._claim.run_id):
                        return ENDED
                    self.activity.wait(wait_id, end)
                if await self._told(run_id, end):
                    return ENDED
            except (RunExpired, RunNotFound):
                return ENDED
            finally:
                self.activity.over(wait_id)
        return EXPIRED

    async def _told(self, run_id: str, until: int) -> bool:
        """Return whether the end of a run is told before a time."""
        while (left := until - self._clock.now()) > 0:
            try:
                async with asyncio.timeout(min(LOOK, left / SECOND)):
                    await self.inbox.told(run_id)
                    return True
            except TimeoutError:
                continue
        return False

    async def _answered(self, run_id: str, step_key: str, until: int | None) -> Answer:
        # No task of its own: the run's code could cancel it.
        while until is None or (left := until - self._clock.now()) > 0:
            try:
                async with asyncio.timeout(None if until is None else min(LOOK, left / SECOND)):
                    return await self.inbox.answer(run_id, step_key)
            except TimeoutError:
                continue
        return await self.inbox.end(run_id, step_key, EXPIRED)

    async def _until(self, time: int | None) -> None:
        """Return when the time has come; never for None."""
        if time is None:
            await asyncio.Event().wait()
            return
        while (left := time - self._clock.now()) > 0:
            await self._clock.sleep(min(LOOK, left / SECOND))
