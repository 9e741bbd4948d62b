"""The parameters of a user's function, with their types resolved."""

from __future__ import annotations

import inspect
import typing
from collections.abc import Callable, Mapping
from types import SimpleNamespace
from typing import Any

from pydantic import BaseModel

from polos_client.errors import DefinitionError

_BY_KEYWORD = (inspect.Parameter.POSITIONAL_OR_KEYWORD, inspect.Parameter.KEYWORD_ONLY)


def parameters(fn: Callable[..., Any], names: Mapping[str, Any]) -> list[inspect.Parameter]:
    """Return the parameters of `fn`; their annotations are types, never strings.

    Args:
        fn: the function.
        names: the local names where `fn` is defined, for annotations as strings that
            name a class made there.

    Raises:
        DefinitionError: a parameter cannot be passed by its name, or its annotation
            names what does not exist.

    """
    found = list(inspect.signature(fn).parameters.values())
    for parameter in found:
        if parameter.kind not in _BY_KEYWORD:
            raise DefinitionError(
                f"{label(fn)}: parameter {str(parameter)!r} cannot be passed by name; give each "
                "parameter a name of its own, without *args, **kwargs or /"
            )
    types = _types(fn, found, names)
    return [one.replace(annotation=types.get(one.name, one.annotation)) for one in found]


def returned(fn: Callable[..., Any], names: Mapping[str, Any]) -> Any:
    """Return the type that `fn` says it returns; None if it says nothing that can be resolved.

    Args:
        fn: the function.
        names: as in `parameters`.

    """
    annotation = inspect.signature(fn).return_annotation
    try:
        found = typing.get_type_hints(
            SimpleNamespace(__annotations__={"return": annotation}),
            globalns=getattr(inspect.unwrap(fn), "__globals__", {}),
            localns=dict(names),
            include_extras=True,
        )["return"]
    except (NameError, SyntaxError, TypeError, AttributeError):
        return None  # it exists for type checkers alone
    return None if found in (inspect.Signature.empty, Any, object, type(None)) else found


def _types(
    fn: Callable[..., Any], found: list[inspect.Parameter], names: Mapping[str, Any]
) -> dict[str, Any]:
    """Return the types of those parameters that are annotated, by name.

    Only parameters: a return type that exists for type checkers alone does no harm.
    """
    annotations = {one.name: one.annotation for one in found if one.annotation is not one.empty}
    try:
        return typing.get_type_hints(
            SimpleNamespace(__annotations__=annotations),
            globalns=getattr(inspect.unwrap(fn), "__globals__", {}),
            localns=dict(names),
            include_extras=True,
        )
    except (NameError, SyntaxError, TypeError, AttributeError) as error:
        raise DefinitionError(
            f"{label(fn)}: a parameter's type cannot be resolved: {error}; import it at run "
            "time (not under TYPE_CHECKING), or define it at module level"
        ) from error


def is_model(annotation: Any) -> bool:
    """Return True if the annotation is a pydantic model."""
    return isinstance(annotation, type) and issubclass(annotation, BaseModel)


def label(fn: Callable[..., Any]) -> str:
    """Return the function's name for a message."""
    return str(getattr(fn, "__qualname__", repr(fn)))
