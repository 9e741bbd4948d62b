"""Values of a workflow's code as JSON, and back.

What a step returns at first is what it returns from the log later: it is decoded from what is
stored in both cases.
"""

from __future__ import annotations

import json
import typing
from collections import deque
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

from pydantic import BaseModel, TypeAdapter
from pydantic_core import to_jsonable_python

from polos.v1.error_pb2 import FailureReason
from polos_client.typed import instance_of, name_of
from polos_client.wire import NESTING_LIMIT
from polos_service.errors import StepError
from polos_service.tools.masked import refuse_masked

SHOWN = 1000
"""Characters of a value that an error shows."""

ROOT = ""
"""The place of the value itself."""

Models = Mapping[str, str]
"""Names of the classes of models, as `module.Class`, by place: a JSON pointer (RFC 6901)."""


def encode(value: Any) -> tuple[str, Models]:
    """Return a value as JSON text, and the classes of the models in it.

    Raises:
        StepError: it cannot be stored; trying again does not help.

    """
    models: dict[str, str] = {}
    try:
        plain = _plain(value, ROOT, models, NESTING_LIMIT)
        text = json.dumps(plain, ensure_ascii=False, allow_nan=False, separators=(",", ":"))
        text.encode()
    except Exception as error:
        kind = type(value).__name__
        raise bad(f"A value of type {kind} cannot be stored as JSON: {error}") from error
    return text, models


def decode(text: str, models: Models, returned: Any = None) -> Any:
    """Return the value of JSON text.

    Args:
        text: the JSON text.
        models: what `encode` said of it.
        returned: the type that the function says it returns; None if it says nothing.

    Raises:
        StepError: the class of a model in it is not loaded; the message has the JSON.

    """
    read = None if returned is None else _read(text, returned)
    if read is not None and (not models or dict(_models(read.value, ROOT)) == models):
        return read.value
    value = json.loads(text)
    for pointer, name in models.items():
        value = _replaced(value, pointer.split("/")[1:], name)
    return value if returned is None or not models else _arranged(value, text, returned)


def bad(message: str) -> StepError:
    """Return the error of a value that cannot be stored."""
    return StepError(FailureReason.FAILURE_REASON_STEP_BAD_RESULT, message)


def returned_by(func: Callable[..., Any]) -> Any:
    """Return the type that a function says it returns; None if it says nothing of use."""
    if not getattr(func, "__annotations__", None):
        return None
    try:
        found = typing.get_type_hints(func).get("return")
    except Exception:  # noqa: BLE001 - whatever it says, it cannot be resolved
        return None
    return None if found in (Any, object, type(None)) else found


@dataclass(frozen=True, slots=True)
class _Read:
    """A value that was read as the type that the function says it returns."""

    value: Any


def _read(text: str, returned: Any) -> _Read | None:
    """Read JSON text as a type; None if it does not fit, or the type is not one for JSON."""
    try:
        return _Read(_adapter(returned).validate_json(text, strict=True))
    except Exception:  # noqa: BLE001 - the annotation is not what the function returns
        return None


def _arranged(value: Any, text: str, returned: Any) -> Any:
    """Return a value with models as the type says, a tuple for example, if it is the same then."""
    try:
        found = _adapter(returned).validate_python(value)
        return found if encode(found)[0] == text else value
    except Exception:  # noqa: BLE001 - as above
        return value


def _plain(value: Any, place: str, models: dict[str, str], depth: int) -> Any:
    """Return a value as JSON values, and note the models in it by their places."""
    if value is None or type(value) in (bool, int, float, str):
        return value
    if not depth:
        raise ValueError(f"it is nested more than {NESTING_LIMIT} levels deep")
    if isinstance(value, BaseModel):
        models[place] = name_of(type(value))
        return _written(value)
    if isinstance(value, Mapping):
        members = {_name(key): one for key, one in value.items()}
        if len(members) < len(value):
            raise ValueError("two of its keys are the same in JSON")
        return {
            name: _plain(one, f"{place}/{_escaped(name)}", models, depth - 1)
            for name, one in members.items()
        }
    if isinstance(value, list | tuple | set | frozenset | deque):
        return [_plain(one, f"{place}/{at}", models, depth - 1) for at, one in enumerate(value)]
    if isinstance(value, Iterator):
        raise TypeError("it yields its values; return a list")
    return _written(value)


def _written(value: Any) -> Any:
    """Return what pydantic makes of a value, as JSON values."""
    plain = to_jsonable_python(value, by_alias=True)
    refuse_masked(value, plain)
    return plain


def _name(key: Any) -> str:
    """Return the key of a mapping as a name of JSON."""
    if type(key) is str:
        return key
    (name,) = to_jsonable_python({key: None})
    return str(name)


def _models(value: Any, place: str) -> Iterator[tuple[str, str]]:
    """Yield the places and class names of the models in a decoded value."""
    if isinstance(value, BaseModel):
        yield place, name_of(type(value))
    elif isinstance(value, Mapping):
        for key, one in value.items():
            yield from _models(one, f"{place}/{_escaped(_name(key))}")
    elif isinstance(value, list | tuple | set | frozenset | deque):
        for at, one in enumerate(value):
            yield from _models(one, f"{place}/{at}")


def _escaped(name: str) -> str:
    return name.replace("~", "~0").replace("/", "~1")


def _replaced(value: Any, path: list[str], name: str) -> Any:
    """Return a value in which the JSON object at a path is a model."""
    if not path:
        return _built(name, value)
    step = path[0].replace("~1", "/").replace("~0", "~")
    at: Any = int(step) if isinstance(value, list) else step
    value[at] = _replaced(value[at], path[1:], name)
    return value


def _built(name: str, value: Any) -> Any:
    """Return a model of a loaded class; nothing is imported because a name says so.

    Raises:
        StepError: no class of this name is loaded, or the value does not fit it.

    """
    try:
        found = instance_of(name, json.dumps(value))
        if found is not None:
            return found
        why = "is not loaded"
    except Exception:  # noqa: BLE001 - validators are any code
        why = "does not take the value that it gave"
    raise StepError(
        FailureReason.FAILURE_REASON_CODE_MISSING,
        f"The class {name} {why}: {json.dumps(value, ensure_ascii=False)[:SHOWN]}",
    )


@lru_cache(maxsize=512)
def _adapter(returned: Any) -> TypeAdapter[Any]:
    return TypeAdapter(returned)
