"""Drives a claimed run to its terminal event. Here, and nowhere else, is decided how it ends."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from contextlib import suppress
from typing import Any

from google.protobuf.message import Message

from polos.v1.run_pb2 import RunState
from polos_client.errors import RunExpired, RunNotFound, StoreUnavailable
from polos_service.errors import OtherVersion, Unable
from polos_service.logs import get_logger
from polos_service.runs.activity import Rest
from polos_service.runs.budget import NO_BUDGET, Budget
from polos_service.runs.clock import Clock
from polos_service.runs.context import RunContext
from polos_service.runs.endings import (
    MAX_CLAIMS,
    Ending,
    cancelled,
    defective,
    ending_of,
    given_up,
    timed_out,
)
from polos_service.runs.frame import SECOND
from polos_service.runs.inbox import cancels
from polos_service.runs.journals import Journals
from polos_service.runs.runnable import Runnable
from polos_service.runs.waiting import THRESHOLD, Waiting
from polos_service.runs.writer import Writer
from polos_service.store import CANCEL, Claim, Command, RunStore

CANCEL_PATIENCE = 5.0
"""Seconds that cancelled code gets to clean up before the run ends without it."""

log = get_logger(__name__)


class Parked(Exception):
    """The run was suspended: its claim is released, and nobody works on it."""


class LetGo(Exception):
    """The run stopped where its next step would begin, for another process to go on."""


class Drive:
    """One claim's work.

    A run's code and the tasks around it may raise anything, cancellations included. So
    nothing is concluded from a cancellation: the code's outcome is a value, and a run is
    cancelled only if its inbox or its deadline says so.
    """

    def __init__(
        self,
        store: RunStore,
        clock: Clock,
        claim: Claim,
        leaving: Callable[[], bool],
        *,
        budget: Budget = NO_BUDGET,
        log_limit: int | None = None,
        threshold: float = THRESHOLD,
        passes_on: Callable[[str], bool] = lambda _: False,
    ) -> None:
        """Drive this claim.

        Args:
            store: where the log is.
            clock: the time.
            claim: the right to write the log.
            leaving: says whether the process is about to stop.
            budget: bounds the model calls.
            log_limit: bytes that the log may have before its terminal event; None: any number.
            threshold: seconds beyond which waits park the run, if nothing else is open.
            passes_on: says whether a run that has begun with this other version of its code is
                left to other processes.

        """
        self._passes_on = passes_on
        self._waiting = Waiting(store, claim, clock, threshold)
        self._budget = budget
        self._log_limit = log_limit
        self._store = store
        self._clock = clock
        self._claim = claim
        self._leaving = leaving
        self._work_until: int | None = None
        self._left = asyncio.get_running_loop().create_future()

    async def run(self, runnable: Runnable | None, failures: int) -> None:
        """Run to the terminal event, and return when it is durable.

        Args:
            runnable: the run's code; None if this process does not have it, and can only
                end the run.
            failures: claims of this run that failed in this process.

        Raises:
            Fenced: the claim was lost.
            LetGo: the run is for another process to go on with.
            Parked: the run was suspended.
            StoreUnavailable: the store refused to read or write.
            OtherVersion: another process may have the code that the run was started with.
            Unable: this process cannot go on with the run.

        """
        journals = await self._read(failures)
        self._waiting.awaited.update(journals.awaited())
        writer = Writer(
            self._store, self._claim, self._clock, log_limit=self._log_limit, size=journals.size
        )
        ctx = RunContext.of_root(
            self._claim,
            journals,
            writer,
            self._clock,
            self._boundary,
            load=self._log,
            budget=self._budget,
            waiting=self._waiting,
        )
        ctx.tidying.begin(self._waiting.sweep(journals))
        try:
            ending = await self._ending(ctx, journals, runnable, writer)
            if ending.outcome == RunState.RUN_STATE_CANCELLED:
                await self._cancel_awaited()
            self._end(ctx, writer, ending)
            await asyncio.wait({writer.ended})
            writer.ended.result()
        finally:
            writer.close()
            ctx.tidying.drop()

    async def _read(self, failures: int) -> Journals:
        """Fold the log; that it cannot be read does not keep a run from ending for ever."""
        root = self._claim.run_id
        if self._claim.epoch == 1:  # nobody has written to it before
            return Journals(root)
        try:
            journals = await self._log()
        except StoreUnavailable as error:
            if self._due() is None and failures < MAX_CLAIMS:
                raise
            return Journals(root, damage=str(error))
        if former := journals.former_holder:
            project = self._claim.project
            log.info("run_taken_over", run_id=root, project=project, former_holder=former)
        return journals

    async def _log(self) -> Journals:
        return await Journals.load(self._claim.run_id, self._store.history(self._claim))

    async def _ending(
        self,
        ctx: RunContext,
        journals: Journals,
        runnable: Runnable | None,
        writer: Writer,
    ) -> Ending:
        due = self._due()
        if due is not None:
            return due(ctx)
        if runnable is None:
            raise LetGo
        if journals.damage:
            return defective(ctx, ValueError(f"its log cannot be read: {journals.damage}"))
        if journals.claims > MAX_CLAIMS:
            return given_up(ctx)
        self._limit_work(journals, runnable)
        if journals.root.started:
            version = runnable.other_version(self._claim.definition)
            if version is not None and self._passes_on(version):
                raise OtherVersion(version)
        return await self._worked(ctx, runnable, writer)

    def _limit_work(self, journals: Journals, runnable: Runnable) -> None:
        """Take note of how long the run may work, not counting its waits, if it has no deadline."""
        if self._claim.deadline is None and runnable.work_limit is not None:
            waited = journals.waited(self._clock.now())
            self._work_until = (
                self._claim.create_time + waited + round(runnable.work_limit * SECOND)
            )

    async def _worked(self, ctx: RunContext, runnable: Runnable, writer: Writer) -> Ending:
        """Let the run's code work until it is done, or has to stop."""
        work = asyncio.create_task(outcome(runnable.run(ctx, self._claim.definition)))
        orders = [asyncio.create_task(one) for one in (self._cancelled(), self._late())]
        try:
            done, rest = await self._first({writer.ended, work, *orders, self._left})
            seen = self._waiting.inbox.seen
            if rest is not None:
                ctx.warn_of_timing()
            if any(map(concludes, done & {work, *orders})):
                self._waiting.cancelled = work not in done and orders[0] in done
                ctx.end()
            else:  # the run goes on in another claim, which finds its waits as they are
                ctx.close()
        except asyncio.CancelledError:  # the process stops: the run goes on elsewhere
            ctx.close()
            raise
        finally:
            await stopped(work, *orders, *ctx.tasks())
        if writer.ended in done:
            writer.ended.result()  # before the terminal event it ends only by raising
        if done & {work, *orders}:
            await self._tidied(ctx, writer)
        if work in done:
            return self._ending_of(ctx, ctx.broken or work.result())
        for order in orders:
            if order in done:
                return order.result()(ctx)
        if rest is None:
            raise self._left.result()
        await ctx.tidying.done()
        await self._park([rest.wake_at, *ctx.deadlines()], seen)
        raise Parked

    async def _tidied(self, ctx: RunContext, writer: Writer) -> None:
        """Wait until the log tells how the waits ended that the run's code gave up."""
        tidying = asyncio.create_task(ctx.tidying.done())
        ends = {tidying, writer.ended, self._left}
        try:
            await asyncio.wait(ends, return_when=asyncio.FIRST_COMPLETED)
        finally:
            tidying.cancel()
        if self._left.done():
            raise self._left.result()

    async def _first(
        self, ends: set[asyncio.Future[Any]]
    ) -> tuple[set[asyncio.Future[Any]], Rest | None]:
        """Return which of these are done, as soon as any is; or none, and that the run rests."""
        while True:
            parkable = asyncio.create_task(self._waiting.activity.parkable())
            try:
                done, _ = await asyncio.wait({*ends, parkable}, return_when=asyncio.FIRST_COMPLETED)
            finally:
                parkable.cancel()
            if done != {parkable}:
                return done - {parkable}, None
            if self._waiting.activity.is_still(parkable.result()):
                return set(), parkable.result()

    def _ending_of(self, ctx: RunContext, result: Message | BaseException) -> Ending:
        """Return how the run ends, whose code returned or raised this."""
        if isinstance(result, Unable):
            raise result
        if isinstance(result, Message):
            ctx.warn_of_unasked()
        return ending_of(ctx, result)

    async def _park(self, wake_at: Sequence[int | None], seen: int) -> None:
        """Suspend the run, whose code has stopped, until the first of these times.

        Raises:
            LetGo: something has come for it meanwhile.

        """
        deadline = self._claim.deadline
        times = [one for one in (*wake_at, deadline) if one is not None]
        parked = await self._store.suspend(
            self._claim,
            wake_at=min(times, default=None),
            seen=seen,
            deadline=deadline,
        )
        if not parked:
            raise LetGo

    async def _cancel_awaited(self) -> None:
        """Cancel the runs that this one has started and waits for."""
        project, root = self._claim.project, self._claim.run_id
        for run_id in set(self._waiting.awaited.values()):
            with suppress(RunExpired, RunNotFound):
                record = await self._store.get(project, run_id)
                if record.parent is not None and record.parent.root == root:
                    cancel = Command(id=CANCEL, kind=CANCEL, run_id=run_id)
                    await self._store.command(project, run_id, cancel)

    def _end(self, ctx: RunContext, writer: Writer, ending: Ending) -> None:
        """Emit the terminal event: of any ending, or if it cannot be stored, of a defect.

        Those of the children that have not ended come before it, as far as there is room.
        """
        try:
            ctx.cancel_children()
        except Exception:
            log.exception("children_not_ended", run_id=self._claim.run_id)
        try:
            writer.emit(ending.payload, outcome=ending.outcome)
        except Exception as error:  # noqa: BLE001 - whatever it is, the run ends
            ending = defective(ctx, error)
            writer.emit(ending.payload, outcome=ending.outcome)
        if ending.log:
            tell = log.error if ending.defect else log.warning
            tell("run_failed", run_id=self._claim.run_id, **ending.log)

    def _due(self) -> Callable[[RunContext], Ending] | None:
        """Return how the run has to end before anything of it begins, if it has to."""
        if cancels(self._claim, self._claim.commands):
            return cancelled
        return timed_out if self._remaining() == 0 else None

    async def _cancelled(self) -> Callable[[RunContext], Ending]:
        """Wait for the run's cancellation; return how the run ends by it."""
        await self._waiting.inbox.cancelled()
        return cancelled

    async def _late(self) -> Callable[[RunContext], Ending]:
        """Wait until the run has had its time; return how the run ends by it."""
        while (left := self._remaining()) != 0:
            if left is None:
                await asyncio.Event().wait()
            elif self._claim.deadline is None:
                await self._waiting.activity.waits_over()
                await asyncio.sleep(self._remaining() or 0)
            else:
                await asyncio.sleep(left)
        return timed_out

    def _remaining(self) -> float | None:
        """Return the seconds until the run must have ended, if it waits no longer; None: any."""
        until = self._claim.deadline
        if until is None and self._work_until is not None:
            until = self._work_until + self._waiting.activity.waited()
        return None if until is None else max(0.0, (until - self._clock.now()) / SECOND)

    async def _boundary(self, reason: Unable | StoreUnavailable | None) -> None:
        if reason is None and not self._leaving():
            return
        if not self._left.done():
            self._left.set_result(reason or LetGo())
        await asyncio.Event().wait()  # the next process goes on from here


def concludes(task: asyncio.Future[Any]) -> bool:
    """Return whether a run ends with what a task has come to, rather than this claim alone."""
    if task.cancelled() or task.exception() is not None:
        return False
    return not isinstance(task.result(), Unable)


async def outcome(work: Awaitable[Message]) -> Message | BaseException:
    """Return what the work returns, or what it raises: even sys.exit() ends this run only."""
    try:
        return await work
    except BaseException as error:  # noqa: BLE001 - it is a value from here on
        return error


async def stopped(*tasks: asyncio.Task[object]) -> None:
    """Cancel tasks and wait a moment for them; what does not give in is left to itself."""
    for task in tasks:
        task.cancel()
    await asyncio.wait(tasks, timeout=CANCEL_PATIENCE)
    for task in tasks:
        if task.done() and not task.cancelled():
            task.exception()  # seen: nobody else asks for it
