"""What steps return: exact at first and from the log, or refused at once."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, date, datetime
from decimal import Decimal
from enum import Enum
from typing import Any

import pytest
from pydantic import (
    BaseModel,
    Field,
    Secret,
    SecretBytes,
    SecretStr,
    computed_field,
    field_serializer,
)

from polos_client.define.context import WorkflowContext
from polos_client.define.workflow import workflow
from polos_client.wire import NESTING_LIMIT
from polos_service.errors import StepError
from polos_service.store.sqlite import SqliteStore
from polos_service.tools.values import decode, encode
from tests.support.flows import flowing, kinds


class Cat(BaseModel):
    name: str = "cat"


class Dog(BaseModel):
    name: str = "dog"


class Colour(Enum):
    RED = "red"


@dataclass
class Point:
    x: int
    y: int


def exact(value: Any, annotation: Any = None) -> Any:
    return decode(*encode(value), annotation)


@pytest.mark.parametrize(
    "value",
    [None, 0, False, "", [], {}, 1.5, 2**70, "é\u2028", [1, [2, {"a": None}]], {"a/b~c": 1}],
)
def test_json_values_are_exact(value: Any) -> None:
    found = exact(value)
    assert found == value
    assert type(found) is type(value)


@pytest.mark.parametrize(
    ("value", "found"),
    [
        ((1, 2), [1, 2]),
        (frozenset({1}), [1]),
        ({1: "a"}, {"1": "a"}),
        (Colour.RED, "red"),
        (Decimal("1.10"), "1.10"),
        (datetime(2026, 1, 2, tzinfo=UTC), "2026-01-02T00:00:00Z"),
        (Point(1, 2), {"x": 1, "y": 2}),
    ],
)
def test_other_values_are_json_values_without_an_annotation(value: Any, found: Any) -> None:
    assert exact(value) == found


@pytest.mark.parametrize(
    ("value", "annotation"),
    [
        ((1, "a"), tuple[int, str]),
        ({1, 2}, set[int]),
        ({1: "a"}, dict[int, str]),
        (Colour.RED, Colour),
        (Decimal("1.10"), Decimal),
        (datetime(2026, 1, 2, tzinfo=UTC), datetime),
        (Point(1, 2), Point),
        (b"ab", bytes),
        (None, str | None),
        ((Cat(), Dog()), tuple[Cat | Dog, ...]),
    ],
)
def test_an_annotation_makes_them_exact(value: Any, annotation: Any) -> None:
    found = exact(value, annotation)
    assert found == value
    assert type(found) is type(value)


@pytest.mark.parametrize("annotation", [None, list[Cat | Dog], list[Dog], int, object()])
@pytest.mark.parametrize(
    "value",
    [
        Dog(),
        [Cat(), Dog(), Cat()],
        {"a/b": Dog(), "~": [Cat()]},
        {"deep": [{"deeper": [Dog(name="x")]}], "plain": 1},
    ],
)
def test_models_are_of_the_same_classes(value: Any, annotation: Any) -> None:
    assert exact(value, annotation) == value


def test_an_annotation_that_is_wrong_changes_nothing() -> None:
    assert exact("5", int) == "5"
    assert exact([True], list[int]) == [True]
    assert exact({"x": 1}, list[int]) == {"x": 1}


class Login(BaseModel):
    user: str = "ann"
    password: SecretStr = SecretStr("s3cret")


class Plain(Login):
    @field_serializer("password", when_used="json")
    def plain(self, password: SecretStr) -> str:
        return password.get_secret_value()


class Day(Secret[date]):
    def _display(self) -> str:
        return "****/**/**"


class Open(BaseModel, extra="allow"):
    parent: Any = Field(default=None, exclude=True)


@dataclass(slots=True)
class Account:
    login: Login


@pytest.mark.parametrize(
    ("value", "kind"),
    [
        (SecretStr("s3cret"), "SecretStr"),
        ({"deep": [SecretStr("s3cret")]}, "SecretStr"),
        (SecretBytes(b"s3cret"), "SecretBytes"),
        (Secret[int](5), "Secret"),
        (Day(date(2026, 1, 2)), "Day"),
        ([Login()], "SecretStr"),
        (Account(Login()), "SecretStr"),
        (Open.model_validate({"logins": {"a": (Login(),)}}), "SecretStr"),
    ],
)
def test_a_secret_that_would_be_masked_is_refused(value: Any, kind: str) -> None:
    with pytest.raises(StepError, match=rf"it has a {kind}.*, of which only \"\*") as refused:
        encode(value)
    assert "s3cret" not in refused.value.message
    assert "get_secret_value()" in refused.value.message


def test_a_secret_that_is_not_masked_is_stored() -> None:
    assert exact(Plain()).password.get_secret_value() == "s3cret"
    assert exact(Login(password=SecretStr(""))).password.get_secret_value() == ""
    circle = Open()
    circle.parent = [circle, SecretStr("s3cret")]
    assert encode(circle)[0] == "{}"


def endless() -> Any:
    while True:
        yield 1


def deep() -> list[Any]:
    found: list[Any] = []
    for _ in range(NESTING_LIMIT + 1):
        found = [found]
    return found


def circular() -> list[Any]:
    found: list[Any] = []
    found.append(found)
    return found


@pytest.mark.parametrize(
    "value",
    [
        float("nan"),
        float("inf"),
        [float("nan")],
        object(),
        lambda: 1,
        endless(),
        {"1": 1, 1: 2},
        "half \ud83d a pair",
        b"\xff",
        deep(),
        circular(),
    ],
)
def test_what_cannot_be_stored_is_refused(value: Any) -> None:
    with pytest.raises(StepError, match="cannot be stored as JSON"):
        encode(value)


def test_a_class_that_is_not_loaded_is_named_with_the_value() -> None:
    with pytest.raises(StepError, match=r'class os\.Gone is not loaded: \{"x":1\}|"x": 1'):
        decode('{"x":1}', {"": "os.Gone"})


def test_nothing_is_imported_because_data_names_it() -> None:
    with pytest.raises(StepError, match="is not loaded"):
        decode("{}", {"": "antigravity.Model"})


def test_a_class_that_has_changed_is_named_with_the_value() -> None:
    with pytest.raises(StepError, match="does not take the value"):
        decode('{"name": 5}', {"": f"{__name__}.Dog"})


@pytest.mark.parametrize("how", ["at first", "from the log"])
async def test_steps_return_what_they_returned(store: SqliteStore, how: str) -> None:
    expected: dict[str, Any] = {
        "none": None,
        "zero": 0,
        "false": False,
        "text": "",
        "list": [],
        "model": Dog(name="rex"),
        "models": [Cat(), Dog()],
    }
    seen: list[dict[str, Any]] = []

    @workflow(id="values")
    async def function(ctx: WorkflowContext) -> None:
        found = {}
        for key, value in expected.items():
            found[key] = await ctx.step.run(key, lambda value=value: value)
        seen.append(found)
        if how == "from the log":
            await ctx.step.suspend("ask")

    async with flowing(store, function, threshold=0.02) as flows:
        run_id = await flows.start(function)
        if how == "from the log":
            await flows.parked(run_id)
            await flows.answer(run_id, "ask")
        await flows.ended(run_id)
    assert seen == [expected] * (1 if how == "at first" else 2)
    assert all(type(one["false"]) is bool for one in seen)


@pytest.mark.parametrize(
    ("value", "reason"),
    [
        (float("nan"), "cannot be stored as JSON"),
        ("x" * 500_000, "the limit is 491520"),
        (Login(), "it has a SecretStr"),
    ],
)
async def test_what_cannot_be_stored_fails_at_once(
    store: SqliteStore, value: Any, reason: str
) -> None:
    calls = []

    def work() -> Any:
        calls.append(1)
        return value

    @workflow(id="refused")
    async def function(ctx: WorkflowContext) -> None:
        await ctx.step.run("work", work)

    async with flowing(store, function) as flows:
        events = await flows.run(function)
    assert kinds(events) == ["workflow_start", "step_start work 1", "step_failed work 1", "error"]
    assert reason in events[-1].error.message
    assert len(calls) == 1


@pytest.mark.parametrize(
    ("value", "reason"),
    [(float("nan"), "cannot be stored as JSON"), ("x" * 500_000, "has 500002 bytes, the limit")],
)
async def test_a_result_that_cannot_be_stored_fails_the_run(
    store: SqliteStore, value: Any, reason: str
) -> None:
    @workflow(id="result")
    async def function(ctx: WorkflowContext) -> Any:
        return value

    async with flowing(store, function) as flows:
        events = await flows.run(function)
    assert reason in events[-1].error.message


class Derived(BaseModel, extra="forbid"):
    x: int = 1

    @computed_field
    def double(self) -> int:
        return 2 * self.x


class Aliased(BaseModel):
    x: int = Field(validation_alias="y")


@pytest.mark.parametrize("value", [Derived(), Aliased.model_validate({"y": 1})])
async def test_a_result_that_cannot_be_read_back_fails_the_run(
    store: SqliteStore, value: BaseModel
) -> None:
    @workflow(id="result")
    async def function(ctx: WorkflowContext) -> Any:
        return value

    async with flowing(store, function) as flows:
        events = await flows.run(function)
    name = type(value).__qualname__
    assert kinds(events) == ["workflow_start", "error"]
    assert events[-1].error.message.startswith(
        f"What the workflow returned cannot be read back. The class {__name__}.{name} does not take"
    )


async def test_a_large_value_with_models_is_exact(store: SqliteStore) -> None:
    many = [Dog(name=f"{number}" * 20) for number in range(2000)]
    seen: list[Any] = []

    @workflow(id="large")
    async def function(ctx: WorkflowContext) -> None:
        seen.append(await ctx.step.run("many", lambda: many))
        await ctx.step.suspend("ask")

    async with flowing(store, function, threshold=0.02) as flows:
        run_id = await flows.start(function)
        await flows.parked(run_id)
        await flows.answer(run_id, "ask")
        await flows.ended(run_id)
    assert seen == [many, many]
