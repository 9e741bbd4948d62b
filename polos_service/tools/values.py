"""Values of a workflow's code as JSON, and back.

What a step returns at first is what it returns from the log later: it is decoded from what is
stored in both cases.
"""

from __future__ import annotations

import json
import typing
from collections.abc import Callable, Iterator, Mapping
from typing import Any

from pydantic import BaseModel, TypeAdapter, ValidationError
from pydantic_core import to_jsonable_python

from polos.v1.error_pb2 import FailureReason
from polos_service.errors import StepError

TOP = "$"
"""The place of a value itself among the names of classes."""

Models = Mapping[str, str]
"""Names of the classes of models, as `module.Class`, by place: TOP, or an index or key."""


def encode(value: Any) -> tuple[str, Models]:
    """Return a value as JSON text, and the classes of the models in it.

    Raises:
        StepError: it cannot be stored; trying again does not help.

    """
    try:
        text = json.dumps(
            to_jsonable_python(value, by_alias=True),
            ensure_ascii=False,
            allow_nan=False,
            separators=(",", ":"),
        )
    except (TypeError, ValueError, RecursionError) as error:
        raise StepError(
            FailureReason.FAILURE_REASON_STEP_BAD_RESULT,
            f"A value of type {type(value).__name__} cannot be stored as JSON: {error}",
        ) from error
    return text, {place: name_of(type(model)) for place, model in models_in(value)}


def decode(text: str, models: Models, returned: Any = None) -> Any:
    """Return the value of JSON text.

    Args:
        text: the JSON text.
        models: what `encode` said of it.
        returned: the type that the function says it returns; None if it says nothing.

    Raises:
        StepError: the class of a model in it is not loaded; the message has the JSON.

    """
    if returned is not None:
        try:
            return TypeAdapter(returned).validate_json(text)
        except (ValidationError, TypeError):
            pass  # the annotation is not what it returns
    value = json.loads(text)
    for place, name in models.items():
        if place == TOP:
            return built(name, value)
        key: Any = int(place) if isinstance(value, list) else place
        value[key] = built(name, value[key])
    return value


def models_in(value: Any) -> Iterator[tuple[str, BaseModel]]:
    """Yield the models that a value is, or has as its members, with their places."""
    if isinstance(value, BaseModel):
        yield TOP, value
    elif isinstance(value, list | tuple):
        yield from ((str(at), one) for at, one in enumerate(value) if isinstance(one, BaseModel))
    elif isinstance(value, Mapping):
        yield from ((str(at), one) for at, one in value.items() if isinstance(one, BaseModel))


def built(name: str, value: Any) -> BaseModel:
    """Return a model of a loaded class; nothing is imported because a name says so.

    Raises:
        StepError: no class of this name is loaded, or the value does not fit it.

    """
    cls = next((one for one in subclasses(BaseModel) if name_of(one) == name), None)
    if cls is not None:
        try:
            return cls.model_validate(value)
        except ValidationError:
            pass
    why = "is not loaded" if cls is None else "has changed"
    raise StepError(
        FailureReason.FAILURE_REASON_CODE_MISSING,
        f"The class {name} {why}. The value is {json.dumps(value)[:1000]}",
    )


def subclasses(cls: type[BaseModel]) -> Iterator[type[BaseModel]]:
    """Yield every class that is derived from one, the latest first."""
    for one in reversed(cls.__subclasses__()):
        yield from subclasses(one)
        yield one


def name_of(cls: type) -> str:
    """Return the name of a class as `module.Class`."""
    return f"{cls.__module__}.{cls.__qualname__}"


def returned_by(func: Callable[..., Any]) -> Any:
    """Return the type that a function says it returns; None if it says nothing of use."""
    try:
        found = typing.get_type_hints(func).get("return")
    except Exception:  # noqa: BLE001 - whatever it says, it cannot be resolved
        return None
    return None if found in (Any, object, type(None)) else found
