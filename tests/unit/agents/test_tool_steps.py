"""Tools that use `ctx.step`: their bodies are children of the agent's run, and run again."""

from __future__ import annotations

import asyncio
import json
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest

from polos.v1.error_pb2 import FailureReason
from polos.v1.event_pb2 import Event
from polos.v1.run_pb2 import Wait
from polos_client.deadlines import Deadlines
from polos_client.define.agent import Agent
from polos_client.define.context import WorkflowContext
from polos_client.define.scripted import call, script, turn
from polos_client.define.tool import Tool, tool
from polos_client.errors import StepExecutionError
from polos_service.agents.body import Body
from polos_service.agents.loop import PARALLEL_TOOLS
from polos_service.caller import ANONYMOUS
from polos_service.limits import OUTPUT_LIMIT
from polos_service.store.sqlite import SqliteStore
from polos_service.tools.stint import Stint
from tests.support.agents import Recorder, played, use_cases
from tests.support.flows import kinds
from tests.support.people import Person, working
from tests.support.service import until
from tests.unit.agents.test_approval import YES, agent_of, failures, results

CHILD_CANCELLED = FailureReason.FAILURE_REASON_CHILD_CANCELLED
TIMEOUT = FailureReason.FAILURE_REASON_TOOL_TIMEOUT
UNKNOWN = FailureReason.FAILURE_REASON_TOOL_OUTCOME_UNKNOWN


def of(events: list[Event], run_id: str) -> list[str]:
    return kinds([one for one in events if one.run_id == run_id])


def children(events: list[Event]) -> list[str]:
    """Return the children of a root run, in the order of their starts."""
    return list(dict.fromkeys(one.run_id for one in events if one.HasField("parent_run_id")))


class Orders:
    """A tool that orders in two steps, and waits for a person between them.

    Attributes:
        done: what its steps did.
        began: how often its body began.

    """

    def __init__(self) -> None:
        self.done: list[str] = []
        self.began = 0

    def tool(self, **options: Any) -> Tool:
        @tool(**options)
        async def order(ctx: WorkflowContext, item: str) -> dict[str, Any]:
            self.began += 1
            price = await ctx.step.run("price", self._step, f"price {item}")
            answer = await ctx.step.suspend("agree", {"item": item, "price": price})
            await ctx.step.run("pay", self._step, f"pay {item} {ctx.attempt}")
            return {"item": item, "said": answer["data"]}

        return order

    def _step(self, what: str) -> int:
        self.done.append(what)
        return len(self.done)


async def test_a_body_with_steps_is_a_child_of_the_tool_s_step(store: SqliteStore) -> None:
    @tool
    async def order(ctx: WorkflowContext, item: str) -> str:
        assert ctx.execution_id == ctx.root_execution_id
        number = await ctx.step.run("count", len, item)
        await ctx.step.publish_workflow_event("tell", {"number": number}, "counted")
        with ctx.step.trace("part"):
            return f"{number} {len(await ctx.step.uuid('id'))}"

    model = Recorder()
    events = await played(store, agent_of([order], call("order", item="tea")), model)
    assert results(model) == ["3 36"]
    (child,) = children(events)
    assert child == f"{events[0].run_id}:{next(e.sequence for e in events if e.run_id == child)}"
    assert of(events, child) == [
        "workflow_start",
        "step_start count 1",
        "step_finish count 1",
        "step_start tell 1",
        "custom tell 1",
        "step_finish tell 1",
        "step_start id 1",
        "step_finish id 1",
        "workflow_finish",
    ]
    first = next(one for one in events if one.run_id == child)
    origin = first.parent_run_id, first.parent_step_key, first.parent_attempt
    assert (origin, first.workflow_id) == ((events[0].run_id, "order", 1), "order")


async def test_a_wait_in_a_body_parks_the_run_and_the_body_goes_on(store: SqliteStore) -> None:
    orders, model = Orders(), Recorder()
    agent = agent_of([orders.tool()], call("order", item="tea"))
    async with working(store, agent, model, threshold=0.02) as person:
        await person.parks()
        await person.answers("agree", "yes")
        events = await person.end()
    assert orders.done == ["price tea", "pay tea 1"]
    assert orders.began == 2
    assert json.loads(results(model)[0]) == {"item": "tea", "said": "yes"}
    assert not [one for one in kinds(events) if one.startswith("step_retry")]


