"""A run that is taken up again: the same result, whatever was lost and whatever code says now."""

from __future__ import annotations

import asyncio
import tempfile
from collections import Counter
from pathlib import Path
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st

from polos.v1.error_pb2 import FailureReason
from polos.v1.event_pb2 import Event
from polos_client.define.agent import Agent
from polos_client.define.context import WorkflowContext
from polos_client.define.scripted import call, fail, say, script, turn
from polos_client.define.stop import StopConditionContext, max_steps, stop_condition
from polos_client.define.tool import Tool, tool
from polos_service.store import ENDED
from polos_service.store.sqlite import SqliteStore
from tests.support.agents import Recorder, catalog, serving, started
from tests.support.runs import FakeClock, executing, kinds, opened
from tests.support.stores import HeldStore, all_events, events_of, settled, soon, until


@stop_condition
def custom(ctx: StopConditionContext) -> bool:
    return False


def slow() -> tuple[Tool, asyncio.Event]:
    """Return a tool that waits for ever the first time, and an event that it has begun."""
    begun = asyncio.Event()

    @tool(id="slow")
    async def wait() -> str:
        if begun.is_set():
            return "slow"
        begun.set()
        await asyncio.Event().wait()
        raise AssertionError

    return wait, begun


async def interrupted(store: SqliteStore, begun: asyncio.Event, agent: Agent) -> str:
    """Run an agent until its slow tool runs, then let go of the run."""
    async with serving(store, agent) as agents:
        run_id = await started(store, agents)
        await soon(begun.wait())
    return run_id


async def resumed(store: SqliteStore, run_id: str, agent: Agent, model: Any = None) -> list[Event]:
    async with executing(store, catalog(agent, model=model)):
        return await all_events(store, run_id)


SCRIPT = script(turn("first", call("slow")), turn("second", call("added")), "third")


async def test_a_run_keeps_the_definition_it_was_started_with(store: SqliteStore) -> None:
    one, begun = slow()
    before = Agent(
        "a", "scripted", SCRIPT, system_prompt="old", tools=[one], temperature=0.1,
        max_output_tokens=7, stop_conditions=[max_steps(count=5)],
    )  # fmt: skip
    run_id = await interrupted(store, begun, before)
    after = Agent(
        "a", "scripted", script("other"), system_prompt="new", tools=[one], temperature=0.9,
        max_output_tokens=9, stop_conditions=[max_steps(count=1)],
    )  # fmt: skip
    model = Recorder()
    events = await resumed(store, run_id, after, model)
    assert events[-1].agent_finish.result == "third"
    assert (model.conversation[0].role, model.conversation[0].text) == ("system", "old")
    (last,) = model.requests[-1:]
    assert (last.model, last.temperature, last.max_output_tokens) == (SCRIPT, 0.1, 7)
    assert [one["name"] for one in last.tools] == ["slow"]
    assert kinds(events).count("agent_start") == 1


async def test_a_tool_added_later_is_none_of_an_older_run_s(store: SqliteStore) -> None:
    one, begun = slow()
    called: list[int] = []

    @tool
    def added() -> None:
        called.append(1)

    run_id = await interrupted(store, begun, Agent("a", "scripted", SCRIPT, tools=[one]))
    after = Agent("a", "scripted", SCRIPT, tools=[one, added])
    events = await resumed(store, run_id, after)
    assert events[-1].agent_finish.result == "third"
    assert called == []


async def test_a_tool_that_is_gone_is_a_failed_result(store: SqliteStore) -> None:
    one, begun = slow()
    run_id = await interrupted(store, begun, Agent("a", "scripted", SCRIPT, tools=[one]))
    events = await resumed(store, run_id, Agent("a", "scripted", SCRIPT))
    assert events[-1].agent_finish.result == "third"
    failures = {e.step_finish.step_key: e.step_finish.failure.reason for e in events}
    assert failures["slow"] == FailureReason.FAILURE_REASON_TOOL_NOT_FOUND


async def test_a_stop_condition_that_is_gone_fails_the_run(store: SqliteStore) -> None:
    one, begun = slow()
    before = Agent("a", "scripted", SCRIPT, tools=[one], stop_conditions=[custom])
    run_id = await interrupted(store, begun, before)
    events = await resumed(store, run_id, Agent("a", "scripted", SCRIPT, tools=[one]))
    assert events[-1].error.reason == FailureReason.FAILURE_REASON_CODE_MISSING
    assert "'custom'" in events[-1].error.message


