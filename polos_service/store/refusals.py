"""The errors with which every store refuses a call, in the same words."""

from __future__ import annotations

from polos_client.errors import (
    RequestIdReused,
    RunExpired,
    RunNotFinished,
    RunNotFound,
    TooManyCommands,
    TooManyRuns,
)
from polos_service.store import CANCEL, INBOX_BYTES, INBOX_LIMIT, Command

QUEUE_RETRY = 1.0
"""Seconds after which a start that found the queue full is worth another try."""


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


def inbox_full(run_id: str) -> TooManyCommands:
    """Return the error for a command to a run whose inbox has no room for it."""
    return TooManyCommands(
        f"The inbox of run {run_id} is full: it holds at most {INBOX_LIMIT} commands with "
        f"{INBOX_BYTES} bytes of payloads. The run can still be cancelled.",
        run_id=run_id,
    )


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


def reused(request_id: str, run_id: str) -> RequestIdReused:
    """Return the error for a request id that started a run with another payload."""
    return RequestIdReused(
        f"The request id {request_id!r} already started run {run_id} with another "
        "payload. Use a new request id for a new run.",
        request_id=request_id,
        run_id=run_id,
    )
