"""`@workflow`: a function whose steps are durable, and how it is run."""

from __future__ import annotations

import hashlib
import inspect
import re
import sys
from collections.abc import Callable, Mapping
from functools import cached_property
from typing import TYPE_CHECKING, Any, NoReturn, overload

from pydantic import PydanticUserError, ValidationError

from polos_client.budget import Budget
from polos_client.deadlines import PATIENCE
from polos_client.define.context import WorkflowContext
from polos_client.define.inside import require_outside
from polos_client.define.payload import context_and_payload, payload_type
from polos_client.define.registry import DEFINED
from polos_client.define.signature import returned
from polos_client.define.state import WorkflowState
from polos_client.errors import DefinitionError
from polos_client.unbuilt import missing, refuse

if TYPE_CHECKING:
    from polos_client.calls.client import PolosClient
    from polos_client.calls.handle import ExecutionHandle
    from polos_client.calls.start import Start

_ID = re.compile(r"[A-Za-z0-9_.-]{1,128}")
_VERSION_LIMIT = 64


class Workflow:
    """A function whose steps are durable, made by `@workflow`.

    The service that loads it runs it; a caller needs only a definition with the same id.

    Attributes:
        id: unique within a service.
        description: what it does; empty if none was given.
        fn: the plain function.
        is_async: True if `fn` is an `async def`.
        state_schema: the class of `ctx.state`; None if there is none.
        takes_payload: True if `fn` has a second parameter.
        returns: the return annotation of `fn`; None if it has none.
        version: identifies this version of the code: given, or a hash of the source.

    """

    def __init__(
        self,
        fn: Callable[..., Any],
        names: Mapping[str, Any],
        *,
        id: str | None = None,
        description: str | None = None,
        state_schema: type[WorkflowState] | None = None,
        version: str | None = None,
    ) -> None:
        """Read the function's signature; `names` are the local names where it is defined.

        Raises:
            DefinitionError: the id, the signature or an option cannot be used.

        """
        if not callable(fn):
            raise DefinitionError(f"@workflow goes on a function, not on {fn!r}")
        self.id = _checked_id(getattr(fn, "__name__", "") if id is None else id)
        self.description = (description or inspect.getdoc(fn) or "").strip()
        self.fn = fn
        self.is_async = inspect.iscoroutinefunction(fn)
        self.state_schema = _checked_state(self.id, state_schema)
        self.version = _checked_version(version) or source_hash(fn)
        self._context, self._payload = context_and_payload(fn, names)
        self._payload_type = payload_type(fn, self._payload)
        self.takes_payload = self._payload is not None
        self.returns = returned(fn, names)
        DEFINED[self.id] = self

    if not TYPE_CHECKING:  # checkers refuse these names by themselves

        def __getattr__(self, name: str) -> NoReturn:
            raise missing(self, name)

    def __repr__(self) -> str:
        return f"<Workflow {self.id}>"

    def validate(self, payload_json: str | None) -> Any:
        """Return what the function gets for a payload as JSON text; None: there is none.

        Raises:
            pydantic.ValidationError: it does not fit the parameter's type.
            ValueError: there is none, and the function takes one.

        """
        if self._payload is None or self._payload_type is None:
            return None
        if payload_json is not None:
            return self._payload_type.validate_json(payload_json)
        if self._payload.default is not inspect.Parameter.empty:
            return self._payload.default
        try:
            return self._payload_type.validate_python(None)
        except ValidationError:
            told = inspect.formatannotation(self._payload.annotation)
            raise ValueError(f"the workflow {self.id} needs a payload: {told}") from None

    @cached_property
    def payload_schema(self) -> dict[str, Any] | None:
        """The JSON Schema of the payload; empty if there is none for its type.

        None: the function takes no payload.
        """
        if self._payload_type is None:
            return None
        try:
            return self._payload_type.json_schema()
        except PydanticUserError:  # what reads JSON may be code that cannot be described
            return {}

    def invoke_fn(self, ctx: WorkflowContext, payload: Any) -> Any:
        """Call the function; an async one gives an awaitable."""
        given = {self._context.name: ctx}
        if self._payload is not None:
            given[self._payload.name] = payload
        return self.fn(**given)

    async def run(  # noqa: PLR0917 - the order of the original SDK
        self,
        client: PolosClient,
        payload: Any = None,
        queue: Any = None,
        concurrency_key: str | None = None,
        session_id: str | None = None,
        user_id: str | None = None,
        timeout: float | None = PATIENCE,
        initial_state: Any = None,
        *,
        budget: Budget | None = None,
        request_id: str | None = None,
    ) -> Any:
        """Run to the end and return what the function returned.

        Args:
            client: a client of the service.
            payload: the payload: JSON values or a model, at most 256 KiB as JSON.
            queue: not built yet.
            concurrency_key: not built yet.
            session_id: groups runs for listing; at most 256 characters.
            user_id: the user that the run is for, for listing; at most 256 characters.
            timeout: seconds after which the run is cancelled, above 0; None: never. If no timeout
                is given, the call raises after 600 s, and the run continues.
            initial_state: the initial value of `ctx.state`: a dict of JSON values, or a model; at
                most 256 KiB as JSON.
            budget: what the model calls of the run's children may use together; None: no limit.
            request_id: makes the start safe to repeat: the same id with the same arguments is the
                same run; 1 to 128 characters. None: a new one.

        Returns:
            The model that the function returned, if this process has a class with its name;
            otherwise the type of the function's return annotation, if the JSON fits it; otherwise
            JSON values.

        Raises:
            RunFailed: the run failed.
            RunCancelled: the run was cancelled.
            RunTimeout: the run took longer than `timeout`, and was cancelled.
            WorkflowTimeoutError: no timeout was given, and the run has not ended within 600 s.
            DefinitionError: `queue` or `concurrency_key` was given, and nothing was started; or the
                result does not fit its class in this process.
            InvalidRequest: an argument is invalid, or the payload does not fit the workflow.
                Nothing was started.
            RequestIdReused: `request_id` started a run with other arguments.
            CallError: the service refused the start.
            ConnectionLost: the service could not be reached.
            RuntimeError: it is called inside a run.

        """
        from polos_client.calls import running  # noqa: PLC0415 - grpc loads only where something runs

        require_outside("workflow.run", "ctx.step.invoke_and_wait")
        refuse("workflow.run", {"queue": queue, "concurrency_key": concurrency_key})
        start = self._start(
            client,
            payload=payload,
            initial_state=initial_state,
            session_id=session_id,
            user_id=user_id,
            budget=budget,
            request_id=request_id,
        )
        return await running.run_workflow(client, start, timeout, self.returns)

    async def invoke(  # noqa: PLR0917 - the order of the original SDK
        self,
        client: PolosClient,
        payload: Any = None,
        queue: Any = None,
        concurrency_key: str | None = None,
        session_id: str | None = None,
        user_id: str | None = None,
        initial_state: Any = None,
        run_timeout_seconds: float | None = None,
        *,
        budget: Budget | None = None,
        request_id: str | None = None,
    ) -> ExecutionHandle:
        """Start a run and return its handle once the run is stored.

        Args:
            client: see `run`.
            payload: see `run`.
            queue: not built yet.
            concurrency_key: not built yet.
            session_id: see `run`.
            user_id: see `run`.
            initial_state: see `run`.
            run_timeout_seconds: how long the run may take, waits included, from 0.001 s; None:
                any time.
            budget: see `run`.
            request_id: see `run`.

        Raises:
            DefinitionError, InvalidRequest, CallError, ConnectionLost, RuntimeError: the run was
                not started; see `run`.

        """
        from polos_client.calls import running  # noqa: PLC0415

        require_outside("workflow.invoke", "ctx.step.invoke")
        refuse("workflow.invoke", {"queue": queue, "concurrency_key": concurrency_key})
        start = self._start(
            client,
            payload=payload,
            initial_state=initial_state,
            session_id=session_id,
            user_id=user_id,
            run_timeout_seconds=run_timeout_seconds,
            budget=budget,
            request_id=request_id,
        )
        return await running.invoke(client, start, streaming=False)

    def _start(self, client: PolosClient, **said: Any) -> Start:
        """Return the start of a run of this workflow, once the client is ready for it."""
        from polos_client.calls import running  # noqa: PLC0415
        from polos_client.calls.start import Start  # noqa: PLC0415

        start = Start(workflow_id=self.id, **said)
        running.prepare(client, self)
        return start


