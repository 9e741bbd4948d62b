"""The type of an agent's answers: what may be one, and what an answer violates of it."""

from __future__ import annotations

import sys
from collections.abc import Callable
from datetime import UTC, datetime
from decimal import Decimal
from typing import Annotated, Any

import pytest
from pydantic import (
    BaseModel,
    ConfigDict,
    Field,
    TypeAdapter,
    field_validator,
    model_validator,
)
from pydantic_core import PydanticCustomError

from polos_client.define.agent import Agent
from polos_client.define.output import MAX_VIOLATIONS, SHOWN, Output, Unfit, Violation
from polos_client.errors import DefinitionError
from polos_client.typed import exact, name_of


class Thing:
    """What JSON cannot describe."""


class Bad(BaseModel):
    model_config = ConfigDict(arbitrary_types_allowed=True)
    fine: int
    thing: Thing


class Outer(BaseModel):
    bad: Bad


class Extra(BaseModel):
    model_config = ConfigDict(json_schema_extra={"example": Thing()})  # type: ignore[dict-item]


class Prices(BaseModel):
    model_config = ConfigDict(extra="forbid")
    price: Decimal = Decimal(0)
    ratio: float = 0
    count: int = 0
    at: datetime | None = None
    by_name: dict[str, int] = {}
    items: Annotated[list[int], Field(min_length=1)] = [1]


class Numbers(BaseModel):
    fine: float = 0
    ratio: float = float("nan")


class Halves(BaseModel):
    fine: int = Field(description="🍵")
    half: int = Field(description="\ud83c")


@pytest.mark.parametrize(
    ("given", "message"),
    [
        (Numbers, r"Numbers\.ratio cannot be described as JSON Schema: Out of range float values"),
        (Halves, r"Halves\.half cannot be described as JSON Schema: .* surrogates not allowed"),
        (Bad, r"output_schema .*\.Bad\.thing cannot be described as JSON Schema"),
        (Outer, r"output_schema .*\.Outer\.bad\.thing cannot be described"),
        (Extra, "Extra cannot be described as JSON Schema: Object of type Thing is not JSON"),
        (Callable[[], int], "cannot be described"),
        ({"type": "object"}, "must be a pydantic model, or another type"),
        (Prices(), "must be a pydantic model"),
        ("Prices", "must be a pydantic model"),
    ],
    ids=str,
)
def test_what_cannot_be_described_is_refused_with_its_field(given: Any, message: str) -> None:
    with pytest.raises(DefinitionError, match=message):
        Agent("a", "openai", "m", output_schema=given)


def test_an_agent_tells_the_type_of_its_answers() -> None:
    agent = Agent("a", "openai", "m", output_schema=Prices)
    assert (agent.output_schema, agent.output_schema_name) == (Prices, name_of(Prices))
    plain = Agent("b", "openai", "m")
    assert (plain.output, plain.output_schema, plain.output_schema_name) == (None, None, None)


@pytest.mark.parametrize(
    ("given", "name"),
    [
        (Prices, name_of(Prices)),
        (list[Prices], f"list[{name_of(Prices)}]"),
        (Prices | None, f"{name_of(Prices)} | None"),
        (Annotated[Prices, Field(title="x")], name_of(Prices)),
    ],
)
def test_a_type_has_a_name(given: Any, name: str) -> None:
    assert Output(given).name == name


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ('{"price": "12.10"}', [("price", "12.10")]),
        ('{"price": 12.10, "ratio": 0.30}', [("price", "12.10"), ("ratio", "0.3")]),
        ('{"price": 0.12345678901234567890123}', [("price", "0.12345678901234567890123")]),
        ('{"count": 9007199254740993}', [("count", "9007199254740993")]),
        ('{"at": "2026-05-02T10:00:00"}', [("at", "2026-05-02 10:00:00")]),
        ('{"at": "2026-05-02T10:00:00Z"}', [("at", str(datetime(2026, 5, 2, 10, tzinfo=UTC)))]),
    ],
)
def test_values_are_exact(text: str, found: list[tuple[str, str]]) -> None:
    value = Output(Prices).read(text)
    assert [(name, str(getattr(value, name))) for name, _ in found] == found


