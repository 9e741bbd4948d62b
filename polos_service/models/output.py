"""The form that an answer is to have, as each API is told it."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

Schema = dict[str, Any]

MAX_NAME = 64
"""Characters of a name of a schema that the APIs take."""

_KEPT = frozenset({"$ref", "anyOf", "description", "enum", "items", "properties", "type"})
"""Keywords that every API with strict schemas takes."""

_DROPPED = frozenset({"$defs", "additionalProperties", "const", "discriminator", "oneOf", "title"})
"""Keywords that are expressed otherwise, or say nothing of the values."""

_STRUCTURAL = frozenset(
    {
        *("$anchor", "$dynamicRef", "allOf", "contains", "dependentSchemas", "else", "if", "not"),
        *("patternProperties", "prefixItems", "propertyNames", "then", "unevaluatedProperties"),
    }
)
"""Keywords of which no strict schema can be made without changing what fits it."""


@dataclass(frozen=True, kw_only=True, slots=True)
class OutputFormat:
    """The form that an answer is to have.

    Attributes:
        name: of the schema: 1 to MAX_NAME letters, digits, `_` and `-`.
        schema: JSON Schema of the answer.

    """

    name: str
    schema: Mapping[str, Any]

    @classmethod
    def of(cls, type_name: str, schema: Mapping[str, Any]) -> OutputFormat:
        """Return the form of a type's values; `type_name` is its name in Python."""
        bare = type_name.partition("[")[0].rpartition(".")[2] if "|" not in type_name else ""
        name = re.sub(r"[^A-Za-z0-9_-]+", "_", bare).strip("_")[:MAX_NAME]
        return cls(name=name or "answer", schema=schema)

    @property
    def is_object(self) -> bool:
        """Whether every answer is a JSON object: the only form that APIs take."""
        return _root(self.schema).get("type") == "object"

    def strict(self, *, all_required: bool, recursive: bool) -> Schema | None:
        """Return the schema as an API takes it that enforces it; None if that cannot be.

        Constraints on values are not enforced: the copy tells them in descriptions.

        Args:
            all_required: whether each member must be required.
            recursive: whether a schema may contain itself.

        """
        if not self.is_object or (not recursive and _is_recursive(self.schema)):
            return None
        defs = self.schema.get("$defs", {})
        try:
            copy = _strict(_root(self.schema), all_required=all_required)
            named = {name: _strict(one, all_required=all_required) for name, one in defs.items()}
        except _NotStrictError:
            return None
        return copy | ({"$defs": named} if named else {})

    def lax(self) -> Schema:
        """Return the schema as an API takes it that does not enforce it."""
        return {**_root(self.schema), **_only(self.schema, "$defs")}


def told(schema: Mapping[str, Any]) -> str:
    """Return what a model is told that has to give an answer of this form by itself."""
    return (
        "Give your final answer as JSON that conforms to the JSON Schema below. Write the JSON "
        "alone: no other text, and no code fence.\n\n" + json.dumps(schema, ensure_ascii=False)
    )


class _NotStrictError(Exception):
    """A schema has what an API cannot enforce."""


def _root(schema: Mapping[str, Any]) -> Schema:
    """Return the schema of the answer itself: a type that contains itself has it in `$defs`."""
    ref = schema.get("$ref")
    if isinstance(ref, str) and ref.startswith("#/$defs/"):
        return dict(schema["$defs"][ref.removeprefix("#/$defs/")])
    return {name: value for name, value in schema.items() if name != "$defs"}


def _only(schema: Mapping[str, Any], name: str) -> Schema:
    return {name: schema[name]} if name in schema else {}


def _strict(schema: Any, *, all_required: bool) -> Schema:
    """Return a copy of a schema that an API can enforce."""
    if not isinstance(schema, dict) or _STRUCTURAL & schema.keys():
        raise _NotStrictError
    if "$ref" in schema:
        ref = {"$ref": schema["$ref"]}
        about = _described(schema)
        return {"anyOf": [ref], **about} if about else ref
    copy = {name: value for name, value in schema.items() if name in _KEPT} | _described(schema)
    if "const" in schema:
        copy["enum"] = [schema["const"]]
    for choice in ("anyOf", "oneOf"):
        if choice in schema:
            copy["anyOf"] = [_strict(one, all_required=all_required) for one in schema[choice]]
    if "items" in schema:
        copy["items"] = _strict(schema["items"], all_required=all_required)
    if schema.get("type") == "object":
        copy |= _members(schema, all_required=all_required)
    if copy.get("type") == "array" and "items" not in copy:
        raise _NotStrictError  # any items fit it
    if not copy.keys() & {"anyOf", "enum", "type"}:
        raise _NotStrictError  # any value fits it
    return copy


def _members(schema: Mapping[str, Any], *, all_required: bool) -> Schema:
    listed = isinstance(schema.get("properties"), dict)
    if not listed or schema.get("additionalProperties", False) is not False:
        raise _NotStrictError  # it is a mapping
    members = {
        name: _strict(one, all_required=all_required) for name, one in schema["properties"].items()
    }
    required = [*members] if all_required else schema.get("required", [])
    return {"properties": members, "required": required, "additionalProperties": False}


def _described(schema: Mapping[str, Any]) -> Schema:
    """Return the description of a schema, with the constraints that are left out of it."""
    left_out = {name: schema[name] for name in schema.keys() - _KEPT - _DROPPED - {"required"}}
    parts = [str(schema.get("description", ""))]
    parts += [f"{name}: {json.dumps(left_out[name])}" for name in schema if name in left_out]
    text = ". ".join(part.rstrip(".") for part in parts if part)
    return {"description": text} if text else {}


def _is_recursive(schema: Mapping[str, Any]) -> bool:
    """Return whether a schema contains itself."""
    defs = schema.get("$defs", {})
    refers = {name: {*_refs(one)} for name, one in defs.items()}
    for name, direct in refers.items():
        seen: set[str] = set()
        ahead = direct
        while ahead - seen:
            seen |= ahead
            ahead = {other for one in ahead for other in refers.get(one, ())}
        if name in seen:
            return True
    return False


def _refs(schema: Any) -> Iterator[str]:
    if isinstance(schema, dict):
        ref = schema.get("$ref")
        if isinstance(ref, str):
            yield ref.removeprefix("#/$defs/")
        for one in schema.values():
            yield from _refs(one)
    elif isinstance(schema, list):
        for one in schema:
            yield from _refs(one)
