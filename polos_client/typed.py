"""Results as the types that the code names. Nothing is imported because data names it."""

from __future__ import annotations

import json
import re
import typing
import weakref
from collections.abc import Callable, Iterator, Sequence
from typing import Any

from pydantic import BaseModel, PydanticUserError, TypeAdapter, ValidationError

from polos_client.errors import ResultMismatch

_classes: weakref.WeakValueDictionary[str, type[BaseModel]] = weakref.WeakValueDictionary()

_TOKEN = re.compile(r'"(?:[^"\\]|\\.)*"|-?\d+(?:\.\d+)?(?:[eE][+-]?\d+)?')
"""A string of JSON text, or a number."""


def typed(text: str, schema: str = "", returned: Any = None) -> Any:
    """Return the value of JSON text.

    Args:
        text: the JSON text.
        schema: name of the model that it was, as `module.Class`; empty if it was none.
        returned: the type that it should have; None if nothing is known of it.

    Returns:
        The value as the class that `schema` names, if this process has one of that name (see
        `instance_of` for several); else as `returned`, if it fits it exactly; else JSON values.
        Nothing is imported.

    Raises:
        ResultMismatch: the class of that name is another one here.

    """
    found = _instance(text, schema, returned, lax) if schema else None
    if found is not None:
        return found
    if returned is not None:
        try:
            return TypeAdapter(returned).validate_json(text, strict=True)
        except (ValidationError, PydanticUserError, TypeError, NameError):
            pass  # the annotation is wrong, or of another version of the code
    return json.loads(text)


def answered(text: str, schema: str = "", returned: Any = None) -> Any:
    """Return what the JSON text of an agent's answer stands for.

    Args:
        text: the JSON text.
        schema: as for `typed`.
        returned: the agent's output_schema; None if nothing is known of it.

    Returns:
        The value as the class that `schema` names; if this process has none of that name, as
        `returned`: a program may have the class in another module. With neither, JSON values.

    Raises:
        ResultMismatch: this process has no such class, or it is another one here.

    """
    found = _instance(text, schema, returned, strictly) if schema else None
    if found is not None:
        return found
    if returned is None and schema:
        raise _mismatch(text, schema, "it has none")
    if returned is None:
        return json.loads(text)
    try:
        return strictly(returned, text)
    except Exception as error:  # validators are any code
        raise _mismatch(text, schema or repr(returned), _how(error)) from error


def strictly(wanted: Any, text: str) -> Any:
    """Return what JSON text stands for as `exact` does, given the type."""
    return exact(TypeAdapter(wanted), text)


def lax(wanted: type[BaseModel], text: str) -> BaseModel:
    """Return what JSON text stands for as pydantic reads it by default."""
    return wanted.model_validate_json(text)


def exact(adapter: TypeAdapter[Any], text: str) -> Any:
    """Return what JSON text stands for, taken strictly, with decimals as they are written.

    Pydantic reads a number of JSON text as a float first, even where a Decimal is wanted.

    Raises:
        ValidationError: the text does not fit the type.

    """
    value = adapter.validate_json(text, strict=True)
    quoted = _TOKEN.sub(_quoted, text) if "." in text else text
    if quoted == text or "'type': 'decimal'" not in repr(adapter.core_schema):
        return value
    try:
        found = adapter.validate_json(quoted)
    except ValidationError:
        return value
    # A text may be wanted in the place of a number as well: the same value is then another one.
    return found if _alike(_plain(adapter, value), _plain(adapter, found)) else value


def _plain(adapter: TypeAdapter[Any], value: Any) -> Any:
    return adapter.dump_python(value, warnings=False)


def _alike(one: Any, other: Any) -> bool:
    """Return whether two values are of the same types all through."""
    if type(one) is not type(other):
        return False
    if isinstance(one, dict):
        return all(_alike(one[key], other.get(key)) for key in one)
    return not isinstance(one, list | tuple) or all(map(_alike, one, other))


def _quoted(token: re.Match[str]) -> str:
    """Return a number as a string if a float would change it; any other token as it is."""
    text = token[0]
    if text[0] == '"' or "." not in text or repr(float(text)) == text:
        return text
    return f'"{text}"'


