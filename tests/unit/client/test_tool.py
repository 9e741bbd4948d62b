"""`@tool`: what a model sees of a function, and how it is called."""

from __future__ import annotations

import inspect
import traceback
from collections.abc import AsyncIterator
from typing import TYPE_CHECKING, Any

import pytest
from pydantic import BaseModel, Field, ValidationError, field_validator

from polos_client.define.context import WorkflowContext
from polos_client.define.tool import Tool, describe, tool
from polos_client.errors import DefinitionError

if TYPE_CHECKING:
    from decimal import Decimal


class City(BaseModel):
    name: str = Field(description="its name")
    days: int = 1


CTX = WorkflowContext(workflow_id="a", execution_id="r", step_key="t", idempotency_key="k")


def test_one_model_gives_the_schema_and_comes_whole() -> None:
    @tool
    async def weather(ctx: WorkflowContext, input: City) -> str:
        """Tell the weather."""
        return f"{ctx.execution_id} {input.name}"

    assert isinstance(weather, Tool)
    assert (weather.id, weather.description) == ("weather", "Tell the weather.")
    assert weather.is_async
    assert weather.parameters == City.model_json_schema()
    assert weather.validate('{"name": "Tokyo"}') == {"input": City(name="Tokyo")}


async def test_an_async_tool_is_awaited_and_gets_its_context() -> None:
    @tool
    async def weather(context: WorkflowContext, input: City) -> str:
        return f"{context.execution_id} {input.name}"

    assert await weather.invoke(CTX, weather.validate('{"name": "Oslo"}')) == "r Oslo"


def test_plain_parameters_make_a_schema_with_their_defaults() -> None:
    @tool
    def add(ctx, a: int, b: int = Field(2, ge=0), schema: str = "s") -> tuple[int, str]:  # type: ignore[no-untyped-def]  # noqa: ANN001
        return a + b, schema

    assert not add.is_async
    assert add.parameters["required"] == ["a"]
    assert set(add.parameters["properties"]) == {"a", "b", "schema"}
    assert add.parameters["properties"]["b"]["minimum"] == 0
    assert add.parameters["additionalProperties"] is False
    assert add.invoke(CTX, add.validate('{"a": 1}')) == (3, "s")
    assert add.invoke(CTX, add.validate('{"a": 1, "b": 4, "schema": "t"}')) == (5, "t")


def test_a_tool_without_context_or_parameters_takes_an_empty_text() -> None:
    @tool
    def now() -> str:
        return "noon"

    assert now.parameters["properties"] == {}
    assert now.invoke(CTX, now.validate("")) == "noon"
    assert now.invoke(CTX, now.validate(" {} ")) == "noon"


def test_a_tool_called_is_the_plain_function() -> None:
    @tool
    def add(a: int, b: int) -> int:
        return a + b

    assert add(1, b=2) == 3
    assert list(inspect.signature(add).parameters) == ["a", "b"]


def test_the_decorator_s_words_win() -> None:
    schema = {"type": "object", "properties": {"a": {"type": "string"}}}

    @tool(id="plus-1", description="Adds.", parameters=schema)
    def add(a: int) -> int:
        """Something else."""
        return a + 1

    assert (add.id, add.description, add.parameters) == ("plus-1", "Adds.", schema)
    assert add.validate('{"a": "2"}') == {"a": 2}


def test_models_that_are_defined_beside_the_tool_are_found() -> None:
    class Local(BaseModel):
        x: int

    @tool
    def bare(input: Local) -> int:
        return input.x

    @tool(id="named")
    def called(input: Local) -> int:
        return input.x

    for one in (bare, called):
        assert one.invoke(CTX, one.validate('{"x": 1}')) == 1


def test_a_return_type_for_type_checkers_alone_does_no_harm() -> None:
    @tool
    def price(a: int) -> Decimal:
        raise NotImplementedError

    assert price.id == "price"


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("{no", "the arguments are not valid JSON"),
        ("[1]", "Input should be an object"),
        ("[" * 100_000, "the arguments are not valid JSON"),
        ('{"name": 1}', "name: Input should be a valid string"),
        ("{}", "name: Field required"),
        ('{"name": "x", "days": "many"}', "days: Input should be a valid integer"),
    ],
)
def test_what_is_wrong_with_arguments_is_said_shortly(text: str, message: str) -> None:
    @tool
    def weather(input: City) -> None: ...

    with pytest.raises(ValueError, match=r".*") as caught:
        weather.validate(text)
    said = describe(caught.value)
    assert message in said
    assert "http" not in said
    assert len(said) < 200


class Positive(BaseModel):
    count: int

    @field_validator("count")
    @classmethod
    def _positive(cls, count: int) -> int:
        if count < 1:
            raise ValueError("the count must be at least 1")
        return count


