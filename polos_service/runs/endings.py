"""How a run ends: the terminal event of each kind of ending."""

from __future__ import annotations

import uuid
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from google.protobuf.message import Message

from polos.v1.error_pb2 import FailureReason
from polos.v1.event_pb2 import Error
from polos.v1.run_pb2 import RunState
from polos_client.event import failure_reason
from polos_service.errors import StepError
from polos_service.runs.context import RunContext

MAX_CLAIMS = 5
"""Claims in a row that may end without a finished step, other than by a release that lost
nothing. The next claim gives the run up."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Ending:
    """The end of a run.

    Attributes:
        payload: the payload of the terminal event.
        outcome: the state that the event leaves the run in.
        log: what the service's own log says of a failure, as keyword arguments; else empty.
        defect: whether it is the service that failed.

    """

    payload: Message
    outcome: RunState.ValueType
    log: Mapping[str, Any] = field(default_factory=dict)
    defect: bool = False


def ending_of(ctx: RunContext, result: Message | BaseException) -> Ending:
    """Return how a run ends whose code returned this payload, or raised this."""
    if isinstance(result, StepError):
        log = {"reason": failure_reason(result.reason), "message": result.message}
        return replace(failed(ctx, result), log=log)
    if isinstance(result, BaseException):
        return defective(ctx, result)
    return Ending(payload=result, outcome=RunState.RUN_STATE_COMPLETED)


def failed(ctx: RunContext, error: StepError) -> Ending:
    """Return the ending of a run in which a step failed."""
    payload = Error(
        message=error.message,
        reason=error.reason,
        retryable=error.retryable,
        provider_request_id=error.provider_request_id,
        total_steps=ctx.totals.steps,
        duration=ctx.age(),
        **ctx.totals.told(),
    )
    return Ending(payload=payload, outcome=RunState.RUN_STATE_FAILED)


def defective(ctx: RunContext, cause: BaseException) -> Ending:
    """Return the ending of a run in which the service failed.

    Readers get a fixed text and an id; the service's own log has the cause under that id.
    """
    error_id = uuid.uuid4().hex
    error = StepError(
        FailureReason.FAILURE_REASON_INTERNAL,
        f"The service failed during this run. Its log has the details under {error_id}.",
    )
    ending = failed(ctx, error)
    ending.payload.error_id = error_id  # type: ignore[attr-defined]  # the payload is an Error
    return Ending(
        payload=ending.payload,
        outcome=ending.outcome,
        log={"error_id": error_id, "exc_info": cause},
        defect=True,
    )


def timed_out(ctx: RunContext) -> Ending:
    """Return the ending of a run at its deadline."""
    seconds = ctx.age().ToTimedelta().total_seconds()
    error = StepError(
        FailureReason.FAILURE_REASON_RUN_TIMEOUT,
        f"The run exceeded its timeout and was ended after {seconds:.1f} s.",
        retryable=True,
    )
    return failed(ctx, error)


def given_up(ctx: RunContext) -> Ending:
    """Return the ending of a run that fails, or takes the process down, again and again."""
    error = StepError(
        FailureReason.FAILURE_REASON_RUN_GIVEN_UP,
        f"The service failed, or its process ended, {MAX_CLAIMS} times in a row during this run, "
        "without a step finishing in between. The run was given up.",
    )
    return failed(ctx, error)


def cancelled(ctx: RunContext) -> Ending:
    """Return the ending of a run that somebody cancelled."""
    return Ending(payload=ctx.cancelled_end(), outcome=RunState.RUN_STATE_CANCELLED)