@pytest.mark.parametrize(
    ("text", "path", "rule"),
    [
        ('{"count": "7"}', "count", "Input should be a valid integer"),
        ('{"count": 7.0}', "count", "Input should be a valid integer"),
        ('{"ratio": 1e400}', "", "A number is too large"),
        ('{"ratio": NaN}', "", "The answer is not valid JSON: it has NaN"),
        ('{"price": "12,10"}', "price", "Input should be a valid decimal"),
        ('{"at": 5}', "at", "Input should be a valid datetime"),
        ('{"by_name": {"Ann": "x"}}', "by_name.*", "Input should be a valid integer"),
        ('{"Ann": 1}', "*", "Extra inputs are not permitted"),
        ('{"items": [1, "Ann"]}', "items.1", "Input should be a valid integer"),
        ('{"items": []}', "items", "List should have at least 1 item after validation, not 0"),
        ("[" * 100_000, "", "Validating it raised RecursionError"),
        ("[" * 101 + "]" * 101, "", "The answer is nested more than 100 levels deep"),
    ],
)
def test_a_violation_has_a_path_and_a_rule_without_the_value(
    text: str, path: str, rule: str
) -> None:
    with pytest.raises(Unfit) as raised:
        Output(Prices).read(text)
    (found,) = raised.value.violations
    assert (found.path, found.rule) == (path, rule)
    assert "Ann" not in f"{raised.value}"


class Unspeakable(Exception):
    def __repr__(self) -> str:
        raise RuntimeError


class Deadly:
    def __str__(self) -> str:
        raise SystemExit


class Harsh(BaseModel):
    """A model whose validators raise and return what nobody expects."""

    kind: str

    @model_validator(mode="before")
    @classmethod
    def made(cls, given: Any) -> Any:
        made = {"made": {("a", 1): 2}, "deadly": Deadly()}
        return {"kind": made.get(given["kind"], given["kind"])}

    @field_validator("kind")
    @classmethod
    def harsh(cls, kind: str) -> str:
        if kind == "assert":
            raise AssertionError
        if kind == "exit":
            sys.exit(kind)
        if kind == "unspeakable":
            raise Unspeakable
        if kind == "own":
            raise PydanticCustomError("value_error", "not {kind}", {"kind": kind})
        if kind == "bare":
            raise PydanticCustomError("union_tag_invalid", "not bare")
        return kind


@pytest.mark.parametrize(
    ("kind", "path", "rule", "told"),
    [
        ("assert", "kind", "Assertion failed", 'kind: Assertion failed,  (got "assert")'),
        ("exit", "", "Validating it raised SystemExit", "validating it raised SystemExit('exit')"),
        ("unspeakable", "", "Validating it raised Unspeakable", "it raised Unspeakable"),
        ("made", "kind", "Input should be a valid string", "kind: {rule} (got a dict)"),
        ("deadly", "kind", "Input should be a valid string", "kind: {rule} (got a Deadly)"),
        ("own", "kind", "Violates the rule 'value_error'", 'kind: not own (got "own")'),
        ("bare", "kind", "Violates the rule 'union_tag_invalid'", 'kind: not bare (got "bare")'),
    ],
)
def test_whatever_a_validator_does_makes_the_answer_invalid(
    kind: str, path: str, rule: str, told: str
) -> None:
    with pytest.raises(Unfit) as raised:
        Output(Harsh).read(f'{{"kind": "{kind}"}}')
    assert raised.value.violations == [Violation(path, rule, told.format(rule=rule))]


def test_an_answer_may_be_nested_as_deep_as_a_value() -> None:
    assert Output(list[Any]).read("[" * 100 + "]" * 100)


def test_many_violations_and_long_values_are_cut() -> None:
    text = '{"items": [' + ", ".join([f'"{"x" * 1000}"'] * 30) + "]}"
    with pytest.raises(Unfit) as raised:
        Output(Prices).read(text)
    assert (len(raised.value.violations), raised.value.omitted) == (MAX_VIOLATIONS, 10)
    assert all(len(one.told) < 2 * SHOWN for one in raised.value.violations)


def test_a_text_in_the_place_of_a_number_stays_one() -> None:
    assert exact(TypeAdapter(list[float | str | Decimal]), "[0.30]") == [0.3]
