"""Takes up queued runs and drives each to its terminal event."""

from __future__ import annotations

import asyncio
import uuid
from collections.abc import Awaitable, Callable, Collection, Mapping

from google.protobuf.message import Message

from polos.v1.error_pb2 import FailureReason
from polos.v1.event_pb2 import Error, RunCancelled
from polos.v1.run_pb2 import RunState
from polos_client.errors import StoreUnavailable
from polos_service.errors import Fenced, Finished, StepError, being_cancelled
from polos_service.logs import get_logger
from polos_service.runs.clock import Clock
from polos_service.runs.context import Boundary, RunContext
from polos_service.runs.frame import SECOND
from polos_service.runs.journal import Journal
from polos_service.runs.writer import Writer
from polos_service.store import CANCEL, Claim, RunStore

Runnable = Callable[[RunContext, bytes], Awaitable[Message]]
"""Runs a definition and returns the payload of its terminal event."""

CANCEL_PATIENCE = 5.0
"""Seconds that cancelled code gets to clean up before the run ends without it."""

MAX_CLAIMS = 5
"""Claims in a row, without a step finishing or a release, after which a run is given up:
it seems to take the process down."""

RETRY_PAUSE = 1.0
"""Seconds before a store that failed, or a run that it failed, is tried again."""

EXPIRY_PERIOD = 1.0
"""Seconds between two looks for queued runs whose deadline has passed."""

log = get_logger(__name__)


class Executor:
    """Runs what is queued, up to `limit` runs at once; the others wait in order.

    `runnables` is looked at whenever a run is queued: what it learns later is run, too.
    """

    def __init__(
        self, store: RunStore, runnables: Mapping[str, Runnable], clock: Clock, limit: int
    ) -> None:
        self._store = store
        self._runnables = runnables
        self._clock = clock
        self._slots = asyncio.Semaphore(limit)
        self._runs: set[asyncio.Task[None]] = set()
        self._stopping = False
        self._stopped = False
        self._loops: list[asyncio.Task[None]] = []

    @property
    def running(self) -> int:
        """How many runs are being worked on."""
        return len(self._runs)

    def start(self) -> None:
        """Begin to take up runs."""
        self._loops = [
            asyncio.create_task(self._claim(), name="polos-claim"),
            asyncio.create_task(self._expire(), name="polos-expire"),
        ]

    async def stop(self, grace: float) -> None:
        """Take up no further run, and let go of the running ones within `grace` seconds.

        In the first half of it they go on and may end. In the second half each is released
        where its next step would begin, which leaves nothing to take back. What is in the
        middle of a step after that is cut, and its step begins anew elsewhere.
        """
        for loop in self._loops:
            loop.cancel()
        await self._settled(self._loops, None)
        await self._settled(self._runs, grace / 2)
        self._stopping = True
        await self._settled(self._runs, grace / 2)
        self._stopped = True
        for run in self._runs:
            run.cancel()
        await self._settled(self._runs, None)

    async def _settled(self, tasks: Collection[asyncio.Task[None]], timeout: float | None) -> None:
        if tasks:
            await asyncio.wait(tasks, timeout=timeout)

    async def cancel(self, project: str, run_id: str) -> None:
        """Put the cancellation on disk; whoever holds the run ends it.

        Raises:
            RunNotFound: there is no such run.

        """
        await self._store.command(project, run_id, CANCEL)
        await self._end_queued(project, run_id)

    async def _end_queued(self, project: str, run_id: str) -> None:
        """Take up a run that is to end: nobody would before a slot is free."""
        if self._stopped:
            return  # the next process finds the command, or the deadline
        claim = await self._store.claim_run(project, run_id)
        if claim is not None:
            self._spawn(claim)

    async def _expire(self) -> None:
        """End queued runs at their deadline; those that run are ended by their holder."""
        while True:
            await self._clock.sleep(EXPIRY_PERIOD)
            try:
                for project, run_id in await self._store.overdue(self._clock.now()):
                    await self._end_queued(project, run_id)
            except Exception:
                log.exception("expiry_failed")

    async def _claim(self) -> None:
        while True:
            await self._slots.acquire()
            try:
                claim = await self._store.claim(self._runnables.keys())
            except Exception:
                self._slots.release()
                log.exception("claim_failed")
                await self._clock.sleep(RETRY_PAUSE)
                continue
            except BaseException:
                self._slots.release()
                raise
            self._spawn(claim).add_done_callback(lambda _: self._slots.release())

    def _spawn(self, claim: Claim) -> asyncio.Task[None]:
        run = asyncio.create_task(self._hold(claim), name=f"polos-run-{claim.run_id}")
        self._runs.add(run)
        run.add_done_callback(self._runs.discard)
        return run

    async def _hold(self, claim: Claim) -> None:
        """Drive the run, and let go of it whatever happens."""
        try:
            await self._drive(claim)
        except Fenced:
            log.warning("claim_lost", run_id=claim.run_id, epoch=claim.epoch)
        except Exception:
            log.exception("run_released", run_id=claim.run_id)
            await self._clock.sleep(RETRY_PAUSE)
        finally:
            await self._release(claim)

    async def _release(self, claim: Claim) -> None:
        while True:
            try:
                await self._store.release(claim)
            except StoreUnavailable as error:
                log.warning("release_failed", run_id=claim.run_id, error=str(error))
                if self._stopping:
                    return  # the next to open the store finds the run without a holder
                await self._clock.sleep(RETRY_PAUSE)
            else:
                return

    async def _drive(self, claim: Claim) -> None:
        journal = await Journal.load(self._store.history(claim))
        writer = Writer(self._store, claim, self._clock)
        ctx = RunContext(claim, journal, writer, self._clock, self._boundary(current_task()))
        write = asyncio.create_task(writer.run())
        work = asyncio.create_task(self._work(claim, ctx, writer, journal.claims))
        obey = asyncio.create_task(self._obey(claim, ctx, writer, work))
        try:
            await first_failure_or(write, work, obey)
        finally:
            for task in (write, work, obey):
                task.cancel()
            await asyncio.wait({write, work, obey}, timeout=CANCEL_PATIENCE)

    def _boundary(self, hold: asyncio.Task[None]) -> Boundary:
        async def boundary() -> None:
            if self._stopping:
                hold.cancel()  # the next process goes on from here, with nothing to take back
                await asyncio.Event().wait()

        return boundary

    async def _work(self, claim: Claim, ctx: RunContext, writer: Writer, claims: int) -> None:
        if CANCEL in claim.commands or self._remaining(claim) == 0:
            return  # `_obey` ends it; nothing of it is to begin
        if claims > MAX_CLAIMS:
            writer.end(given_up(ctx), RunState.RUN_STATE_FAILED)
            return
        try:
            payload = await self._runnables[claim.workflow_id](ctx, claim.definition)
        except StepError as error:
            writer.end(failure(ctx, error), RunState.RUN_STATE_FAILED)
        except Finished:
            pass  # it went on after its end, which changes nothing
        except BaseException as error:  # noqa: BLE001 - even sys.exit() ends this run only
            if being_cancelled():
                return  # whoever cancels ends the run
            writer.end(defect(claim, ctx, error), RunState.RUN_STATE_FAILED)
        else:
            writer.end(payload, RunState.RUN_STATE_COMPLETED)

    async def _obey(
        self, claim: Claim, ctx: RunContext, writer: Writer, work: asyncio.Task[None]
    ) -> None:
        """End the run when it is cancelled, or at its deadline, whatever its code does."""
        ending: Callable[[RunContext], Message]
        try:
            async with asyncio.timeout(self._remaining(claim)):
                await self._cancelled(claim)
        except TimeoutError:
            ending, outcome = timed_out, RunState.RUN_STATE_FAILED
        else:
            ending, outcome = cancelled, RunState.RUN_STATE_CANCELLED
        work.cancel()
        await asyncio.wait({work}, timeout=CANCEL_PATIENCE)
        writer.end(ending(ctx), outcome)

    async def _cancelled(self, claim: Claim) -> None:
        inbox = claim.commands
        while CANCEL not in inbox:
            inbox = await self._store.commands(claim, inbox)

    def _remaining(self, claim: Claim) -> float | None:
        if claim.deadline is None:
            return None
        return max(0.0, (claim.deadline - self._clock.now()) / SECOND)