def test_what_a_validator_says_stands_alone() -> None:
    @tool
    def total(input: Positive) -> None: ...

    with pytest.raises(ValidationError) as caught:
        total.validate('{"count": 0}')
    assert describe(caught.value) == "count: the count must be at least 1"


def test_an_argument_that_is_not_known_is_a_misfit() -> None:
    @tool
    def add(a: int) -> int:
        return a

    with pytest.raises(ValidationError) as caught:
        add.validate('{"a": 1, "b": 2}')
    assert describe(caught.value) == "b: Extra inputs are not permitted"


def test_many_problems_are_counted() -> None:
    @tool
    def total(values: list[int]) -> int:
        return sum(values)

    with pytest.raises(ValidationError) as caught:
        total.validate('{"values": [' + ",".join(['"x"'] * 30) + "]}")
    assert describe(caught.value).endswith("; and 10 more")


@pytest.mark.parametrize("name", ["llm", "a:b", "", "x" * 65, "a b"])
def test_an_id_that_cannot_be_a_step_s_key_is_refused(name: str) -> None:
    with pytest.raises(DefinitionError, match="the tool id"):
        tool(id=name)(lambda: None)


@pytest.mark.parametrize(
    "option",
    [{"queue": "q"}, {"on_start": print}],
    ids=lambda one: next(iter(one)),
)
def test_what_is_not_built_yet_is_refused(option: dict[str, Any]) -> None:
    with pytest.raises(DefinitionError, match="is not built yet"):
        tool(**option)


def test_an_option_that_is_not_known_is_refused() -> None:
    with pytest.raises(DefinitionError, match=r"^@tool takes no retries$"):
        tool(retries=3)


def test_approval_none_is_the_default_spelled_out() -> None:
    @tool(approval="none")
    def ping() -> None: ...

    assert (ping.id, ping.approval) == ("ping", "none")


def test_approvals_and_questions_of_a_tool() -> None:
    @tool(approval="always", approval_timeout=60, editable=True)
    def pay() -> None: ...

    assert (pay.approval, pay.approval_timeout, pay.editable) == ("always", 60, True)

    @tool(asks=True)
    def ask() -> None: ...

    assert (ask.approval, ask.asks, ask.editable) == ("none", True, False)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"approval": "sometimes"}, '"always" or "none", not \'sometimes\''),
        ({"approval": True}, "not True"),
        ({"editable": True}, "need approval='always'"),
        ({"approval_timeout": 5}, "need approval='always'"),
        ({"approval": "always", "approval_timeout": 0}, "above 0"),
        ({"approval": "always", "approval_timeout": float("inf")}, "not inf"),
        ({"approval": "always", "approval_timeout": "5"}, "not '5'"),
        ({"approval": "always", "asks": True}, "asks a person itself"),
        ({"at_most_once": True, "asks": True}, "asks a person itself"),
    ],
)
def test_options_about_people_that_do_not_fit_are_refused(
    options: dict[str, Any], message: str
) -> None:
    with pytest.raises(DefinitionError, match=message):
        tool(**options)(sum_up)


def sum_up(a: int, b: int = 0, tags: frozenset[str] = frozenset()) -> int:
    return a + b + len(tags)


def test_validated_arguments_as_json() -> None:
    summing = tool(sum_up)
    assert summing.dump(summing.validate('{"a": "1"}')) == {"a": 1, "b": 0, "tags": []}
    assert summing.has_sets


class Opaque:
    pass


def star(*values: int) -> None: ...
def stars(**values: int) -> None: ...
def positional(a: int, /) -> None: ...
def untyped(a) -> None: ...  # type: ignore[no-untyped-def]  # noqa: ANN001
def unknown(a: Nowhere) -> None: ...  # type: ignore[name-defined]  # noqa: F821
def unserialisable(a: Opaque) -> None: ...
def instance(a: 5) -> None: ...  # type: ignore[valid-type]
async def yielding(a: int) -> AsyncIterator[int]:
    yield a


@pytest.mark.parametrize(
    ("fn", "message"),
    [
        (star, "cannot be passed by name"),
        (stars, "cannot be passed by name"),
        (positional, "cannot be passed by name"),
        (untyped, "parameter 'a' needs a type"),
        (unknown, "cannot be resolved: name 'Nowhere'"),
        (unserialisable, r"'a', .*\.Opaque, cannot be described as JSON Schema; use values"),
        (instance, "the type of parameter 'a', 5, cannot be described as JSON Schema"),
        (yielding, "cannot yield"),
        (lambda: None, "the tool id '<lambda>'"),
        (3, "goes on a function"),
    ],
)
def test_a_function_that_cannot_be_a_tool_is_refused(fn: Any, message: str) -> None:
    with pytest.raises(DefinitionError, match=message):
        tool(fn)


def test_advice_about_models_is_not_shown_at_a_function() -> None:
    with pytest.raises(DefinitionError) as raised:
        tool(unserialisable)
    assert "arbitrary_types_allowed" not in "".join(traceback.format_exception(raised.value))