@overload
def workflow(id: Callable[..., Any], /) -> Workflow: ...


@overload
def workflow(
    id: str | None = None,
    description: str | None = None,
    queue: Any = None,
    trigger_on_event: str | None = None,
    batch_size: int = 1,
    batch_timeout_seconds: int | None = None,
    schedule: Any = None,
    on_start: Any = None,
    on_end: Any = None,
    state_schema: type[WorkflowState] | None = None,
    *,
    version: str | None = None,
) -> Callable[[Callable[..., Any]], Workflow]: ...


def workflow(  # noqa: PLR0917 - the order of the original SDK
    id: Any = None,
    description: str | None = None,
    queue: Any = None,
    trigger_on_event: str | None = None,
    batch_size: int = 1,
    batch_timeout_seconds: int | None = None,
    schedule: Any = None,
    on_start: Any = None,
    on_end: Any = None,
    state_schema: type[WorkflowState] | None = None,
    *,
    version: str | None = None,
) -> Workflow | Callable[[Callable[..., Any]], Workflow]:
    """Make a function a workflow: `@workflow`, or `@workflow(id=..., ...)`.

    The function takes a `WorkflowContext`, and may take a payload: a dict, a pydantic model, a
    union of these, or any other type that pydantic can read from JSON. A payload with a default
    may be left out. `async def` runs in the service's event loop, `def` in a thread.

    Args:
        id: 1 to 128 letters, digits, `_`, `.` or `-`; default: the function's name. In a bare
            `@workflow`, the function itself.
        description: what it does; default: the docstring.
        queue: not built yet.
        trigger_on_event: not built yet.
        batch_size: not built yet.
        batch_timeout_seconds: not built yet.
        schedule: not built yet.
        on_start: not built yet.
        on_end: not built yet.
        state_schema: a subclass of `WorkflowState`, the class of `ctx.state`.
        version: identifies this version of the code, at most 64 characters; default: a hash of the
            function's source.

    Raises:
        DefinitionError: the workflow is invalid, or requests a feature that is not built yet.

    """
    refuse(
        "@workflow",
        {
            "queue": queue,
            "trigger_on_event": trigger_on_event,
            "batch_size": batch_size,
            "batch_timeout_seconds": batch_timeout_seconds,
            "schedule": schedule,
            "on_start": on_start,
            "on_end": on_end,
        },
    )
    if callable(id):
        return Workflow(id, sys._getframe(1).f_locals)  # noqa: SLF001 - see signature.parameters

    def decorate(fn: Callable[..., Any]) -> Workflow:
        return Workflow(
            fn,
            sys._getframe(1).f_locals,  # noqa: SLF001
            id=id,
            description=description,
            state_schema=state_schema,
            version=version,
        )

    return decorate


