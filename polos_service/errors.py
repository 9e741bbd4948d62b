"""What fails inside a run. What fails a call is in `polos_client.errors`."""

from __future__ import annotations

from typing import Self

from polos.v1.error_pb2 import FailureReason
from polos.v1.event_pb2 import Cost, Usage
from polos_client.event import failure_reason
from polos_service.limits import MESSAGE_LIMIT, NAME_LIMIT


def text(value: str, limit: int) -> str:
    """Return the value cut to `limit` characters, with surrogates replaced by `?`.

    A surrogate without its pair, from the name of a file for example, cannot be encoded.
    """
    return value[:limit].encode(errors="replace").decode()


class StepError(Exception):
    """A step failed in a way that its run's log tells, to readers and to the model.

    Attributes:
        reason: the kind of failure.
        message: a sentence for a person, without secrets; cut to MESSAGE_LIMIT characters.
        retryable: True where the same step may succeed later.
        retry_after: seconds the provider asks to wait; None if it said nothing.
        provider_request_id: the provider's id of the failed request; empty if none, cut to
            NAME_LIMIT characters.
        attempt: which attempt of the step failed, once that is recorded; 0 before.
        usage: the tokens that a failed model call used; None if that is not known.
        cost: what it cost; None if that is not known.

    """

    def __init__(
        self,
        reason: FailureReason.ValueType,
        message: str,
        *,
        retryable: bool = False,
        retry_after: float | None = None,
        provider_request_id: str = "",
    ) -> None:
        self.message = text(message, MESSAGE_LIMIT)
        super().__init__(self.message)
        self.reason = reason
        self.retryable = retryable
        self.retry_after = retry_after
        self.attempt = 0
        self.usage: Usage | None = None
        self.cost: Cost | None = None
        self.provider_request_id = text(provider_request_id, NAME_LIMIT)

    def used(self, usage: Usage | None, cost: Cost | None) -> Self:
        """Note what the model call has used that failed; return the error."""
        self.usage, self.cost = usage, cost
        return self


class LogFull(StepError):
    """The run's log has reached its limit: the run ends."""

    def __init__(self, limit: int, setting: str) -> None:
        super().__init__(
            FailureReason.FAILURE_REASON_LOG_FULL,
            f"The log of the run has reached the limit log_bytes of its project, {limit} bytes "
            f"({setting}). The run was ended.",
        )


class Fenced(Exception):
    """The claim was lost: another holder writes this log now. Stop, and write nothing."""


class Finished(Exception):
    """The log has its terminal event, or is no longer written by this process."""


class Unrecorded(Exception):
    """The end of a step could not be recorded. The run must not go on as if it had been."""


class Unable(Exception):
    """This process cannot go on with the run. It leaves the run to one that can, after a pause.

    The run does not end by it, and it does not count towards giving the run up. Raised by the
    run's code, at its top level or in the body of a step, where something that it needs is
    missing or cannot be read.

    Attributes:
        details: what the service's log says besides the message, by name.

    """

    def __init__(self, message: str, **details: str) -> None:
        super().__init__(message)
        self.details = details


class OtherVersion(Unable):
    """The run was started with another version of its code, which another process may have."""

    def __init__(self, version: str) -> None:
        super().__init__(
            f"It was started with version {version!r} of its code, which this process does not "
            "have.",
            version=version,
        )


class Nondeterministic(Unable):
    """The run's code asks for a step, or for a child, as another one than the log has.

    The code was changed while the run was under way. Code that asks as before goes on with it.
    """

    def __init__(self, what: str, *, run_id: str, step_key: str, recorded: str, asked: str) -> None:
        super().__init__(
            f"The log of run {run_id} has {what} of step {step_key!r} as {recorded!r}, and the "
            f"run's code asks for {asked!r}. Go back to the code that the run was started with, "
            "or cancel the run.",
            code=failure_reason(FailureReason.FAILURE_REASON_NONDETERMINISTIC),
            step_key=step_key,
            recorded=recorded,
            asked=asked,
        )
