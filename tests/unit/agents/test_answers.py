"""Agents with an output schema: what an answer has to be, and what follows if it is not."""

from __future__ import annotations

import json
import threading
from decimal import Decimal
from typing import Any, Literal

import pytest
from pydantic import BaseModel, Field, field_validator

from polos.v1.error_pb2 import FailureReason
from polos.v1.event_pb2 import AgentFinish, Error, Event, FinishReason
from polos_client.deadlines import Deadlines
from polos_client.define.agent import Agent
from polos_client.define.scripted import call, finish, pause, say, script, turn, usage
from polos_client.define.stop import max_steps
from polos_client.define.tool import tool
from polos_client.fold import RunAccumulator
from polos_client.typed import name_of
from polos_service.models import ModelAnswer
from polos_service.models.messages import Text
from polos_service.store.sqlite import SqliteStore
from tests.support.agents import Recorder, catalog, played, started
from tests.support.runs import executing, kinds
from tests.support.stores import all_events, until

INVALID = FailureReason.FAILURE_REASON_OUTPUT_INVALID
REFUSED = FailureReason.FAILURE_REASON_MODEL_REFUSED
CUT = FailureReason.FAILURE_REASON_MODEL_CUT_SHORT


class Order(BaseModel):
    item: str
    count: int = Field(ge=1)
    price: Decimal | None = None

    @field_validator("item")
    @classmethod
    def _known(cls, value: str) -> str:
        if value == "secret":
            raise ValueError(f"{value} is not sold")
        return value


TEA = '{"item": "tea", "count": 2}'
BAD = '{"item": "secret", "count": "many"}'


@tool
def stock(item: str) -> int:
    return 3


def agent(*turns: Any, **more: Any) -> Agent:
    return Agent("a", "scripted", script(*turns), output_schema=Order, **more)


def end_of(events: list[Event]) -> AgentFinish:
    assert events[-1].HasField("agent_finish"), events[-1]
    return events[-1].agent_finish


def error_of(events: list[Event]) -> Error:
    assert events[-1].HasField("error"), events[-1]
    return events[-1].error


def folded(events: list[Event]) -> RunAccumulator:
    found = RunAccumulator(events[0].run_id)
    found.add(events)
    return found


async def test_a_valid_answer_is_the_result(store: SqliteStore) -> None:
    model = Recorder()
    events = await played(store, agent(say([TEA[:9], TEA[9:]])), model)
    end = end_of(events)
    assert (end.result, end.result_schema, end.result_is_json) == (TEA, name_of(Order), True)
    assert end.finish_reason == FinishReason.FINISH_REASON_STOP
    assert events[0].agent_start.output_schema_name == name_of(Order)
    (step,) = [one.step_finish for one in events if one.HasField("step_finish")]
    assert (step.result_schema, step.HasField("invalid_output")) == (name_of(Order), False)
    result = folded(events).result()
    assert result.result == Order(item="tea", count=2)
    assert result.result_schema == name_of(Order)
    (request,) = model.requests
    assert request.output is not None
    assert (request.output.name, request.output.schema) == ("Order", Order.model_json_schema())


async def test_an_invalid_answer_is_repaired_once_without_tools(store: SqliteStore) -> None:
    model = Recorder()
    turns = (
        turn(say([BAD]), usage(input_tokens=10, output_tokens=5)),
        turn(say([TEA]), usage(input_tokens=20, output_tokens=5)),
    )
    events = await played(store, agent(*turns, tools=[stock]), model)
    assert kinds(events) == [
        *("agent_start", "step_start llm:1/1", "text_delta llm:1/1", "step_finish llm:1/1"),
        *("step_start llm:2/1", "text_delta llm:2/1", "step_finish llm:2/1", "agent_finish"),
    ]
    end = end_of(events)
    assert (end.result, end.total_steps, end.usage.total_tokens) == (TEA, 2, 40)
    first = events[3].step_finish
    told = {one.path: one.rule for one in first.invalid_output.violations}
    assert told == {"item": "Value error", "count": "Input should be a valid integer"}
    assert (first.result_schema, first.usage.total_tokens) == ("", 15)
    repair = model.requests[1]
    assert not repair.tools
    assert repair.messages[-2].text == BAD
    assert "item: Value error, secret is not sold" in repair.messages[-1].text
    assert 'count: Input should be a valid integer (got "many")' in repair.messages[-1].text
    assert json.dumps(Order.model_json_schema()) in repair.messages[-1].text
    assert folded(events).text == TEA


