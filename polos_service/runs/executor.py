"""Takes up queued runs, and has each driven to its terminal event."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Collection, Coroutine, Mapping
from enum import Enum, auto
from functools import partial
from typing import Any

from polos_client.errors import StoreUnavailable
from polos_service.cancelling import cancel_until_done
from polos_service.errors import Fenced, OtherVersion, Unable, text
from polos_service.logs import get_logger
from polos_service.pacer import Pacer
from polos_service.runs.budget import Budgets
from polos_service.runs.clock import Clock
from polos_service.runs.drive import Drive, LetGo, Parked
from polos_service.runs.frame import SECOND
from polos_service.runs.inbox import cancellation
from polos_service.runs.runnable import Runnable
from polos_service.runs.waiting import THRESHOLD
from polos_service.store import CANCEL, LEFT_LIMIT, Claim, Command, Key, Overdue, RunStore

RETRY_PAUSE = 1.0
"""Seconds before a store that failed, or a run in trouble, is tried again."""

RETRY_PAUSE_GROWTH = 3.0
"""Factor by which the pause grows each time that the same trouble recurs."""

RETRY_PAUSE_LIMIT = 60.0
"""Seconds that a pause takes at most: a store that is away for a minute does not cost its
runs all the claims that they have."""

PASSES = 5
"""How often a process leaves a run to those that have the version of the code that the run was
started with, before it goes on with the version that it has."""

PASS_PAUSE = 0.2
"""Seconds for which a run is left so the first time."""

PASS_GROWTH = 2.0
"""Factor by which that grows each further time."""

ALONE = 60.0
"""Seconds for which a version counts as gone that nobody had: its other runs are not left."""

EXPIRY_PERIOD = 1.0
"""Seconds between two looks for runs that should have ended."""

CLAIMS_AT_ONCE = 16
"""Runs that are claimed at once at most. All of them begin before the next are claimed, so that
others who share the queue get theirs."""

STUCK = 20.0
"""Seconds after which a run that is to end, and has not ended, is taken from its holder."""

TROUBLES_LIMIT = 10_000
"""Runs whose troubles are counted here at most; the longest known are forgotten first."""

log = get_logger(__name__)


class Trouble(Enum):
    """Why a claim that did not end its run is released after a pause."""

    FAILED = auto()
    """The store failed, or something that nobody expects."""

    UNABLE = auto()
    """This process cannot go on with the run; another one may."""

    OTHER_VERSION = auto()
    """Another process may have the version of the code that the run was started with."""


class Executor:
    """Runs what is queued, up to `limit` runs at once; the others wait in order.

    One run begins in each turn of the loop, so that many starts at once do not delay the runs
    that stream.

    `runnables` is looked at whenever a run is queued: what it learns later is run, too.
    """

    def __init__(
        self,
        store: RunStore,
        runnables: Mapping[str, Runnable],
        clock: Clock,
        limit: int,
        budgets: Budgets | None = None,
        *,
        threshold: float = THRESHOLD,
    ) -> None:
        """Prepare; without `budgets`, projects have no limits. See `Drive` for `threshold`."""
        self._threshold = threshold
        self._budgets = budgets
        self._store = store
        self._runnables = runnables
        self._clock = clock
        self._slots = asyncio.Semaphore(limit)
        self._pacer = Pacer()
        self._runs: set[asyncio.Task[None]] = set()
        self._resting: set[asyncio.Task[None]] = set()
        self._held: dict[Key, tuple[int, int]] = {}
        """Epoch of each claim that is not released yet, and when it began."""
        self._troubles: dict[Key, tuple[Trouble, int]] = {}
        self._gone: dict[tuple[str, str], int] = {}
        """Workflows and versions of their code that nobody had, and when it was found."""
        self._closing = False
        self._stopping = False
        self._stopped = False
        self._loops: set[asyncio.Task[None]] = set()

    @property
    def running(self) -> int:
        """How many runs are being worked on."""
        return len(self._runs)

    def start(self) -> None:
        """Begin to take up runs."""
        self._keep("polos-claim", self._claim)
        self._keep("polos-expire", self._expire)

    async def stop(self, grace: float) -> None:
        """Take up no further run, and let go of the running ones within `grace` seconds.

        In the first half of it they go on and may end. In the second half each is released
        where its next step would begin, which leaves nothing to take back. What is in the
        middle of a step after that is cut, and its step begins anew elsewhere.
        """
        self._closing = True
        await cancel_until_done(self._loops)
        for rest in self._resting:
            rest.cancel()
        await self._settled(self._resting, None)
        await self._settled(self._runs, grace / 2)
        self._stopping = True
        await self._settled(self._runs, grace / 2)
        self._stopped = True
        for run in self._runs:
            run.cancel()
        while self._runs:
            await self._settled(self._runs, None)

    async def _settled(self, tasks: Collection[asyncio.Task[None]], timeout: float | None) -> None:
        if tasks:
            await asyncio.wait(tasks, timeout=timeout)

    async def cancel(self, project: str, run_id: str) -> None:
        """Put the cancellation on disk; whoever holds the run ends it, or whoever finds it overdue.

        Raises:
            RunNotFound: there is no such run.

        """
        await self._store.command(project, run_id, Command(id=CANCEL, kind=CANCEL, run_id=run_id))
        await self._take_up(project, run_id)

    async def _take_up(self, project: str, run_id: str, *, force: bool = False) -> None:
        """Claim a run that is to end: nobody else would before a slot is free."""
        if self._stopped:
            return  # the next process finds it overdue
        claim = await self._store.claim_run(project, run_id, force=force)
        if claim is not None:
            self._spawn(claim)

    def _keep(self, name: str, loop: Callable[[], Coroutine[Any, Any, None]]) -> None:
        """Run a loop until `stop`, whatever ends it: a tool may cancel every task it finds."""

        def again(task: asyncio.Task[None]) -> None:
            self._loops.discard(task)
            if not self._closing:
                log.error("loop_restarted", loop=name)
                self._keep(name, loop)

        task = asyncio.create_task(loop(), name=name)
        self._loops.add(task)
        task.add_done_callback(again)

    async def _expire(self) -> None:
        """End runs that should have ended: at their deadline, or when they were cancelled."""
        while True:
            await self._clock.sleep(EXPIRY_PERIOD)
            stuck = self._clock.now() - round(STUCK * SECOND)
            try:
                late = await self._store.overdue(self._clock.now(), stuck)
            except Exception as error:  # noqa: BLE001 - the next look may succeed
                tell("expiry_failed", error)
                continue
            for one in late:
                await self._end_overdue(one, stuck)

    async def _end_overdue(self, late: Overdue, stuck: int) -> None:
        _, since = self._held.get((late.project, late.run_id), (0, stuck))
        if since > stuck:
            return  # it is being ended here just now
        try:
            await self._take_up(late.project, late.run_id, force=late.held)
        except Exception as error:  # noqa: BLE001 - it must not keep others from ending
            tell("expiry_failed", error)

    async def _claim(self) -> None:
        while True:
            slots = await self._free_slots()
            try:
                claims = await self._store.claim(self._runnables.keys(), slots)
            except Exception as error:  # noqa: BLE001 - the next try may succeed
                self._release_slots(slots)
                tell("claim_failed", error)
                await self._clock.sleep(RETRY_PAUSE)
                continue
            except BaseException:
                self._release_slots(slots)
                raise
            self._release_slots(slots - len(claims))
            for claim in claims:
                self._spawn(claim).add_done_callback(lambda _: self._slots.release())
            await asyncio.sleep(0)  # until they wait for their turns
            await self._pacer.next()  # until all of them have begun

    async def _free_slots(self) -> int:
        """Take the slots for the next claims, once one is free; return how many."""
        taken = 0
        while taken < CLAIMS_AT_ONCE and not (taken and self._slots.locked()):
            await self._slots.acquire()
            taken += 1
        return taken

    def _release_slots(self, slots: int) -> None:
        for _ in range(slots):
            self._slots.release()

    def _spawn(self, claim: Claim) -> asyncio.Task[None]:
        self._held[claim.project, claim.run_id] = (claim.epoch, self._clock.now())
        return self._begin(self._runs, claim, self._hold(claim))

    def _begin(
        self, tasks: set[asyncio.Task[None]], claim: Claim, work: Coroutine[Any, Any, None]
    ) -> asyncio.Task[None]:
        """Begin work that lets go of the claim; if it is cancelled, that is made up for."""

        def over(_: object) -> None:
            tasks.discard(task)
            if task.cancelled():  # perhaps before it began
                self._begin(self._runs, claim, self._release(claim, failed=False))

        task = asyncio.create_task(work, name=f"polos-run-{claim.run_id}")
        tasks.add(task)
        task.add_done_callback(over)
        return task

    async def _hold(self, claim: Claim) -> None:
        """Drive the run; if it does not end, let go of it, at once or after a pause."""
        key = (claim.project, claim.run_id)
        try:
            trouble, why = await self._drive(claim)
        except Parked:
            self._troubles.pop(key, None)
            self._forget(claim)
            return
        former, times = self._troubles.pop(key, (None, 0))
        if trouble is None or self._closing:
            await self._release(claim, failed=trouble is Trouble.FAILED, left=why)
            return
        times = times + 1 if trouble is former else 1
        self._troubles[key] = (trouble, times)
        if len(self._troubles) > TROUBLES_LIMIT:
            del self._troubles[next(iter(self._troubles))]
        self._begin(self._resting, claim, self._release_later(claim, trouble, times, why))

    async def _drive(self, claim: Claim) -> tuple[Trouble | None, str]:
        """Drive the run; return the trouble that its claim comes to, and why the run is left."""
        trouble, times = self._troubles.get((claim.project, claim.run_id), (None, 0))
        failures = times if trouble is Trouble.FAILED else 0
        drive = self._drive_of(claim)
        try:
            await self._pacer.next()
            await drive.run(self._runnables.get(claim.workflow_id), failures)
        except LetGo:
            pass
        except Parked:
            raise
        except OtherVersion as error:
            if trouble is Trouble.OTHER_VERSION and times + 1 == PASSES:
                self._gone[claim.workflow_id, error.details["version"]] = self._clock.now()
            log.info("run_passed_on", run_id=claim.run_id, reason=str(error), **error.details)
            return Trouble.OTHER_VERSION, str(error)
        except Unable as error:
            log.warning("run_left", run_id=claim.run_id, reason=str(error), **error.details)
            return Trouble.UNABLE, str(error)
        except Fenced:
            log.warning("claim_lost", run_id=claim.run_id, epoch=claim.epoch)
        except BaseException:  # a cancellation that nobody here asked for, too
            if not self._stopped:
                log.exception("run_released", run_id=claim.run_id)
                return Trouble.FAILED, ""
        return None, ""

    def _drive_of(self, claim: Claim) -> Drive:
        def leaving() -> bool:
            return self._stopping

        passes_on = partial(self._passes_on, claim)
        if self._budgets is None:
            return Drive(
                self._store,
                self._clock,
                claim,
                leaving,
                threshold=self._threshold,
                passes_on=passes_on,
            )
        return Drive(
            self._store,
            self._clock,
            claim,
            leaving,
            passes_on=passes_on,
            budget=self._budgets.of(claim.project),
            log_limit=self._budgets.quotas.of(claim.project).log_bytes,
            threshold=self._threshold,
        )

    def _passes_on(self, claim: Claim, version: str) -> bool:
        """Return whether a run of another version is left to those that may have that version."""
        former, times = self._troubles.get((claim.project, claim.run_id), (None, 0))
        left = times if former is Trouble.OTHER_VERSION else 0
        if not self._store.shared or former is Trouble.UNABLE or left >= PASSES:
            return False
        gone = self._gone.get((claim.workflow_id, version), 0)
        return self._clock.now() - gone > ALONE * SECOND

    async def _release_later(self, claim: Claim, trouble: Trouble, times: int, why: str) -> None:
        """Offer a run again after a pause that grows, or as soon as it is cancelled."""
        first, factor = RETRY_PAUSE, RETRY_PAUSE_GROWTH
        if trouble is Trouble.OTHER_VERSION:
            first, factor = PASS_PAUSE, PASS_GROWTH
        growth = factor ** min(times - 1, 20)  # a larger power overflows some day
        pause = min(first * growth, RETRY_PAUSE_LIMIT)
        if claim.deadline is not None:
            left = (claim.deadline - self._clock.now()) / SECOND
            pause = min(pause, max(left, RETRY_PAUSE))
        rest = asyncio.ensure_future(self._clock.sleep(pause))
        cancel = asyncio.ensure_future(cancellation(self._store, claim))
        try:
            await asyncio.wait({rest, cancel}, return_when=asyncio.FIRST_COMPLETED)
            if not rest.done() and cancel.exception() is not None:
                await rest
        finally:
            rest.cancel()
            cancel.cancel()
            await self._release(claim, failed=trouble is Trouble.FAILED, left=why)
        if cancel.done() and not cancel.cancelled() and cancel.exception() is None:
            await self._take_up(claim.project, claim.run_id)

    async def _release(self, claim: Claim, *, failed: bool, left: str = "") -> None:
        self._forget(claim)
        while True:
            try:
                await self._store.release(claim, failed=failed, left=text(left, LEFT_LIMIT))
            except StoreUnavailable as error:
                log.warning("release_failed", run_id=claim.run_id, error=str(error))
                if self._closing:
                    return  # the next to open the store finds the run without a holder
                await self._clock.sleep(RETRY_PAUSE)
            else:
                return

    def _forget(self, claim: Claim) -> None:
        """Note that the claim is not held here any more."""
        key = (claim.project, claim.run_id)
        if self._held.get(key, (0, 0))[0] == claim.epoch:
            del self._held[key]


def tell(event: str, error: Exception) -> None:
    """Log a failure, with a traceback unless the store says what is wrong."""
    if isinstance(error, StoreUnavailable):
        log.warning(event, error=str(error))
    else:
        log.error(event, exc_info=error)
