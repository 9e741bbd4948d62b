"""`@workflow`: a function whose steps are durable, and how it is run."""

from __future__ import annotations

import hashlib
import inspect
import re
import sys
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any, NoReturn, overload

from pydantic import TypeAdapter

from polos_client.define.context import WorkflowContext
from polos_client.define.registry import DEFINED
from polos_client.define.signature import label, parameters
from polos_client.define.state import WorkflowState
from polos_client.errors import DefinitionError
from polos_client.unbuilt import missing, refuse

if TYPE_CHECKING:
    from polos_client.calls.client import PolosClient
    from polos_client.calls.handle import ExecutionHandle

_ID = re.compile(r"[A-Za-z0-9_.-]{1,128}")
_BUILT = ("id", "description", "state_schema", "version")
_VERSION_LIMIT = 64
_MAX_PARAMETERS = 2


class Workflow:
    """A function whose steps are durable, made by `@workflow`.

    The service that loads it runs it; a caller needs only a definition of the same id.

    Attributes:
        id: unique in a service.
        description: what it does; empty if nothing was said.
        fn: the plain function.
        is_async: True if `fn` is an `async def`.
        state_schema: the class of `ctx.state`; None if there is none.
        takes_payload: True if `fn` has a second parameter.
        version: what tells this code from another: given, or a hash of the source.

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
        self._payload = _payload_type(fn, names)
        self.takes_payload = self._payload is not None
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
        if self._payload is None:
            return None
        if payload_json is None:
            raise ValueError(f"the workflow {self.id} needs a payload")
        return self._payload.validate_json(payload_json)

    def invoke_fn(self, ctx: WorkflowContext, payload: Any) -> Any:
        """Call the function; an async one gives an awaitable."""
        return self.fn(ctx, payload) if self.takes_payload else self.fn(ctx)

    async def run(  # noqa: PLR0917 - the order of the original SDK
        self,
        client: PolosClient,
        payload: Any = None,
        queue: Any = None,
        concurrency_key: str | None = None,
        session_id: str | None = None,
        user_id: str | None = None,
        timeout: float | None = 600.0,
        initial_state: Any = None,
        *,
        request_id: str | None = None,
    ) -> Any:
        """Run to the end and return what the function returned."""
        raise NotImplementedError

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
        request_id: str | None = None,
    ) -> ExecutionHandle:
        """Start a run and return its handle at once."""
        from polos_client.calls import running  # noqa: PLC0415 - grpc loads only where something runs
        from polos_client.calls.start import Start  # noqa: PLC0415

        refuse("workflow.invoke", {"queue": queue, "concurrency_key": concurrency_key})
        start = Start(
            workflow_id=self.id,
            payload=payload,
            initial_state=initial_state,
            session_id=session_id,
            user_id=user_id,
            run_timeout_seconds=run_timeout_seconds,
            request_id=request_id,
        )
        running.prepare(client, self)
        return await running.invoke(client, start, streaming=False)


@overload
def workflow(fn: Callable[..., Any], /) -> Workflow: ...


@overload
def workflow(
    *,
    id: str | None = None,
    description: str | None = None,
    state_schema: type[WorkflowState] | None = None,
    version: str | None = None,
    **unbuilt: Any,
) -> Callable[[Callable[..., Any]], Workflow]: ...


def workflow(
    fn: Callable[..., Any] | None = None, /, **options: Any
) -> Workflow | Callable[[Callable[..., Any]], Workflow]:
    """Make a workflow of a function: `@workflow`, or `@workflow(id=..., ...)`.

    The function takes a `WorkflowContext`, and may take a payload: a dict, a pydantic model, or a
    union of these. `async def` runs in the service's event loop, `def` in a thread.

    Args:
        fn: the function, where the decorator stands bare.
        id: 1 to 128 of letters, digits, `_`, `.` and `-`; default: the function's name.
        description: what it does; default: the docstring.
        state_schema: a subclass of `WorkflowState`, of which `ctx.state` is made.
        version: what tells this code from another, at most 64 characters; default: a hash of the
            function's source.
        options: all of these but `fn`; any other is refused.

    Raises:
        DefinitionError: the workflow cannot be made, or asks for what is not built yet.

    """
    refuse("@workflow", {name: value for name, value in options.items() if name not in _BUILT})
    built = {name: value for name, value in options.items() if name in _BUILT}
    if fn is not None:
        return Workflow(fn, sys._getframe(1).f_locals)  # noqa: SLF001 - see signature.parameters

    def decorate(fn: Callable[..., Any]) -> Workflow:
        names = sys._getframe(1).f_locals  # noqa: SLF001
        return Workflow(fn, names, **built)

    return decorate


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


def _payload_type(fn: Callable[..., Any], names: Mapping[str, Any]) -> TypeAdapter[Any] | None:
    """Return what validates the payload; None if the function takes none."""
    if inspect.isasyncgenfunction(fn) or inspect.isgeneratorfunction(fn):
        raise DefinitionError(f"{label(fn)}: a workflow returns one value; it cannot yield")
    found = parameters(fn, names)
    if not 1 <= len(found) <= _MAX_PARAMETERS:
        raise DefinitionError(
            f"{label(fn)}: a workflow takes a context and at most one payload, "
            f"and this one has {len(found)} parameters"
        )
    if len(found) == 1:
        return None
    payload = found[1]
    if payload.annotation is payload.empty:
        raise DefinitionError(
            f"{label(fn)}: the payload {payload.name!r} needs a type: dict, or a pydantic model"
        )
    try:
        return TypeAdapter(payload.annotation)
    except Exception as error:
        told = inspect.formatannotation(payload.annotation)
        raise DefinitionError(f"{label(fn)}: {told} cannot be read from JSON") from error
