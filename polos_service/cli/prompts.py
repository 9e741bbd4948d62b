"""Questions to a person at the terminal: whether to approve, the fields of a form, or JSON."""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import typer

from polos_service.cli.exits import complain
from polos_service.cli.keyboard import NothingTypedError, ask_line, forget_typed
from polos_service.cli.output import json_of
from polos_service.cli.text import visible
from polos_service.cli.waits import approved_call, data_of, form_of, kind_name

if TYPE_CHECKING:
    from polos.v1.run_pb2 import Wait

YES_NO = {"y": True, "yes": True, "true": True, "n": False, "no": False, "false": False}
"""What can be typed as an answer of yes or no."""

END_OF_TEXT = "."
"""The line that ends a text of several lines."""

NONE = object()
"""The value of a field that is left out."""


async def answer_to(wait: Wait) -> Any:
    """Show what a wait asks, and return what the person answers, as JSON values.

    Raises:
        NothingTypedError: Ctrl-D was typed instead of an answer.

    """
    forget_typed()
    show(wait)
    if kind_name(wait.kind) == "approval":
        return await approval()
    fields = fields_of(form_of(wait))
    return await filled_in(fields) if fields else await until_right("Answer as JSON: ", as_value)


def show(wait: Wait) -> None:
    """Show what a wait asks, all of it: a person answers what was shown."""
    form = form_of(wait)
    if kind_name(wait.kind) == "approval":
        tool, given = approved_call(wait)
        title, facts = f"Approve {tool}?", {"tool": tool, "input": given}
    else:
        title = str(form.get("title") or f"An answer to {wait.step_key}")
        context = form.get("context")
        told = {name: one for name, one in data_of(wait).items() if not name.startswith("_")}
        facts = {**(context if isinstance(context, dict) else {}), **told}
    lines = [title]
    if text := form.get("description"):
        lines += indented(str(text))
    for name, value in facts.items():
        lines += indented(f"{name}: {shown_value(value)}")
    typer.echo("\n".join([visible(lines[0]), *lines[1:]]), err=True)


def shown_value(value: Any) -> str:
    """Return a value in full: text as it is where it fits on a line, all else as JSON."""
    if isinstance(value, str) and value.isprintable():
        return value
    return json.dumps(value, ensure_ascii=False, indent=2)


def indented(text: str) -> list[str]:
    """Return the lines of a text, indented: a model's words must not look like our questions."""
    return [f"  {line}" for line in visible(text).split("\n")]


async def approval() -> dict[str, Any]:
    """Ask whether to approve, and for a word to the model."""
    approved = await until_right("[y]es or [n]o? ", as_boolean)
    feedback = await ask_line("Feedback to the model (Enter: none): ")
    return {"approved": approved, **({"feedback": feedback} if feedback else {})}


async def until_right(prompt: str, parse: Callable[[str], Any]) -> Any:
    """Ask until the line can be used; return what `parse` makes of it."""
    while True:
        line = await ask_line(prompt)
        try:
            return parse(line)
        except ValueError as error:
            forget_typed()  # the rest of what was pasted
            complain(str(error))


def as_boolean(line: str) -> bool:
    """Return a yes or no."""
    if line.lower() not in YES_NO:
        raise ValueError(f"{line!r} is neither yes nor no")
    return YES_NO[line.lower()]


def as_number(line: str) -> int | float:
    """Return a number."""
    try:
        value = json.loads(line)
    except (ValueError, RecursionError):
        value = None
    if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
        raise ValueError(f"{line!r} is not a number")
    return value


def as_value(line: str) -> Any:
    """Return a JSON value."""
    try:
        return json.loads(line)
    except (ValueError, RecursionError):
        raise ValueError(
            f'{line!r} is not valid JSON on one line; text has quotes: "yes"'
        ) from None


