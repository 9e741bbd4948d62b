"""What the function of a workflow takes: a context, and perhaps a payload."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping
from typing import Any

from pydantic import TypeAdapter

from polos_client.define.context import WorkflowContext
from polos_client.define.signature import label, parameters
from polos_client.errors import DefinitionError
from polos_client.unbuilt import placeholder

_MAX_PARAMETERS = 2


def context_and_payload(
    fn: Callable[..., Any], names: Mapping[str, Any]
) -> tuple[inspect.Parameter, inspect.Parameter | None]:
    """Return the parameters for the context and for the payload; None if there is no payload.

    Args:
        fn: the function of a workflow.
        names: as in `signature.parameters`.

    Raises:
        DefinitionError: it is not such a function.

    """
    if inspect.isasyncgenfunction(fn) or inspect.isgeneratorfunction(fn):
        raise DefinitionError(f"{label(fn)}: a workflow returns one value; it cannot yield")
    found = parameters(fn, names)
    if not 1 <= len(found) <= _MAX_PARAMETERS:
        raise DefinitionError(
            f"{label(fn)}: a workflow takes a context and at most one payload, "
            f"and this one has {len(found)} parameters"
        )
    context, *rest = found
    allowed = (inspect.Parameter.empty, Any, object, WorkflowContext, placeholder("AgentContext"))
    if context.annotation not in allowed:
        told = inspect.formatannotation(context.annotation)
        raise DefinitionError(
            f"{label(fn)}: the first parameter, {context.name!r}, is the WorkflowContext and "
            f"cannot be annotated as {told}; the payload comes second"
        )
    return context, rest[0] if rest else None


def payload_type(
    fn: Callable[..., Any], payload: inspect.Parameter | None
) -> TypeAdapter[Any] | None:
    """Return what validates the payload; None if the function takes none.

    Raises:
        DefinitionError: its type is missing, or cannot be read from JSON.

    """
    if payload is None:
        return None
    if payload.annotation is payload.empty:
        raise DefinitionError(
            f"{label(fn)}: the payload {payload.name!r} needs a type: dict, or a pydantic model"
        )
    if payload.annotation is WorkflowContext:
        raise DefinitionError(
            f"{label(fn)}: the WorkflowContext is the first parameter, and the payload "
            f"{payload.name!r} cannot be one"
        )
    try:
        return TypeAdapter(payload.annotation)
    except Exception as error:
        told = inspect.formatannotation(payload.annotation)
        raise DefinitionError(
            f"{label(fn)}: the payload {payload.name!r} cannot be a {told}, which pydantic cannot "
            "read from JSON; use dict, or a pydantic model"
        ) from error
