"""The type that an agent's answers have: its JSON Schema, and what an answer violates of it."""

from __future__ import annotations

import inspect
import json
import math
import typing
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from typing import Annotated, Any, NamedTuple, NoReturn

from pydantic import TypeAdapter, ValidationError
from pydantic_core import ErrorDetails

from polos_client.define.signature import is_model
from polos_client.errors import DefinitionError
from polos_client.typed import exact, name_of
from polos_client.wire import NESTING_LIMIT

MAX_VIOLATIONS = 20
"""Violations that are told of one answer; further ones are counted."""

SHOWN = 256
"""Characters of a path, a rule or a value that are shown at most."""


class Violation(NamedTuple):
    """What an answer violates.

    Attributes:
        path: where, for readers: names of members that the type has, and indexes, joined by
            dots. `*` stands for a name that only the answer has.
        rule: what is violated, without anything that the answer says.
        told: path, rule and value, for the model.

    """

    path: str
    rule: str
    told: str


class Unfit(ValueError):
    """A text that does not conform to the type of an agent's answers.

    Attributes:
        violations: at most MAX_VIOLATIONS of them.
        omitted: how many there are beyond those.

    """

    def __init__(self, violations: Sequence[Violation], omitted: int = 0) -> None:
        super().__init__("; ".join(one.rule for one in violations))
        self.violations = list(violations)
        self.omitted = omitted


class Output:
    """The type that an agent's answers have.

    Attributes:
        type: a pydantic model, or another type that pydantic can describe.
        name: `module.Class` of a class; any other type as Python writes it.
        schema: JSON Schema of the answers.

    """

    def __init__(self, given: Any) -> None:
        """Describe the type.

        Raises:
            DefinitionError: pydantic cannot describe it as JSON Schema. The message names the
                field.

        """
        if given is None or not (isinstance(given, type) or typing.get_origin(given)):
            raise DefinitionError(
                f"the output_schema {given!r:.80} must be a pydantic model, or another type"
            )
        self.type = given
        plain = given.__origin__ if typing.get_origin(given) is Annotated else given
        self.name = name_of(plain) if isinstance(plain, type) else inspect.formatannotation(plain)
        try:
            self._adapter: TypeAdapter[Any] = TypeAdapter(given)
            self.schema = _schema_of(self._adapter)
        except Exception as error:
            where = f"{self.name}.{_culprit(given)}".removesuffix(".")
            raise DefinitionError(
                f"the output_schema {where} cannot be described as JSON Schema: "
                f"{str(error).splitlines()[0]:.300}"
            ) from error

    def read(self, text: str) -> Any:
        """Return what the JSON text of an answer stands for.

        Values are taken strictly: the text "7" is not an integer. Validators of the type run.

        Raises:
            Unfit: the text does not conform to the type.

        """
        if not text.strip():
            raise Unfit([_plain("", "The answer is empty")])
        try:
            value = json.loads(text, parse_constant=_constant, parse_float=_finite)
            _check_nesting(value, NESTING_LIMIT)
            return exact(self._adapter, text)
        except ValidationError as error:
            raise self._unfit(error, value) from error
        except json.JSONDecodeError as error:
            where = f"{error.msg} at line {error.lineno} column {error.colno}"
            raise Unfit([_plain("", f"The answer is not valid JSON: {where}")]) from error
        except Unfit:
            raise
        except BaseException as error:  # even sys.exit() of a validator makes the answer invalid
            kind = type(error).__name__
            told = _shown(partial("validating it raised {!r}".format, error), f"it raised {kind}")
            raise Unfit([Violation("", f"Validating it raised {kind}", told)]) from error

    def _unfit(self, error: ValidationError, value: Any) -> Unfit:
        errors = error.errors()
        names = frozenset(_names(self.schema))
        shown = [_violation(one, value, names) for one in errors[:MAX_VIOLATIONS]]
        return Unfit(shown, len(errors) - len(shown))


def _schema_of(adapter: TypeAdapter[Any]) -> dict[str, Any]:
    """Return the JSON Schema of a type; raises whatever keeps it from being written as JSON."""
    schema = adapter.json_schema()
    json.dumps(schema, ensure_ascii=False, allow_nan=False).encode()
    return schema


def _culprit(given: Any) -> str:
    """Return the path of the first field that cannot be described; empty if none is found."""
    if not is_model(given):
        return ""
    for name, field in given.model_fields.items():
        annotated: Any = Annotated[field.annotation, field]
        try:
            _schema_of(TypeAdapter(annotated))
        except Exception:  # noqa: BLE001 - whatever it is, the field is what is looked for
            inner = "" if field.annotation is given else _culprit(field.annotation)
            return f"{name}.{inner}".removesuffix(".")
    return ""


def _violation(error: ErrorDetails, answer: Any, names: frozenset[str]) -> Violation:
    path = ".".join(_public(error["loc"], answer, names))[:SHOWN]
    whole = ".".join(map(str, error["loc"])) or "the answer"
    value = error["input"]
    said = _shown(
        lambda: json.dumps(value, ensure_ascii=False, default=str), f"a {type(value).__name__}"
    )
    return Violation(path, _rule(error)[:SHOWN], f"{whole}: {error['msg']} (got {said})")


def _shown(text_of: Callable[[], str], otherwise: str) -> str:
    """Return a text that code of the type's author makes, cut; another one if that code fails."""
    try:
        text = text_of()
    except BaseException:  # noqa: BLE001 - it is any code
        return otherwise
    return text if len(text) <= SHOWN else f"{text[:SHOWN]}..."


def _public(loc: Sequence[int | str], value: Any, names: frozenset[str]) -> Iterator[str]:
    """Yield the parts of a place; members of the answer that the type does not name are `*`."""
    for part in loc:
        is_own = isinstance(value, dict) and part in value
        yield "*" if is_own and part not in names else str(part)
        if is_own or (isinstance(value, list) and isinstance(part, int) and part < len(value)):
            value = value[part]


def _rule(error: ErrorDetails) -> str:
    """Return what a violation says without what the answer says."""
    context = error.get("ctx", {})
    if "url" not in error:  # user code says this, whatever the type: pydantic documents its own
        return f"Violates the rule {error['type']!r}"
    if error["type"] == "union_tag_invalid":
        return f"The tag {context['discriminator']} should be one of {context['expected_tags']}"
    if "error" in context:
        said = str(context["error"])
        rule = error["msg"].partition(said)[0] if said else error["msg"]
        return rule.rstrip(" ,:") or "Violates a rule"
    return error["msg"]


def _names(schema: Any) -> Iterator[str]:
    """Yield the names of all members that a schema names."""
    if isinstance(schema, dict):
        if isinstance(members := schema.get("properties"), dict):
            yield from members
        for one in schema.values():
            yield from _names(one)
    elif isinstance(schema, list):
        for one in schema:
            yield from _names(one)


def _plain(path: str, rule: str) -> Violation:
    return Violation(path, rule, f"{path}: {rule}".removeprefix(": "))


def _finite(text: str) -> float:
    number = float(text)
    if math.isinf(number):
        raise Unfit([Violation("", "A number is too large", f"the number {text} is too large")])
    return number


def _check_nesting(value: Any, left: int) -> None:
    if isinstance(value, dict | list):
        if not left:
            rule = f"The answer is nested more than {NESTING_LIMIT} levels deep"
            raise Unfit([_plain("", rule)])
        for one in value.values() if isinstance(value, dict) else value:
            _check_nesting(one, left - 1)


def _constant(text: str) -> NoReturn:
    raise Unfit([_plain("", f"The answer is not valid JSON: it has {text}")])