@dataclass(frozen=True, kw_only=True, slots=True)
class Field:
    """A field of a form, as its author has described it.

    Attributes:
        key: the member of the answer.
        type: `text`, `textarea`, `number`, `boolean` or `select`; any other is `text`.
        label: what is asked.
        description: more about it; empty if nothing was said.
        required: whether it must be given.
        default: its value if nothing is typed; NONE if there is none.
        options: labels and values of a `select`.

    """

    key: str
    type: str
    label: str
    description: str
    required: bool
    default: Any
    options: Sequence[tuple[str, Any]]

    @classmethod
    def of(cls, given: Any) -> Field | None:
        """Return the field of a form; None if it has no key."""
        if not isinstance(given, Mapping):
            return None
        key = given.get("key", given.get("name"))
        if not isinstance(key, str) or not key:
            return None
        return cls(
            key=key,
            type=str(given.get("type", "text")),
            label=str(given.get("label") or key),
            description=str(given.get("description") or ""),
            required=given.get("required") is True,
            default=NONE if given.get("default") is None else given["default"],
            options=options_of(given.get("options")),
        )

    @property
    def prompt(self) -> str:
        """What stands before the answer."""
        hints = {"boolean": ["y/n"], "textarea": [f"ends with a line {END_OF_TEXT!r}"]}
        told = list(hints.get(self.type, []))
        if self.default is not NONE:
            told.append(f"Enter: {self.default_shown}")
        elif not self.required:
            told.append("optional")
        return visible(self.label).replace("\n", " ") + (f" ({', '.join(told)})" if told else "")

    @property
    def default_shown(self) -> str:
        """The default as a person reads it."""
        if isinstance(self.default, bool):
            return "yes" if self.default else "no"
        return visible(self.default if isinstance(self.default, str) else json_of(self.default))

    def parse(self, line: str) -> Any:
        """Return the value that was typed; NONE to leave the field out.

        Raises:
            ValueError: it cannot be used.

        """
        if not line:
            if self.default is NONE and self.required:
                raise ValueError(f"{self.label} is required")
            return self.default
        if self.type == "select" and self.options:
            return self.chosen(line)
        return {"number": as_number, "boolean": as_boolean}.get(self.type, str)(line)

    def chosen(self, line: str) -> Any:
        """Return the value of an option, by its label, its value or its number."""
        for label, value in self.options:
            if line in (label, value if isinstance(value, str) else json_of(value)):
                return value
        if line.isdecimal() and 1 <= int(line) <= len(self.options):
            return self.options[int(line) - 1][1]
        raise ValueError(f"{line!r} is none of the options 1 to {len(self.options)}")


def options_of(given: Any) -> list[tuple[str, Any]]:
    """Return labels and values of the options of a field."""
    found = []
    for one in given if isinstance(given, list) else []:
        value = one.get("value", one.get("label")) if isinstance(one, Mapping) else one
        label = one.get("label") if isinstance(one, Mapping) else None
        found.append((str(value if label is None else label), value))
    return found


def fields_of(form: Mapping[str, Any]) -> list[Field]:
    """Return the fields of a form; none if one of them cannot be asked for."""
    given = form.get("fields")
    fields = [Field.of(one) for one in given] if isinstance(given, list) else []
    return [one for one in fields if one] if all(fields) else []


async def filled_in(fields: Sequence[Field]) -> dict[str, Any]:
    """Ask for each field, and return the values that were given, by key."""
    found = {}
    for field in fields:
        if field.description:
            typer.echo("\n".join(indented(field.description)), err=True)
        options = field.options if field.type == "select" else ()
        for number, (label, _) in enumerate(options, 1):
            typer.echo(f"  {number}. {visible(label)}", err=True)
        value = await typed_into(field)
        if value is not NONE:
            found[field.key] = value
    return found


async def typed_into(field: Field) -> Any:
    """Ask for a field until what is typed can be used."""
    value = await until_right(f"{field.prompt}: ", field.parse)
    if field.type != "textarea" or value is field.default:
        return value
    lines = [value]
    while lines[-1] != END_OF_TEXT:
        try:
            lines.append(await ask_line("… "))
        except NothingTypedError:
            lines.append(END_OF_TEXT)
    return "\n".join(lines[:-1])