def _mismatch(text: str, schema: str, how: str) -> ResultMismatch:
    return ResultMismatch(
        f"the result does not fit {schema} as this process has it: {how}; "
        f"the result is {text:.1000}",
        result_json=text,
        result_schema=schema,
    )


def schema_of(value: Any) -> str:
    """Return the name of the model that a value is; empty if it is none."""
    return name_of(type(value)) if isinstance(value, BaseModel) else ""


def class_named(name: str) -> type[BaseModel] | None:
    """Return the model of this name that was defined last in this process; None if there is none.

    Args:
        name: `module.Class`, as `name_of` makes it.

    """
    known = _classes.get(name)
    if known is not None:
        return known
    found = next((one for one in _models(BaseModel) if name_of(one) == name), None)
    if found is not None and "<locals>" not in name:  # a local class is another one each time
        _classes[name] = found
    return found


def name_of(cls: type) -> str:
    """Return the name of a class as `module.Class`."""
    return f"{cls.__module__}.{cls.__qualname__}"


def instance_of(
    name: str,
    text: str,
    read: Callable[[type[BaseModel], str], Any] = lax,
    known: Sequence[type[BaseModel]] = (),
) -> Any:
    """Return the model of this name that JSON text stands for; None if this process has none.

    Several classes may have one name. The first that takes every member of the text is chosen, or
    else the first that takes the text.

    Args:
        name: `module.Class`, as `name_of` makes it.
        text: the JSON text.
        read: reads JSON text as a class.
        known: the classes to choose from; if there are none, all of this name in this process, that
            which was defined last first.

    Raises:
        Exception: no class takes the text; what `read` raised for the first one.

    """
    taken: list[Any] = []
    refused: list[Exception] = []
    for cls in known or _named(name):
        try:
            value = read(cls, text)
        except Exception as error:  # noqa: BLE001 - validators are any code
            refused.append(error)
            continue
        if _keeps(value, json.loads(text)):
            return value
        taken.append(value)
    if refused and not taken:
        if len(refused) > 1:
            refused[0].add_note(f"this process has {len(refused)} classes of that name")
        raise refused[0]
    return taken[0] if taken else None


def _instance(
    text: str, schema: str, returned: Any, read: Callable[[type[BaseModel], str], Any]
) -> Any:
    """Return the model of this name that JSON text stands for; None if this process has none.

    If what is to be returned has models of this name, it is one of these.

    Raises:
        ResultMismatch: no class of that name takes the text.

    """
    known = [one for one in _parts(returned) if name_of(one) == schema]
    try:
        return instance_of(schema, text, read, known)
    except Exception as error:
        raise _mismatch(text, schema, _how(error)) from error


def _how(error: Exception) -> str:
    """Return how a text does not fit a class, without what the text says."""
    told = f"{error.error_count()} errors" if isinstance(error, ValidationError) else repr(error)
    return "; ".join([told, *getattr(error, "__notes__", ())])


def _parts(returned: Any) -> Iterator[type[BaseModel]]:
    """Yield the models that a type names: itself, or the members of a union."""
    if isinstance(returned, type) and issubclass(returned, BaseModel):
        yield returned
    for one in typing.get_args(returned):
        yield from _parts(one)


def _named(name: str) -> Iterator[type[BaseModel]]:
    """Yield the models of this name in this process, that which was defined last first."""
    first = class_named(name)
    if first is not None:
        yield first
        yield from (one for one in _models(BaseModel) if one is not first and name_of(one) == name)


def _keeps(value: Any, plain: Any) -> bool:
    """Return whether a model has every member that the JSON values have which it was read from."""
    try:
        return _holds(value.model_dump(mode="json", by_alias=True, warnings=False), plain)
    except Exception:  # noqa: BLE001 - serializers are any code
        return False


def _holds(dumped: Any, plain: Any) -> bool:
    if isinstance(plain, dict) and isinstance(dumped, dict):
        return all(key in dumped and _holds(dumped[key], one) for key, one in plain.items())
    if isinstance(plain, list) and isinstance(dumped, list):
        return len(plain) == len(dumped) and all(map(_holds, dumped, plain))
    return True


def _models(cls: type[BaseModel]) -> Iterator[type[BaseModel]]:
    for one in reversed(cls.__subclasses__()):
        yield from _models(one)
        yield one
