"""The result of a workflow as the type that its code names."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

from pydantic import BaseModel, PydanticUserError, TypeAdapter, ValidationError

from polos_client.errors import DefinitionError


def typed(text: str, schema: str = "", returned: Any = None) -> Any:
    """Return the value of JSON text.

    Args:
        text: the JSON text.
        schema: name of the model that it was, as `module.Class`; empty if it was none.
        returned: the type that it should have; None if nothing is known of it.

    Returns:
        The value as the class that `schema` names, if this process has one of that name; else as
        `returned`, if it fits it exactly; else JSON values. Nothing is imported.

    Raises:
        DefinitionError: the class of that name is another one here. The message has the JSON.

    """
    cls = _class_of(schema, returned) if schema else None
    if cls is not None:
        try:
            return cls.model_validate_json(text)
        except ValidationError as error:
            raise DefinitionError(
                f"the result does not fit {schema} as this process has it: "
                f"{error.error_count()} errors; the result is {text:.1000}"
            ) from error
    if returned is not None:
        try:
            return TypeAdapter(returned).validate_json(text, strict=True)
        except (ValidationError, PydanticUserError, TypeError, NameError):
            pass  # the annotation is wrong, or of another version of the code
    return json.loads(text)


def schema_of(value: Any) -> str:
    """Return the name of the model that a value is; empty if it is none."""
    return name_of(type(value)) if isinstance(value, BaseModel) else ""


def class_named(name: str) -> type[BaseModel] | None:
    """Return the model of this name that was defined last in this process; None if there is none.

    Args:
        name: `module.Class`, as `name_of` makes it.

    """
    return next((one for one in _models(BaseModel) if name_of(one) == name), None)


def name_of(cls: type) -> str:
    """Return the name of a class as `module.Class`."""
    return f"{cls.__module__}.{cls.__qualname__}"


def _class_of(schema: str, returned: Any) -> type[BaseModel] | None:
    """Return the model of this name: what is to be returned, or else what was defined last."""
    if not (isinstance(returned, type) and issubclass(returned, BaseModel)):
        return class_named(schema)
    return returned if name_of(returned) == schema else class_named(schema)


def _models(cls: type[BaseModel]) -> Iterator[type[BaseModel]]:
    for one in reversed(cls.__subclasses__()):
        yield from _models(one)
        yield one
