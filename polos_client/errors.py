"""Everything that can go wrong, as a tree.

PolosError
├── DefinitionError          an Agent, tool or script is invalid, or uses a feature
│                            that is not built yet
│   └── ResultMismatch       a result is not of the class that this process has
├── CallError                the service refused a call; nothing was started or changed
│   ├── AgentNotFound        the agent or workflow is not loaded
│   ├── RunNotFound          the run does not exist
│   ├── RunExpired           the run was removed by retention
│   ├── InvalidRequest       a field is invalid; `violations` says which and why
│   ├── RequestIdReused      the request id started a run with a different payload
│   ├── RunNotFinished       only a finished run can be deleted
│   ├── CursorAhead          the cursor is past the newest event
│   ├── TooManyRuns          too many runs are queued; try again later
│   ├── QuotaExceeded        the call exceeds a limit of the project
│   ├── TooManyCalls         too many calls or streams are open; try again later
│   ├── TooManyCommands      the run's inbox is full
│   ├── TooLarge             the request is too large
│   ├── Draining             the service is shutting down; try again
│   ├── StoreUnavailable     the store does not respond or rejects writes
│   ├── Unauthenticated      the credentials are missing or invalid
│   ├── PermissionDenied     the credentials do not permit this call
│   ├── KeyNotFound          the API key does not exist
│   ├── TooManyKeys          the project has as many API keys as it may
│   ├── AlreadyAnswered      another answer to the wait was accepted before
│   ├── WaitExpired          the wait expired before the answer came
│   ├── WaitNotOpen          there is no such open wait
│   ├── AmbiguousWait        several open waits have this key
│   └── InternalError        a bug in the service; its log has the details
├── ConnectionLost           the service cannot be reached, or violated its protocol;
│                            has the run id and the cursor to resume from
├── RunError                 a run ended without a result
│   ├── RunFailed            it ended with an `error` event; also a RuntimeError
│   ├── RunCancelled         it was cancelled
│   └── RunTimeout           it exceeded its timeout
├── WorkflowTimeoutError     a run did not end in time; it continues, unless it is a RunTimeout
└── StepExecutionError       a step of a workflow failed

A CallError is the same class on both sides of the wire: the service raises it, its
error table turns it into a status, and the client builds it again from that.
"""

from __future__ import annotations

import copyreg
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, ClassVar

if TYPE_CHECKING:
    from polos_client.result import Usage


class PolosError(Exception):
    """Base of every error of this package. It can be pickled, with all its attributes."""

    def __reduce__(self) -> tuple[Any, ...]:
        # By default it would be made anew from its message alone, without the other arguments.
        return copyreg.__newobj__, (type(self), *self.args), vars(self)  # type: ignore[attr-defined]


class DefinitionError(PolosError):
    """An agent, a tool or a script is invalid, or uses a feature that is not built yet."""


class ResultMismatch(DefinitionError):
    """A run's result is of a class that this process does not have, or that it does not fit.

    Attributes:
        result_json: the result as JSON text.
        result_schema: its class, as `module.Class`.

    """

    def __init__(self, message: str, *, result_json: str, result_schema: str) -> None:
        super().__init__(message)
        self.result_json = result_json
        self.result_schema = result_schema


class CallError(PolosError):
    """The service refused a call; nothing was started or changed by it.

    Attributes:
        reason: the `polos.v1.ErrorReason` without its prefix.
        metadata: the keys that the reason's comment in `error.proto` lists, as strings.
        retry_after: seconds after which the same call may succeed; None if retrying
            does not help.
        run_id: the run that was being read; None if none was.
        cursor: sequence of the last event of that run that was received; 0 if there was none.

    """

    reason: ClassVar[str] = "UNSPECIFIED"
    run_id: str | None = None
    cursor: int = 0

    def __init__(self, message: str, *, retry_after: float | None = None, **metadata: str) -> None:
        super().__init__(message)
        self.retry_after = retry_after
        self.metadata = metadata


class AgentNotFound(CallError):
    """No agent or workflow with that id is loaded."""

    reason = "AGENT_NOT_FOUND"


class RunNotFound(CallError):
    """No run with that id exists."""

    reason = "RUN_NOT_FOUND"


class RunExpired(CallError):
    """The run existed and was removed by retention."""

    reason = "RUN_EXPIRED"


class InvalidRequest(CallError):
    """One or more fields of a request are invalid.

    Attributes:
        violations: what is wrong, by the path of the argument, for example `payload` or
            `input[0].content`.

    """

    reason = "INVALID_REQUEST"

    def __init__(self, violations: Mapping[str, str]) -> None:
        super().__init__("; ".join(f"{field} {what}" for field, what in violations.items()))
        self.violations = dict(violations)


class RequestIdReused(CallError):
    """The request id already started a run with a different payload."""

    reason = "REQUEST_ID_REUSED"


class RunNotFinished(CallError):
    """Only a finished run can be deleted; an independent run only after the run that started it."""

    reason = "RUN_NOT_FINISHED"


class CursorAhead(CallError):
    """The cursor is past the newest event of the log."""

    reason = "CURSOR_AHEAD"


class TooManyRuns(CallError):
    """Too many runs are queued."""

    reason = "TOO_MANY_RUNS"


class QuotaExceeded(CallError):
    """The call exceeds a limit of the caller's project; `metadata` has its name and value."""

    reason = "QUOTA_EXCEEDED"


