"""A child: a run inside a step of another run. It writes into the log of their root."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import cast

from google.protobuf.message import Message

from polos.v1.error_pb2 import FailureReason
from polos.v1.event_pb2 import AgentFinish, Error, RunCancelled
from polos_service.errors import Finished, StepError, Unable
from polos_service.logs import get_logger
from polos_service.runs.attempt import Attempt
from polos_service.runs.context import RunContext
from polos_service.runs.drive import outcome, stopped
from polos_service.runs.endings import Ending, ending_of, timed_out
from polos_service.runs.runnable import Runnable

log = get_logger(__name__)


@dataclass(frozen=True, slots=True)
class ChildStart:
    """What a child is started with, if the log does not have it yet.

    Attributes:
        runnable: the agent or workflow.
        pin: returns the definition of the run.
        timeout: seconds that it may take; None: as long as the root run.

    """

    runnable: Runnable
    pin: Callable[[], Awaitable[bytes]]
    timeout: float | None


async def run_child(
    parent: RunContext, attempt: Attempt, start: ChildStart
) -> tuple[RunContext, Message]:
    """Run a child in this attempt of a step of its parent; return it and what it ended with.

    A child that the log has goes on. One that has ended does not run again.

    Raises:
        StepError: it failed or was cancelled, or it cannot begin.
        Unable: this process cannot go on with it.

    """
    with parent.working():  # nothing would wake the run for it if it were parked here
        child, pinned, deadline = await _begun(parent, attempt, start)
    # An agent's code runs again for the results of its tools, which its end does not hold.
    if child.end_payload is None or isinstance(child.end_payload, AgentFinish):
        # One that had ended is not late now, and cannot be cancelled.
        ending = await _ending(child, start.runnable, pinned, deadline)
        with child.working():
            await _end(child, ending)
    end = cast("Message", child.end_payload)
    if isinstance(end, Error | RunCancelled):
        raise failure(child.run_id, end)
    return child, end


async def _begun(
    parent: RunContext, attempt: Attempt, start: ChildStart
) -> tuple[RunContext, bytes, int | None]:
    """Return the child, which begins if the log does not have it, its definition and deadline."""
    await parent.paced()
    recorded = parent.children.recorded(attempt)
    if recorded is None:
        pinned = await start.pin()
        deadline = None if start.timeout is None else parent.after(start.timeout)
    else:
        pinned, deadline = recorded.definition, recorded.deadline
    first = await start.runnable.first(pinned)
    child = await parent.children.begin(
        attempt, start.runnable.id, first, definition=pinned, deadline=deadline
    )
    await parent.paced()  # children that were stored together are told so in the same turn
    return child, pinned, deadline


async def _ending(
    child: RunContext, runnable: Runnable, pinned: bytes, deadline: int | None
) -> Ending | None:
    """Let the child's code work until it is done or its time is over; return how it ends.

    None if somebody cancels the child. What has ended is neither late nor cancelled.
    """
    is_open = child.end_payload is None
    if is_open and child.cancellation.has_come:
        return None
    work = asyncio.create_task(outcome(runnable.run(child, pinned)))
    cancellation = asyncio.create_task(child.cancellation.comes())
    ends = {work, cancellation} if is_open else {work}
    try:
        while True:
            left = child.left(deadline) if is_open else None
            done, _ = await asyncio.wait(ends, timeout=left, return_when=asyncio.FIRST_COMPLETED)
            if done != {cancellation} or child.cancellation.has_come:
                break
            ends = {work}  # a tool has cancelled the task that looks for it
    finally:
        if not work.done():
            child.end()
        with child.working():  # a run that is parked now would not hear of the cancellation again
            await stopped(work, cancellation, *child.tasks())
    if not done:
        return timed_out(child)
    if work not in done:
        return None
    result = child.broken or work.result()
    if isinstance(result, Finished | Unable):
        raise result
    return ending_of(child, result)


async def _end(child: RunContext, ending: Ending | None) -> None:
    """Record how the child ends; None: somebody has cancelled it."""
    if ending is None:
        await child.end_cancelled()
        return
    await child.tidying.done()  # the log tells first how the waits ended that the code gave up
    await child.finish(ending.payload)
    _tell(child, ending)


def failure(run_id: str, end: Error | RunCancelled) -> StepError:
    """Return what the step fails with whose child ended like this."""
    if isinstance(end, RunCancelled):
        return StepError(
            FailureReason.FAILURE_REASON_CHILD_CANCELLED, f"The child run {run_id} was cancelled."
        )
    return StepError(
        FailureReason.FAILURE_REASON_CHILD_FAILED,
        end.message,
        provider_request_id=end.provider_request_id,
    )


def _tell(child: RunContext, ending: Ending) -> None:
    if ending.log:
        tell = log.error if ending.defect else log.warning
        tell("child_failed", run_id=child.run_id, **ending.log)
