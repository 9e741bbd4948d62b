"""Everything that can go wrong, as a tree.

PolosError
├── DefinitionError          an Agent, tool or script is defined wrongly, or asks for
│                            what is not built yet
├── CallError                the service refused a call; nothing was started or changed
│   ├── AgentNotFound        no such agent is loaded
│   ├── RunNotFound          no such run
│   ├── RunExpired           the run was removed by retention
│   ├── InvalidRequest       a field is wrong; `violations` says which and why
│   ├── RequestIdReused      the request id started a run with another payload
│   ├── RunNotFinished       only a finished run can be deleted
│   ├── CursorAhead          the cursor is past the newest event
│   ├── TooManyRuns          too many runs wait; try again later
│   ├── TooManyCalls         too many calls or streams are open; try again later
│   ├── TooManyCommands      the run's inbox is full
│   ├── TooLarge             the request is too large
│   ├── Draining             the service is about to stop; try again
│   ├── StoreUnavailable     the store does not answer or refuses to write
│   ├── Unauthenticated      credentials are missing or wrong
│   ├── PermissionDenied     the credentials do not allow this
│   └── InternalError        a defect of the service; its log has the rest
├── ConnectionLost           the service cannot be reached, or broke its protocol;
│                            carries run id and cursor, from which to go on
├── RunError                 a run ended without a result
│   ├── RunFailed            it ended with an `error` event; also a RuntimeError
│   ├── RunCancelled         it was cancelled
│   └── RunTimeout           it took longer than it was given
├── WorkflowTimeoutError     the name that the original SDK has for RunTimeout; its base
└── StepExecutionError       a step of a workflow failed; nothing raises it before workflows
                             are built

A CallError is the same class on both sides of the wire: the service raises it, its
error table turns it into a status, and the client builds it again from that.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, ClassVar

if TYPE_CHECKING:
    from polos_client.result import Usage


class PolosError(Exception):
    """Base of every error of this package."""


class DefinitionError(PolosError):
    """An agent, a tool or a script is defined wrongly, or asks for what is not built yet."""


class CallError(PolosError):
    """The service refused a call; nothing was started or changed by it.

    Attributes:
        reason: the `polos.v1.ErrorReason` without its prefix.
        metadata: what the reason's comment in `error.proto` lists, as strings.
        retry_after: seconds after which the same call may succeed; None if waiting
            does not help.

    """

    reason: ClassVar[str] = "UNSPECIFIED"

    def __init__(self, message: str, *, retry_after: float | None = None, **metadata: str) -> None:
        super().__init__(message)
        self.retry_after = retry_after
        self.metadata = metadata


class AgentNotFound(CallError):
    """No agent of that id is loaded."""

    reason = "AGENT_NOT_FOUND"


class RunNotFound(CallError):
    """No run of that id exists."""

    reason = "RUN_NOT_FOUND"


class RunExpired(CallError):
    """The run existed and was removed by retention."""

    reason = "RUN_EXPIRED"


class InvalidRequest(CallError):
    """One or more fields of a request are wrong.

    Attributes:
        violations: what is wrong, by the field's path.

    """

    reason = "INVALID_REQUEST"

    def __init__(self, violations: Mapping[str, str]) -> None:
        super().__init__("; ".join(f"{field} {what}" for field, what in violations.items()))
        self.violations = dict(violations)


class RequestIdReused(CallError):
    """The request id already started a run with another payload."""

    reason = "REQUEST_ID_REUSED"


class RunNotFinished(CallError):
    """Only a finished run can be deleted."""

    reason = "RUN_NOT_FINISHED"


class CursorAhead(CallError):
    """The cursor is past the newest event of the log."""

    reason = "CURSOR_AHEAD"


class TooManyRuns(CallError):
    """Too many runs wait already."""

    reason = "TOO_MANY_RUNS"


class TooManyCalls(CallError):
    """Too many calls or streams are open, in the service or on the connection."""

    reason = "TOO_MANY_CALLS"


class TooManyCommands(CallError):
    """The run's inbox is full."""

    reason = "TOO_MANY_COMMANDS"


class TooLarge(CallError):
    """The request is larger than the service takes."""

    reason = "TOO_LARGE"


class Draining(CallError):
    """The service is about to stop."""

    reason = "DRAINING"


class StoreUnavailable(CallError):
    """The store does not answer, or refuses to write."""

    reason = "STORE_UNAVAILABLE"


class Unauthenticated(CallError):
    """Credentials are missing or wrong."""

    reason = "UNAUTHENTICATED"


class PermissionDenied(CallError):
    """The credentials do not allow this."""

    reason = "PERMISSION_DENIED"


class InternalError(CallError):
    """A defect of the service; `metadata["error_id"]` finds the rest in its own log."""

    reason = "INTERNAL"


CALL_ERRORS: Mapping[str, type[CallError]] = {cls.reason: cls for cls in CallError.__subclasses__()}
"""Every CallError by its reason."""


class ConnectionLost(PolosError):
    """The service could not be reached within the bound, or broke its protocol.

    The run, if it was started, goes on. `events.stream_workflow(client,
    workflow_run_id=error.run_id, last_sequence_id=error.cursor)` goes on from there.

    Attributes:
        run_id: the run that was read; None if no answer ever named it.
        cursor: sequence of the last event that was seen; 0 if none was.

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
        retryable: True where a new run with the same input may succeed.
        text: what the agent had said until then.
        usage: the tokens of the model calls that finished.
        error_id: where reason is "internal", finds the rest in the service's own log.

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
    ) -> None:
        PolosError.__init__(self, message)  # the next class may be one that takes no message
        self.run_id = run_id
        self.reason = reason
        self.retryable = retryable
        self.text = text
        self.usage = usage
        self.error_id = error_id


class RunFailed(RunError, RuntimeError):
    """The run ended with an `error` event."""


class RunCancelled(RunError):
    """The run was cancelled."""


class WorkflowTimeoutError(PolosError):
    """A run took longer than it was given.

    Attributes:
        execution_id: the run.
        timeout_seconds: what it was given; None where only the service knows it.

    """

    def __init__(self, execution_id: str, timeout_seconds: float | None = None) -> None:
        given = "" if timeout_seconds is None else f" than {timeout_seconds:g} s"
        super().__init__(f"run {execution_id} took longer{given or ' than it was given'}")
        self.execution_id = execution_id
        self.timeout_seconds = timeout_seconds


class RunTimeout(RunError, WorkflowTimeoutError):
    """The run took longer than it was given, and was ended.

    Attributes:
        execution_id: the same as `run_id`.
        timeout_seconds: what the caller of `run` gave; None where the run's own deadline ended it.

    """

    def __init__(
        self, message: str, *, run_id: str, timeout_seconds: float | None = None, **attributes: Any
    ) -> None:
        super().__init__(message, run_id=run_id, **attributes)
        self.execution_id = run_id
        self.timeout_seconds = timeout_seconds


class StepExecutionError(PolosError):
    """A step of a workflow failed. Nothing raises it in this version.

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