def get_workflow(workflow_id: str) -> Workflow | None:
    """Return the latest workflow with this id in this process; None if there is none."""
    found = DEFINED.get(workflow_id)
    return found if isinstance(found, Workflow) else None


def get_all_workflows() -> dict[str, Workflow]:
    """Return the workflows that this process has defined and still uses, by id."""
    return {key: one for key, one in DEFINED.items() if isinstance(one, Workflow)}


def source_hash(fn: Callable[..., Any]) -> str:
    """Return a hash of a function's source; of its code where there is no source."""
    try:
        source = inspect.getsource(fn).encode()
    except (OSError, TypeError):
        source = getattr(getattr(fn, "__code__", None), "co_code", b"")
    return hashlib.sha256(source).hexdigest()[:16]


def _checked_id(name: Any) -> str:
    if not isinstance(name, str) or not _ID.fullmatch(name):
        raise DefinitionError(
            f"the workflow id {name!r:.80} must be 1 to 128 letters, digits, '_', '.' or '-'; "
            "give one with @workflow(id=...)"
        )
    return name


def _checked_version(version: Any) -> str | None:
    if version is None or (isinstance(version, str) and 0 < len(version) <= _VERSION_LIMIT):
        return version
    raise DefinitionError(
        f"the version {version!r:.80} must be a text of 1 to {_VERSION_LIMIT} characters"
    )


def _checked_state(workflow_id: str, schema: Any) -> type[WorkflowState] | None:
    if schema is None or (isinstance(schema, type) and issubclass(schema, WorkflowState)):
        return schema
    raise DefinitionError(
        f"the workflow {workflow_id!r}: state_schema must be a subclass of WorkflowState, "
        f"not {schema!r:.80}"
    )