class TooManyCalls(CallError):
    """Too many calls or streams are open, in the service or on the connection."""

    reason = "TOO_MANY_CALLS"


class TooManyCommands(CallError):
    """The run's inbox is full."""

    reason = "TOO_MANY_COMMANDS"


class TooLarge(CallError):
    """The request is larger than the service accepts."""

    reason = "TOO_LARGE"


class Draining(CallError):
    """The service is shutting down."""

    reason = "DRAINING"


class StoreUnavailable(CallError):
    """The store does not respond, or rejects writes."""

    reason = "STORE_UNAVAILABLE"


class Unauthenticated(CallError):
    """The credentials are missing or invalid."""

    reason = "UNAUTHENTICATED"


class PermissionDenied(CallError):
    """The credentials do not permit this call."""

    reason = "PERMISSION_DENIED"


class KeyNotFound(CallError):
    """No API key with that id exists."""

    reason = "KEY_NOT_FOUND"


class TooManyKeys(CallError):
    """The project has as many API keys as it may."""

    reason = "TOO_MANY_KEYS"


class AlreadyAnswered(CallError):
    """Another answer to the wait was accepted before."""

    reason = "ALREADY_ANSWERED"


class WaitExpired(CallError):
    """The wait expired before the answer came."""

    reason = "WAIT_EXPIRED"


class WaitNotOpen(CallError):
    """There is no such open wait: it is over, or cannot be answered, or the run has ended."""

    reason = "WAIT_NOT_OPEN"


class AmbiguousWait(CallError):
    """Several open waits of a run and its children have this key.

    `metadata["waits"]` lists the first of them as `WAIT_ID RUN_ID`, one per line.
    """

    reason = "AMBIGUOUS_WAIT"


class InternalError(CallError):
    """A bug in the service; `metadata["error_id"]` identifies the details in its log."""

    reason = "INTERNAL"


CALL_ERRORS: Mapping[str, type[CallError]] = {cls.reason: cls for cls in CallError.__subclasses__()}
"""Every CallError by its reason."""


class ConnectionLost(PolosError):
    """The service could not be reached in time, or violated its protocol.

    The run, if it was started, continues. `events.stream_workflow(client,
    workflow_run_id=error.run_id, last_sequence_id=error.cursor)` resumes from there.

    Attributes:
        run_id: the run that was being read; None if it is unknown.
        cursor: sequence of the last event that was received; 0 if there was none.

    """

    def __init__(self, message: str, *, run_id: str | None = None, cursor: int = 0) -> None:
        super().__init__(message)
        self.run_id = run_id
        self.cursor = cursor


class RunError(PolosError):
    """A run ended without a result.

    Attributes:
        run_id: the run.
        reason: the `polos.v1.FailureReason` in lower case without its prefix.
        retryable: True if a new run with the same input may succeed.
        text: the text that the agent had generated.
        usage: the tokens of the model calls that finished.
        spent: these, and the tokens of failed model calls and void attempts.
        error_id: if reason is "internal", identifies the details in the service's log.

    """

    def __init__(  # one keyword for each documented attribute
        self,
        message: str,
        *,
        run_id: str,
        reason: str,
        usage: Usage,
        retryable: bool = False,
        text: str = "",
        error_id: str | None = None,
        spent: Usage | None = None,
    ) -> None:
        PolosError.__init__(self, message)  # the next class may be one that takes no message
        self.run_id = run_id
        self.reason = reason
        self.retryable = retryable
        self.text = text
        self.usage = usage
        self.spent = usage if spent is None else spent
        self.error_id = error_id


class RunFailed(RunError, RuntimeError):
    """The run ended with an `error` event."""


class RunCancelled(RunError):
    """The run was cancelled."""


class WorkflowTimeoutError(PolosError):
    """A run did not end in time. It continues, unless this is a RunTimeout.

    Attributes:
        execution_id: the run.
        timeout_seconds: the timeout; None if only the service knows it.

    """

    def __init__(
        self, execution_id: str, timeout_seconds: float | None = None, message: str = ""
    ) -> None:
        given = "it was given" if timeout_seconds is None else f"{timeout_seconds:g} s"
        super().__init__(message or f"run {execution_id} took longer than {given}")
        self.execution_id = execution_id
        self.timeout_seconds = timeout_seconds


class RunTimeout(RunError, WorkflowTimeoutError):
    """The run exceeded its timeout and was ended.

    Attributes:
        execution_id: the same as `run_id`.
        timeout_seconds: the timeout passed to `run`; None if the run's own deadline ended it.

    """

    def __init__(
        self, message: str, *, run_id: str, timeout_seconds: float | None = None, **attributes: Any
    ) -> None:
        super().__init__(message, run_id=run_id, **attributes)
        self.execution_id = run_id
        self.timeout_seconds = timeout_seconds


class StepExecutionError(PolosError):
    """A step of a workflow failed: raised in the workflow's code, which may catch it.

    Attributes:
        reason: why.

    """

    def __init__(self, reason: str) -> None:
        super().__init__(reason)
        self.reason = reason


class ExecutionCancelledError(PolosError):
    """The run of a workflow was cancelled, seen from its own code. Nothing raises it yet."""


for _error in (one for one in tuple(vars().values()) if isinstance(one, type)):
    if issubclass(_error, PolosError):
        _error.__module__ = "polos"  # tracebacks show the name that programs import