async def first_failure_or(write: asyncio.Task[None], *others: asyncio.Task[None]) -> None:
    """Return when everything is written; raise whatever fails before, in whichever task."""
    pending = {write, *others}
    while not write.done():
        done, pending = await asyncio.wait(pending, return_when=asyncio.FIRST_COMPLETED)
        for task in done:
            if not task.cancelled():
                task.result()


def current_task() -> asyncio.Task[None]:
    """Return the task at hand."""
    task = asyncio.current_task()
    if task is None:
        raise RuntimeError("A run is driven in a task.")
    return task


def failure(ctx: RunContext, error: StepError) -> Error:
    """Return the event of a run that ends because a step failed."""
    return Error(
        message=error.message,
        reason=error.reason,
        retryable=error.retryable,
        provider_request_id=error.provider_request_id,
        usage=ctx.totals.usage,
        cost=ctx.totals.cost,
        total_steps=ctx.totals.steps,
        duration=ctx.age(),
    )


def timed_out(ctx: RunContext) -> Error:
    """Return the event of a run that took too long."""
    seconds = ctx.age().ToTimedelta().total_seconds()
    return failure(
        ctx,
        StepError(
            FailureReason.FAILURE_REASON_RUN_TIMEOUT,
            f"The run took longer than its timeout: it was ended after {seconds:.1f} s.",
            retryable=True,
        ),
    )


def given_up(ctx: RunContext) -> Error:
    """Return the event of a run that takes the process down again and again."""
    return failure(
        ctx,
        StepError(
            FailureReason.FAILURE_REASON_RUN_GIVEN_UP,
            f"The service's process ended {MAX_CLAIMS} times in a row while it ran this, without "
            "a step finishing in between. The run was given up.",
        ),
    )


def defect(claim: Claim, ctx: RunContext, cause: BaseException) -> Error:
    """Log an unexpected exception, and return the event that names the log's entry only."""
    error_id = uuid.uuid4().hex
    log.error("run_failed", run_id=claim.run_id, error_id=error_id, exc_info=cause)
    error = failure(
        ctx,
        StepError(
            FailureReason.FAILURE_REASON_INTERNAL,
            f"The service failed while it ran this. Its log has the rest under {error_id}.",
        ),
    )
    error.error_id = error_id
    return error


def cancelled(ctx: RunContext) -> RunCancelled:
    """Return the event of a run that was cancelled."""
    return RunCancelled(
        usage=ctx.totals.usage,
        cost=ctx.totals.cost,
        total_steps=ctx.totals.steps,
        duration=ctx.age(),
    )
