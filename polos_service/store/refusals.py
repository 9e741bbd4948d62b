"""The errors with which every store refuses a call, in the same words."""

from __future__ import annotations

from polos_client.errors import (
    RequestIdReused,
    RunExpired,
    RunNotFinished,
    RunNotFound,
    StoreUnavailable,
    TooManyCommands,
    TooManyRuns,
)
from polos_service.store import (
    CANCEL,
    EARLY,
    EARLY_BYTES,
    EARLY_LIMIT,
    INBOX_BYTES,
    INBOX_LIMIT,
    Command,
    NewRun,
)

QUEUE_RETRY = 1.0
"""Seconds after which a start that found the queue full is worth another try."""


class StoreInUse(StoreUnavailable):
    """Another service has the store open, which belongs to one at a time."""


def too_many(queued: int) -> TooManyRuns:
    """Return the error for a start while as many runs are queued as may be."""
    return TooManyRuns(
        f"{queued} runs are queued, which is the limit (POLOS_MAX_QUEUED). This one was not "
        "started; try again later, or start more replicas of the service.",
        retry_after=QUEUE_RETRY,
    )


def require_cancel_id(run_id: str, command: Command) -> None:
    """Refuse a command that would take the place of the one that cancels a root run.

    Raises:
        ValueError: it has the id CANCEL and does not cancel the run, or the other way round.

    """
    if command.cancels(run_id) != (command.id == CANCEL):
        raise ValueError(
            f"The command that cancels run {run_id} has the id {CANCEL!r}, and no other has it. "
            f"This one has the id {command.id!r}, the kind {command.kind!r} and the run "
            f"{command.run_id}: give it another id."
        )


def require_room(run_id: str, kind: str, count: int, size: int) -> None:
    """Refuse a command that an inbox has no room for.

    Args:
        run_id: the root run.
        kind: the command's, which is not SETTLED.
        count: commands that would share the room with it, itself included.
        size: bytes of their payloads.

    Raises:
        TooManyCommands: there is no room.

    """
    early = kind == EARLY
    limit, most = (EARLY_LIMIT, EARLY_BYTES) if early else (INBOX_LIMIT, INBOX_BYTES)
    if count <= limit and size <= most:
        return
    bound = f"{limit} with {most} bytes in all"
    if early:
        text = (
            f"Run {run_id} keeps no more answers to waits that it has not reached: at most {bound}."
            " Answer waits that are open."
        )
    else:
        text = (
            f"The inbox of run {run_id} is full: it holds at most {bound} that the run has not "
            "read yet. Try again later. The run can still be cancelled."
        )
    raise TooManyCommands(text, run_id=run_id)


def not_found(run_id: str) -> RunNotFound:
    """Return the error for a run that does not exist."""
    return RunNotFound(f"There is no run {run_id!r}.", run_id=run_id)


def expired(run_id: str) -> RunExpired:
    """Return the error for a run that retention removed."""
    return RunExpired(f"Run {run_id} ended long ago and was removed by retention.", run_id=run_id)


def not_finished(run_id: str) -> RunNotFinished:
    """Return the error for the deletion of a run that has not ended."""
    return RunNotFinished(
        f"Run {run_id} has not ended. Cancel it first, then delete it.", run_id=run_id
    )


def needed(run_id: str, parent: str) -> RunNotFinished:
    """Return the error for the deletion of a run while the run that has started it is open."""
    return RunNotFinished(
        f"Run {run_id} was started by run {parent}, which has not ended and may still ask for it. "
        f"Cancel {parent} or wait for its end, then delete {run_id}.",
        run_id=parent,
    )


def reused(run: NewRun, run_id: str) -> RequestIdReused:
    """Return the error for a request id or a step that started a run with other arguments."""
    if run.parent is not None:
        return RequestIdReused(
            f"The step {run.parent.step_key!r} of run {run.parent.run_id} already started run "
            f"{run_id} with another payload.",
            request_id="",
            run_id=run_id,
        )
    request_id = run.request_id or ""
    return RequestIdReused(
        f"The request id {request_id!r} already started run {run_id} with other arguments: the "
        "input or an option, such as the session, the budget or the timeout, differs. "
        "Use a new request id for a new run.",
        request_id=request_id,
        run_id=run_id,
    )