async def test_a_second_invalid_answer_fails_with_paths_and_rules_only(store: SqliteStore) -> None:
    events = await played(store, agent(BAD, BAD))
    error = error_of(events)
    assert (error.reason, error.retryable, error.total_steps) == (INVALID, False, 2)
    assert error.message == (
        "The model's answer does not conform to the output schema: item: Value error; "
        "count: Input should be a valid integer."
    )
    assert folded(events).text == ""


@pytest.mark.parametrize("answer", ["", "  \n", "Sure!", f"```json\n{TEA}\n```", TEA[:-1], "null"])
async def test_what_is_not_the_json_alone_is_invalid(store: SqliteStore, answer: str) -> None:
    model = Recorder(answers={1: _answer(answer)})
    events = await played(store, agent("-", TEA), model)
    assert (end_of(events).result, end_of(events).total_steps) == (TEA, 2)
    said = [one.text for one in model.conversation if one.role == "assistant"]
    assert said == ([answer] if answer else [])


@pytest.mark.parametrize("text", ["", TEA[:9], TEA])
@pytest.mark.parametrize("streaming", [True, False])
async def test_a_cut_answer_is_not_repaired(
    store: SqliteStore, text: str, *, streaming: bool
) -> None:
    said = [say(text)] if text else []
    events = await played(
        store,
        agent(turn(*said, finish("length"), usage(input_tokens=1, output_tokens=2))),
        streaming=streaming,
    )
    error = error_of(events)
    assert (error.reason, error.retryable, error.total_steps) == (CUT, False, 1)
    assert error.usage.total_tokens == 3
    (step,) = [one.step_finish for one in events if one.HasField("step_finish")]
    assert json.loads(step.result_json)["content"] == text
    assert not step.HasField("invalid_output")


@pytest.mark.parametrize(
    ("reason", "message"),
    [
        ("refusal", "The model refused to answer: I cannot say that."),
        ("content_filter", "The provider's content filter withheld the answer: I cannot say that."),
    ],
)
async def test_a_refusal_is_one_call(store: SqliteStore, reason: Any, message: str) -> None:
    events = await played(store, agent(turn("I cannot say that.", finish(reason))))
    error = error_of(events)
    assert (error.reason, error.message, error.total_steps) == (REFUSED, message, 1)


async def test_an_answer_after_tools_is_held_to_the_schema(store: SqliteStore) -> None:
    model = Recorder()
    asks = turn("Let me look. ", call("stock", item="tea"))
    events = await played(store, agent(asks, TEA, tools=[stock]), model)
    assert end_of(events).result == TEA
    assert folded(events).text == TEA
    assert [one.output is not None for one in model.requests] == [True, True]
    assert [bool(one.tools) for one in model.requests] == [True, True]


async def test_a_stop_condition_is_followed_by_the_answer(store: SqliteStore) -> None:
    model = Recorder()
    turns = (call("stock", item="tea"), TEA)
    events = await played(
        store, agent(*turns, tools=[stock], stop_conditions=[max_steps(count=1)]), model
    )
    end = end_of(events)
    assert (end.result, end.result_schema, end.total_steps) == (TEA, name_of(Order), 2)
    assert (end.finish_reason, end.stop_condition) == (
        FinishReason.FINISH_REASON_STOP_CONDITION,
        "max_steps",
    )
    assert not model.requests[1].tools
    assert model.conversation[-1].role == "user"


async def test_a_repair_that_calls_a_tool_is_invalid(store: SqliteStore) -> None:
    events = await played(store, agent("no", call("stock", item="tea"), tools=[stock]))
    assert error_of(events).reason == INVALID
    started = [one.step_start.step_type for one in events if one.HasField("step_start")]
    assert started == ["llm", "llm"]


async def test_values_are_exact(store: SqliteStore) -> None:
    text = '{"item": "tea", "count": 9007199254740993, "price": 12.10}'
    events = await played(store, agent(text))
    assert end_of(events).result == text
    result = folded(events).result().result
    assert (result.count, str(result.price)) == (2**53 + 1, "12.10")


class Cat(BaseModel):
    kind: Literal["cat"]
    lives: int


class Dog(BaseModel):
    kind: Literal["dog"]
    tricks: list[str]


class Owner(BaseModel):
    pet: Cat | Dog = Field(discriminator="kind")


