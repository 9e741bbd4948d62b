"""The arguments of a tool call that a person has approved: those, and no others, reach the tool."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from pydantic_core import from_json

from polos_client.define.tool import Tool


@dataclass(frozen=True, kw_only=True, slots=True)
class Approved:
    """What a person has approved.

    Attributes:
        shown: the arguments that the person saw, a JSON object.
        changes: the members that the person has given another value.

    """

    shown: Mapping[str, Any]
    changes: Mapping[str, Any] = field(default_factory=dict)

    @property
    def json(self) -> str:
        """The arguments that were approved, changes included, as JSON text."""
        return json.dumps({**self.shown, **self.changes}, ensure_ascii=False)

    def arguments(self, tool: Tool, asked_json: str | None = None) -> dict[str, Any]:
        """Return the keyword arguments for the tool's function.

        The model's own text comes first: it holds what JSON does not show, a secret for example.
        It counts only if the tool still makes of it what the person saw.

        Args:
            tool: the tool, whose code may be another than when the person saw the call.
            asked_json: the arguments as the model wrote them; None if they are not known.

        Raises:
            ValueError: the tool does not take what was approved, or would make something else of
                it.

        """
        if asked_json is not None:
            try:
                return self._as_asked(tool, asked_json)
            except ValueError:
                pass  # the tool makes something else of the model's text by now
        return self._checked(tool, self.json)

    def _as_asked(self, tool: Tool, asked_json: str) -> dict[str, Any]:
        """Return the arguments that the model's text gives, with the changes put in."""
        if not self.changes:
            return self._checked(tool, asked_json)
        asked = from_json(asked_json.strip() or "{}")
        if not isinstance(asked, dict):
            raise ValueError("the model's arguments are not a JSON object")  # noqa: TRY004
        arguments = self._checked(tool, json.dumps({**asked, **self.changes}))
        wanted = tool.dump(self._checked(tool, self.json))
        if not same(wanted, tool.dump(arguments), sets=tool.has_sets):
            raise ValueError("a change has no effect beside what the model wrote")
        return arguments

    def _checked(self, tool: Tool, text: str) -> dict[str, Any]:
        """Return the arguments of a text, if they are as shown where the person changed nothing.

        Raises:
            ValueError: they are not, or the tool does not take them.

        """
        arguments = tool.validate(text)
        found = tool.dump(arguments)
        if unknown := self.changes.keys() - found.keys():
            raise ValueError(f"there is no argument {min(unknown)!r:.80}")
        names = (self.shown.keys() | found.keys()) - self.changes.keys()
        absent = object()
        differ = [
            name
            for name in sorted(names)
            if not same(self.shown.get(name, absent), found.get(name, absent), sets=tool.has_sets)
        ]
        if differ:
            raise ValueError(
                "these arguments would not be as they were shown for approval: "
                + ", ".join(differ)[:1000]
            )
        return arguments


def same(one: Any, other: Any, *, sets: bool) -> bool:
    """Return whether two JSON values are the same: 1, 1.0 and true differ.

    Args:
        one: a value.
        other: another value.
        sets: whether lists may be sets, whose order means nothing.

    """
    if isinstance(one, dict) and isinstance(other, dict):
        return one.keys() == other.keys() and all(
            same(value, other[name], sets=sets) for name, value in one.items()
        )
    if isinstance(one, list) and isinstance(other, list):
        if sets:
            one, other = sorted(one, key=json.dumps), sorted(other, key=json.dumps)
        return len(one) == len(other) and all(
            same(a, b, sets=sets) for a, b in zip(one, other, strict=True)
        )
    return type(one) is type(other) and bool(one == other)