async def test_a_run_waits_for_its_agent_to_be_loaded(store: SqliteStore) -> None:
    one, begun = slow()
    agent = Agent("a", "scripted", SCRIPT, tools=[one])
    run_id = await interrupted(store, begun, agent)
    async with executing(store, catalog(Agent("b", "scripted", script("other")))):
        await settled()
        assert (await store.get("default", run_id)).state not in ENDED
    assert (await resumed(store, run_id, agent))[-1].agent_finish.result == "third"


def play(executed: list[str]) -> Agent:
    """Return an agent with retries, failures and parallel tools, which notes what it runs."""

    @tool
    async def note(ctx: WorkflowContext, name: str) -> str:
        executed.append(ctx.step_key)
        await asyncio.sleep(0)
        return name.upper()

    @tool
    def broken(ctx: WorkflowContext) -> None:
        executed.append(ctx.step_key)
        raise ValueError("broken")

    text = script(
        turn(say(["one ", "two "]), call("note", name="x"), call("note", name="y")),
        turn("wrong", fail(), retried=["right ", call("broken"), call("note", name="z")]),
        turn(say(["three ", "four"])),
    )
    return Agent("a", "scripted", text, tools=[note, broken])


def text_of(events: list[Event]) -> str:
    """Return the text that stands: of the last attempt of each step."""
    retries = [event.step_retry for event in events if event.HasField("step_retry")]
    valid = Counter({retry.step_key: retry.attempt for retry in retries})
    deltas = [event.text_delta for event in events if event.HasField("text_delta")]
    return "".join(one.content for one in deltas if one.attempt >= valid[one.step_key])


def finished(events: list[Event]) -> dict[str, str]:
    """Return the outcome of each finished step, and check that each finished once."""
    finishes = [event.step_finish for event in events if event.HasField("step_finish")]
    outcomes = {one.step_key: one.result_json or one.failure.message for one in finishes}
    assert len(outcomes) == len(finishes)
    return outcomes


async def crashed(path: Path, run_id: str | None, agent: Agent, appends: int) -> str:
    """Drive the run for so many appends, and no further."""
    store = await HeldStore.open(path)
    store.allow(appends)
    agents = catalog(agent)
    try:
        async with executing(store, agents, clock=FakeClock()):
            run = run_id or await started(store, agents)
            state = await store.get("default", run)
            if state.state not in ENDED:
                await until(lambda: len(store.asked) > appends or any(map(last, store.asked)))
        return run
    finally:
        await store.close()


def last(frame: Any) -> bool:
    return frame.outcome is not None


EXPECTED_STEPS = {
    "llm:1": "one two ",
    "note": '"X"',
    "note:2": '"Y"',
    "llm:2": "right ",
    "broken": "The tool broken raised ValueError: broken",
    "note:3": '"Z"',
    "llm:3": "three four",
}


@settings(max_examples=20, deadline=None)
@given(crashes=st.lists(st.integers(0, 16), min_size=1, max_size=3))
async def test_wherever_it_crashes_a_run_ends_as_if_it_had_not(crashes: list[int]) -> None:
    executed: list[str] = []
    agent, run_id = play(executed), None
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "runs.db"
        for appends in crashes:
            executed.clear()
            before = await recorded(path, run_id)
            run_id = await crashed(path, run_id, agent, appends)
            assert before.isdisjoint(executed), "a finished step never runs again"
        before = await recorded(path, run_id)
        executed.clear()
        async with (
            opened(Path(folder)) as store,
            executing(store, catalog(agent), clock=FakeClock()),
        ):
            assert run_id is not None
            events = await all_events(store, run_id)
    tools = {"note", "note:2", "note:3", "broken"}
    assert sorted(executed) == sorted(tools - before), "the others run, and run once"
    assert text_of(events) == "one two right three four"
    assert events[-1].agent_finish.result == "three four"
    assert events[-1].agent_finish.total_steps == 3
    outcomes = finished(events)
    assert set(outcomes) == set(EXPECTED_STEPS)
    assert all(expected in outcomes[key] for key, expected in EXPECTED_STEPS.items())
    assert kinds(events).count("agent_start") == 1


async def recorded(path: Path, run_id: str | None) -> set[str]:
    """Return the keys of the steps that the log says have finished."""
    if run_id is None:
        return set()
    async with opened(path.parent) as store:
        return set(finished(await events_of(store, run_id)))
