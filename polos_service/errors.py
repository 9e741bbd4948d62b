"""What fails inside a run. What fails a call is in `polos_client.errors`."""

from __future__ import annotations

import asyncio

from polos.v1.error_pb2 import FailureReason


class StepError(Exception):
    """A step failed in a way that its run's log tells, to readers and to the model.

    Attributes:
        reason: the kind of failure.
        message: a sentence for a person, without secrets; at most 4096 characters.
        retryable: True where the same step may succeed later.
        retry_after: seconds the provider asks to wait; None if it said nothing.
        provider_request_id: the provider's id of the failed request; empty if none.

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
        # Half of a surrogate pair, from a file's name say, is no text that can travel.
        self.message = message[:4096].encode(errors="replace").decode()
        super().__init__(self.message)
        self.reason = reason
        self.retryable = retryable
        self.retry_after = retry_after
        self.provider_request_id = provider_request_id


class Fenced(Exception):
    """The claim was lost: another holder writes this log now. Stop, and write nothing."""


class Finished(Exception):
    """The log already has its terminal event."""


def being_cancelled() -> bool:
    """Return whether somebody cancels the task at hand: code can raise CancelledError itself."""
    task = asyncio.current_task()
    return task is not None and task.cancelling() > 0