async def test_a_body_with_steps_goes_on_after_a_crash(store: SqliteStore) -> None:
    orders, model = Orders(), Recorder()
    agent = agent_of([orders.tool()], call("order", item="tea"))
    async with working(store, agent) as person:
        await person.sees("agree")
    async with working(store, agent, model, person.run_id) as person:
        await person.answers("agree", "yes")
        events = await person.end()
    assert orders.done == ["price tea", "pay tea 1"]
    assert not [one for one in kinds(events) if one.startswith("step_retry")]
    assert len(children(events)) == 1


async def test_a_body_whose_end_is_in_the_log_does_not_run_again(
    store: SqliteStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    began, ended = Counter[str](), asyncio.Event()

    @tool
    async def count(ctx: WorkflowContext, way: str) -> str:
        began[way] += 1
        await ctx.step.run("step", str)
        if way == "fails":
            raise LookupError("nothing there")
        return "done"

    original = Body._end

    async def never_ends(self: Body, outcome: Any) -> None:
        await original(self, outcome)
        if sum(began.values()) == 2:
            ended.set()
        await asyncio.Event().wait()

    model = Recorder()
    agent = agent_of([count], call("count", way="ends"), call("count", way="fails"))
    with monkeypatch.context() as patch:
        patch.setattr(Body, "_end", never_ends)
        async with working(store, agent) as person:
            await ended.wait()
            await until(lambda: has(person, ["workflow_finish", "error"]), "ends of both")
    async with working(store, agent, model, person.run_id) as person:
        await person.end()
    assert began == {"ends": 1, "fails": 1}
    assert results(model) == ["done", "Error: The tool count raised LookupError: nothing there"]


async def waits(person: Person) -> list[Wait]:
    return list(await person.waits.open(ANONYMOUS, person.run_id))


async def all_open(person: Person, count: int) -> bool:
    return len(await waits(person)) == count


@pytest.mark.parametrize("way", ["ends", "is cancelled"])
async def test_a_body_that_asks_for_no_step_any_more(store: SqliteStore, way: str) -> None:
    began = asyncio.Event()

    @tool(id="order")
    async def changed(ctx: WorkflowContext, item: str) -> str:
        began.set()
        if way == "is cancelled":
            await asyncio.Event().wait()
        return item

    agents = [agent_of([one], call("order", item="tea")) for one in (Orders().tool(), changed)]
    async with working(store, agents[0]) as person:
        await person.sees("agree")
    async with working(store, agents[1], run_id=person.run_id) as person:
        await began.wait()
        if way == "is cancelled":
            await person.cancels()
        events = await person.end()
        assert await waits(person) == []
    (child,) = children(events)
    end = "workflow_finish" if way == "ends" else "run_cancelled"
    assert of(events, child)[-1] == end


async def has(person: Person, wanted: list[str]) -> bool:
    told = kinds(await person.events())
    return all(one in told for one in wanted)


async def test_parallel_calls_wait_each_alone(store: SqliteStore) -> None:
    orders, model = Orders(), Recorder()
    calls = [call("order", item=str(one)) for one in range(PARALLEL_TOOLS + 3)]
    async with working(store, agent_of([orders.tool()], *calls), model) as person:
        await until(lambda: all_open(person, len(calls)), "all calls to wait")
        for wait in reversed(await waits(person)):
            await person.replies(wait, json.loads(wait.data_json)["item"])
        await person.end()
    said = [json.loads(one) for one in results(model)]
    assert said == [{"item": str(one), "said": str(one)} for one in range(len(calls))]


async def test_an_approved_call_waits_in_its_body_too(store: SqliteStore) -> None:
    orders, model = Orders(), Recorder()
    agent = agent_of([orders.tool(approval="always", editable=True)], call("order", item="tea"))
    async with working(store, agent, model, threshold=0.02) as person:
        await person.parks()
        await person.answers("order/approve", {**YES, "arguments": {"item": "ink"}})
        await person.sees("agree")
        await person.parks()
        await person.answers("agree", 1)
        await person.end()
    assert orders.done == ["price ink", "pay ink 1"]
    assert results(model)[0].endswith('{"item":"ink","said":1}')


TOLD = {
    "step": "Error: The tool order failed: Step 'pay' failed: ValueError: invalid literal",
    "group": "Error: The tool order failed: 2 failures: no; never",
    "unknown": "Error: The tool order failed: Step 'pay' failed: There is no agent or workflow",
    "caught": "caught",
    "twice": "Error: The tool order raised ValueError: The step key 'a' is already used in run",
    "unbuilt": "Error: The tool order raised DefinitionError: ctx.step.wait_for_event is not built",
    "key": "Error: The tool order failed: The step key '' must be a string of 1 to 1024 bytes.",
}
"""What the model is told of a body that goes a way."""


async def test_what_a_step_fails_with_is_told_to_the_model(store: SqliteStore) -> None:
    @tool
    async def order(ctx: WorkflowContext, way: str) -> Any:
        match way:
            case "step":
                return await ctx.step.run("pay", int, "much", max_retries=0)
            case "group":
                failures = [StepExecutionError("no"), StepExecutionError("never")]
                raise ExceptionGroup("both", failures)
            case "unknown":
                return await ctx.step.invoke_and_wait("pay", "nothing")
            case "caught":
                try:
                    await ctx.step.run("pay", int, "much", max_retries=0)
                except StepExecutionError:
                    return "caught"
            case "twice":
                await ctx.step.uuid("a")
                return await ctx.step.uuid("a")
            case "unbuilt":
                return await ctx.step.wait_for_event("topic")  # type: ignore[attr-defined]
            case "key":
                return await ctx.step.uuid("")

    model = Recorder()
    calls = [call("order", way=way) for way in TOLD]
    events = await played(store, agent_of([order], *calls), model)
    assert [
        told for told, said in zip(TOLD.values(), results(model), strict=True) if told not in said
    ] == []
    assert kinds(events)[-1] == "agent_finish"


@pytest.mark.parametrize("size", [OUTPUT_LIMIT - 1, OUTPUT_LIMIT + 100_000])
async def test_a_body_that_returns_too_much_fails_as_its_child_does(
    store: SqliteStore, size: int
) -> None:
    @tool
    async def long(ctx: WorkflowContext) -> str:
        await ctx.step.run("count", len, "tea")
        return "x" * size

    model = Recorder()
    events = await played(store, agent_of([long], call("long")), model)
    (child,) = children(events)
    assert of(events, child)[-1] == "error"
    end = next(one.error for one in events if one.run_id == child and one.HasField("error"))
    assert f"The output has {size + 2} bytes, the limit is {OUTPUT_LIMIT}." in end.message
    assert results(model) == [f"Error: {end.message}"]


async def test_a_tool_that_must_not_run_twice_has_steps_but_no_waits(store: SqliteStore) -> None:
    @tool(at_most_once=True)
    async def order(ctx: WorkflowContext, way: str) -> Any:
        if way == "waits":
            return await ctx.step.wait_for("nap", seconds=1)
        return await ctx.step.run("pay", str, "paid")

    model = Recorder()
    calls = call("order", way="waits"), call("order", way="steps")
    await played(store, agent_of([order], *calls), model)
    refused, paid = results(model)
    assert "The tool order is at_most_once and cannot use ctx.step.wait_for" in refused
    assert paid == "paid"


async def test_an_interrupted_tool_that_must_not_run_twice(store: SqliteStore) -> None:
    began: list[int] = []

    @tool(at_most_once=True)
    async def order(ctx: WorkflowContext) -> None:
        began.append(ctx.attempt)
        await ctx.step.run("reserve", str)
        await asyncio.Event().wait()

    model = Recorder()
    agent = agent_of([order], call("order"))
    async with working(store, agent) as person:
        await until(lambda: has(person, ["step_finish reserve 1"]), "a step")
    async with working(store, agent, model, person.run_id) as person:
        events = await person.end()
    assert began == [1]
    assert failures(events)["order"] == UNKNOWN
    (child,) = children(events)
    assert of(events, child)[-1] == "run_cancelled"


async def test_a_body_that_takes_too_long_ends_with_all_it_began(store: SqliteStore) -> None:
    @tool
    async def order(ctx: WorkflowContext) -> None:
        waiting = asyncio.create_task(ctx.step.run("hang", asyncio.Event().wait))
        await waiting

    text = script(turn(call("order")), "done")
    agent = Agent("a", "scripted", text, tools=[order], deadlines=Deadlines(tool_call=0.05))
    events = await played(store, agent)
    assert failures(events) == {
        "hang": FailureReason.FAILURE_REASON_STEP_CANCELLED,
        "order": TIMEOUT,
    }
    (child,) = children(events)
    assert of(events, child)[-1] == "error"


async def test_a_body_that_ends_first_leaves_nothing_open(store: SqliteStore) -> None:
    tasks = []

    @tool
    async def order(ctx: WorkflowContext) -> str:
        tasks.append(asyncio.create_task(ctx.step.run("hang", asyncio.Event().wait)))
        await ctx.step.uuid("id")
        return "done"

    events = await played(store, agent_of([order], call("order")))
    (child,) = children(events)
    assert of(events, child)[-2:] == ["step_failed hang 1", "workflow_finish"]


async def test_a_cancel_reaches_the_body(store: SqliteStore) -> None:
    orders = Orders()
    agent = agent_of([orders.tool()], call("order", item="tea"), call("order", item="ink"))
    async with working(store, agent) as person:
        await until(lambda: all_open(person, 2), "both calls to wait")
        await person.cancels()
        events = await person.end()
        assert await waits(person) == []
    assert kinds(events)[-3:] == ["run_cancelled"] * 3
    assert [one.run_id for one in events[-3:]] == [*children(events), events[0].run_id]


@pytest.mark.parametrize("threshold", [0.02, 60.0])
async def test_a_body_that_is_cancelled_alone(store: SqliteStore, threshold: float) -> None:
    orders, model = Orders(), Recorder()
    calls = call("order", item="tea"), call("order", item="ink")
    agent = agent_of([orders.tool()], *calls)
    async with working(store, agent, model, threshold=threshold) as person:
        await until(lambda: all_open(person, 2), "both calls to wait")
        if threshold < 1:
            await person.parks()
        tea = next(one for one in await waits(person) if json.loads(one.data_json)["item"] == "tea")
        await use_cases(store, person.agents).cancel(ANONYMOUS, tea.run_id)
        await until(lambda: all_open(person, 1), "one wait to be over")
        await person.answers("agree", "yes")
        events = await person.end()
    cancelled, ended = results(model)
    assert cancelled == f"Error: The child run {tea.run_id} was cancelled."
    assert json.loads(ended) == {"item": "ink", "said": "yes"}
    assert CHILD_CANCELLED in failures(events).values()
    assert of(events, tea.run_id)[-1] == "run_cancelled"
    assert "pay tea 1" not in orders.done


class Working:
    """What counts how often code works."""

    def __init__(self) -> None:
        self.now = self.begun = 0

    @contextmanager
    def __call__(self) -> Iterator[None]:
        self.now += 1
        self.begun += 1
        yield
        self.now -= 1


async def test_time_away_is_not_counted() -> None:
    went = asyncio.Event()
    places, at_work = asyncio.Semaphore(1), Working()

    async def work(stint: Stint) -> None:
        async with stint.away():
            assert not places.locked()
            await asyncio.sleep(0.1)
            went.set()
        assert places.locked()
        await asyncio.Event().wait()

    async with Stint(places, at_work) as stint:
        limit = stint.limit(0.05)
        task = asyncio.create_task(work(stint))
        assert await limit.reached(task)
        assert went.is_set()
        task.cancel()
        await asyncio.wait({task})
        assert (at_work.now, at_work.begun) == (1, 2)
    assert at_work.now == 0
    assert not places.locked()