@pytest.mark.parametrize(
    ("bad", "violations"),
    [
        ('{"pet": {"kind": "cow"}}', {"pet": "The tag 'kind' should be one of 'cat', 'dog'"}),
        ('{"pet": {"kind": "cat", "tricks": []}}', {"pet.cat.lives": "Field required"}),
        ('{"pet": []}', {"pet": "Input should be an object"}),
    ],
)
async def test_a_wrong_variant_is_repaired(
    store: SqliteStore, bad: str, violations: dict[str, str]
) -> None:
    good = '{"pet": {"kind": "cat", "lives": 9}}'
    pets = Agent("pets", "scripted", script(bad, good), output_schema=Owner)
    events = await played(store, pets)
    (first, _) = [one.step_finish for one in events if one.HasField("step_finish")]
    assert {one.path: one.rule for one in first.invalid_output.violations} == violations
    assert folded(events).result().result == Owner(pet=Cat(kind="cat", lives=9))


class Unsteady(BaseModel):
    n: int
    judged: int = 0

    @field_validator("n")
    @classmethod
    def _counts(cls, value: int) -> int:
        CALLS.append(value)
        if value < 0:
            raise RuntimeError("the database is away")
        return value


CALLS: list[int] = []


async def test_an_answer_is_judged_once_and_a_validator_that_fails_is_a_violation(
    store: SqliteStore,
) -> None:
    CALLS.clear()
    agents = catalog(
        Agent("u", "scripted", script('{"n": -1}', '{"n": 1.0}'), output_schema=Unsteady)
    )
    async with executing(store, agents):
        events = await all_events(store, await started(store, agents))
    assert CALLS == [-1]
    (first, second) = [
        one.step_finish.invalid_output for one in events if one.HasField("step_finish")
    ]
    assert [one.rule for one in first.violations] == ["Validating it raised RuntimeError"]
    assert [one.rule for one in second.violations] == ["Input should be a valid integer"]


async def test_a_validator_that_hangs_ends_the_run(store: SqliteStore) -> None:
    release = threading.Event()

    class Slow(BaseModel):
        n: int

        @field_validator("n")
        @classmethod
        def _waits(cls, value: int) -> int:
            release.wait()
            return value

    text = '{"n": 1}'
    limits = Deadlines(tool_call=0.05)
    slow = Agent("s", "scripted", script(text, text), output_schema=Slow, deadlines=limits)
    try:
        error = error_of(await played(store, slow))
    finally:
        release.set()
    assert error.reason == INVALID
    assert "Validating it takes longer than 0.05 s" in error.message


async def test_a_run_goes_on_with_the_repair_after_a_crash(store: SqliteStore) -> None:
    held = script(turn(say([BAD]), usage(input_tokens=10, output_tokens=5)), turn(pause()))
    asked = Recorder()
    agents = catalog(Agent("a", "scripted", held, output_schema=Order), model=asked)
    async with executing(store, agents):
        run_id = await started(store, agents)
        await until(lambda: len(asked.requests) == 2)
    model = Recorder(answers={2: _answer(TEA)})
    async with executing(store, catalog(agent("never"), model=model)):
        events = await all_events(store, run_id)
    end = end_of(events)
    assert (end.result, end.total_steps) == (TEA, 2)
    (repair,) = model.requests
    assert repair.turn == 2
    assert "secret is not sold" in repair.messages[-1].text
    assert repair.messages[-2].text == BAD


async def test_a_schema_that_is_gone_fails_the_run(store: SqliteStore) -> None:
    asked = Recorder()
    waits = Agent("a", "scripted", script(turn(pause())), output_schema=Order)
    agents = catalog(waits, model=asked)
    async with executing(store, agents):
        run_id = await started(store, agents)
        await until(lambda: len(asked.requests) == 1)
    async with executing(store, catalog(Agent("a", "scripted", script("x")))):
        events = await all_events(store, run_id)
    error = error_of(events)
    assert error.reason == FailureReason.FAILURE_REASON_CODE_MISSING
    assert name_of(Order) in error.message


async def test_the_schema_of_a_type_that_is_no_model(store: SqliteStore) -> None:
    orders = Agent("o", "scripted", script(f"[{TEA}]"), output_schema=list[Order])
    events = await played(store, orders)
    end = end_of(events)
    assert (end.result_schema, end.result_is_json) == ("", True)
    assert folded(events).result(list[Order]).result == [Order(item="tea", count=2)]
    assert folded(events).result().result == [json.loads(TEA)]


def _answer(text: str) -> ModelAnswer:
    return ModelAnswer(
        parts=[Text(text=text)] if text else [], finish_reason=FinishReason.FINISH_REASON_STOP
    )
