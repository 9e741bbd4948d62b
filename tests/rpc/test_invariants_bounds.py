"""Invariants 10 to 12: what never leaves the service, whose it is, and how large it gets."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest
import structlog.testing

from polos.v1 import agent_service_pb2 as agents_pb
from polos.v1 import run_service_pb2 as pb
from polos.v1.error_pb2 import FailureReason
from polos.v1.run_pb2 import RunOptions, RunState
from polos_client.define.agent import Agent
from polos_client.define.scripted import call, pause, say, turn
from polos_client.define.stop import StopConditionContext, stop_condition
from polos_client.define.tool import tool
from polos_client.errors import RunNotFound
from polos_service.limits import EVENT_LIMIT
from polos_service.logs import log_to_stderr
from polos_service.store import CANCEL, Command, RunQuery
from polos_service.store.sqlite import SqliteStore
from tests.support.control import Gate
from tests.support.mock_answers import call as ask
from tests.support.mock_answers import say as answer
from tests.support.mock_answers import status
from tests.support.mock_provider import MockProvider
from tests.support.service import Served, answer_of, query, scripted, serving, stored
from tests.support.wire import event_bytes

KEY = "sk-planted-key-0123456789"
PROMPT = "planted-system-prompt"
STATE = "planted-initial-state"
EXCEPTION = "planted-exception-text"


@stop_condition
def broken(ctx: StopConditionContext) -> bool:
    """Raise what nobody expects."""
    raise RuntimeError(EXCEPTION)


async def everything_served(served: Served, agent_id: str) -> tuple[str, bytes]:
    """Run the agent; return the run's id and the bytes of every answer there is about it."""
    options = RunOptions(initial_state_json=json.dumps({"secret": STATE}))
    start = pb.StreamRunRequest(agent_id=agent_id, input="Go.", options=options)
    live = served.runs.StreamRun(start)
    parts = [response.SerializeToString() async for response in live]
    run_id = str((await live.initial_metadata())["polos-run-id"])
    parts += [response async for response in served.raw(run_id)]
    answers: list[Any] = [
        await served.runs.GetRun(pb.GetRunRequest(run_id=run_id)),
        await served.runs.CancelRun(pb.CancelRunRequest(run_id=run_id)),
        await served.runs.ListRuns(pb.ListRunsRequest()),
        await served.agents.GetAgent(agents_pb.GetAgentRequest(agent_id=agent_id)),
        await served.agents.ListAgents(agents_pb.ListAgentsRequest()),
    ]
    return run_id, b"".join([*parts, *(one.SerializeToString() for one in answers)])


def demo(**more: Any) -> Agent:
    """Return an agent of a provider over HTTP, with a secret prompt."""
    return Agent("demo", "openai", "mock", system_prompt=PROMPT, **more)


async def test_no_secret_is_in_any_byte_that_is_served(tmp_path: Path) -> None:
    gate = Gate()
    gate.opened.set()
    agent = demo(tools=[gate.tool], stop_conditions=[broken])
    async with MockProvider() as provider:
        provider.reply(answer("Hello"), ask("gate", {}))
        known = {"openai_base_url": provider.url, "openai_api_key": KEY}
        async with serving(tmp_path, agent, **known) as served:
            with structlog.testing.capture_logs() as logs:
                run_id, data = await everything_served(served, "demo")
            log = stored(served.path, run_id)
    assert provider.requests[0].headers["authorization"] == f"Bearer {KEY}"
    assert provider.requests[0].body["messages"][0]["content"] == PROMPT
    assert b"Hello" in data
    for secret in (KEY, PROMPT, STATE, EXCEPTION, "Traceback", "RuntimeError", __file__):
        assert secret.encode() not in data + log, f"{secret} was served"
    (entry,) = [entry for entry in logs if entry["event"] == "run_failed"]
    assert entry["error_id"].encode() in data, "nobody finds the log's entry"


@pytest.mark.parametrize("code", [400, 401, 429, 500])
async def test_a_provider_that_quotes_its_key_does_not_get_it_served(
    tmp_path: Path, code: int
) -> None:
    agent = demo()
    async with MockProvider() as provider:
        for _ in range(3):
            provider.reply(status(code, {"error": {"message": f"Incorrect API key: {KEY}"}}))
        known = {"openai_base_url": provider.url, "openai_api_key": KEY}
        async with serving(tmp_path, agent, **known) as served:
            run_id, data = await everything_served(served, "demo")
            assert answer_of(await served.events(run_id)).error.message
    for secret in (KEY, KEY.removeprefix("sk-"), PROMPT, "Traceback"):
        assert secret.encode() not in data, f"{secret} was served"


async def test_everything_stored_belongs_to_a_project(tmp_path: Path) -> None:
    agent = scripted("fine")
    async with serving(tmp_path, agent) as served:
        run_id = await served.start(agent, request_id="once")
        await served.events(run_id)
        assert query(served.path, "SELECT DISTINCT project FROM runs") == [("default",)]
        store = served.store
        for ask in reads_of(store, run_id):
            with pytest.raises(RunNotFound):
                await ask("another")
        assert await store.list("another", RunQuery(limit=10)) == []
        assert [run.run_id for run in await store.list("default", RunQuery(limit=10))] == [run_id]


def reads_of(store: SqliteStore, run_id: str) -> list[Callable[[str], Awaitable[object]]]:
    """Return what can be asked of the store about a run, in a project."""
    return [
        lambda project: store.get(project, run_id),
        lambda project: store.read(project, run_id, 0, 1),
        lambda project: store.wait(project, run_id, 0),
        lambda project: store.command(
            project, run_id, Command(id=CANCEL, kind=CANCEL, run_id=run_id)
        ),
        lambda project: store.delete(project, run_id),
    ]


@tool
async def fill(size: int) -> str:
    """Return so many characters."""
    return "x" * size


def filling(size: int, times: int = 20) -> Agent:
    """Return an agent whose model calls the tool so often in one turn."""
    return scripted(turn(*(call("fill", size=size) for _ in range(times))), "done", tools=(fill,))


async def test_a_run_with_20_tools_that_each_return_too_much_ends_properly(tmp_path: Path) -> None:
    agent = filling(500_000)
    async with serving(tmp_path, agent) as served:
        stream = await agent.stream(served.client, "Go.")
        result = await stream.result()
        assert result.result == "done"
        assert [one.status for one in result.tool_results] == ["failed"] * 20
        assert "500002 bytes, the limit is 491520" in str(result.tool_results[0].error)
        events = await served.events(stream.id)
        reasons = {event.step_finish.failure.reason for event in events} - {0}
        assert reasons == {FailureReason.FAILURE_REASON_OUTPUT_TOO_LARGE}
        assert answer_of(events).ByteSize() < 1024


async def test_a_failure_of_a_tool_is_told_to_the_model(tmp_path: Path) -> None:
    agent = demo(tools=[fill])
    async with MockProvider() as provider:
        provider.reply(ask("fill", {"size": 500_000}))
        provider.reply(answer("I see."))
        known = {"openai_base_url": provider.url, "openai_api_key": KEY}
        async with serving(tmp_path, agent, **known) as served:
            result = await agent.run(served.client, "Go.")
    told = provider.requests[1].body["messages"][-1]
    assert result.result == "I see."
    assert told["role"] == "tool"
    assert told["content"].startswith("Error: The output has 500002 bytes, the limit is 491520.")


async def test_20_large_results_fit_and_the_terminal_event_does_not_grow(tmp_path: Path) -> None:
    agent = filling(400_000)
    async with serving(tmp_path, agent) as served:
        stream = await agent.stream(served.client, "Go.")
        result = await stream.result()
        assert [len(one.result) for one in result.tool_results] == [400_000] * 20
        got = await served.runs.GetRun(pb.GetRunRequest(run_id=stream.id))
        assert got.ByteSize() < 4 * 1024 * 1024
        assert len(got.run.tool_results) + got.run.tool_results_omitted == 20
        assert (len(got.run.tool_results), got.run.tool_results_omitted) == (2, 18)
        assert got.run.outcome.ByteSize() < 1024
        whole = await stream.get()
        assert whole["result"].tool_results == result.tool_results


async def test_no_event_exceeds_512_kib(tmp_path: Path) -> None:
    limit = 480 * 1024
    agent = scripted(
        turn("x" * (limit - 4096), call("fill", size=limit - 2)),
        say(["é" * 1000] * 200),
        tools=(fill,),
    )
    async with serving(tmp_path, agent) as served:
        run_id = await served.start(agent)
        assert answer_of(await served.events(run_id)).HasField("agent_finish")
        sizes = [len(data) for data in event_bytes(stored(served.path, run_id))]
        assert limit < max(sizes) <= EVENT_LIMIT == 512 * 1024


@pytest.mark.parametrize(
    "part", [say(["x" * 250_000] * 2), call("fill", raw='"' + "x" * 600_000), "x" * 600_000]
)
async def test_an_answer_that_exceeds_an_event_stands_in_several(tmp_path: Path, part: Any) -> None:
    agent = scripted(turn(part), "done", tools=(fill,))
    async with serving(tmp_path, agent) as served:
        run_id = await served.start(agent)
        assert answer_of(await served.events(run_id)).HasField("agent_finish")
        sizes = [len(data) for data in event_bytes(stored(served.path, run_id))]
        assert max(sizes) <= EVENT_LIMIT


@tool
async def not_a_number() -> float:
    """Return what JSON has no word for."""
    return float("nan")


@tool
async def half_a_character() -> str:
    """Raise with a text that no UTF-8 can hold."""
    raise ValueError("a lone surrogate: \ud800")


@tool
async def cancel_itself() -> str:
    """Cancel the task it runs in."""
    task = asyncio.current_task()
    assert task is not None
    task.cancel()
    await asyncio.sleep(0)
    return "still here"


@pytest.mark.parametrize("odd", [not_a_number, half_a_character, cancel_itself])
async def test_whatever_a_tool_does_its_run_goes_on(tmp_path: Path, odd: Any) -> None:
    agent = scripted(turn(call(odd.id)), "done", tools=(odd,))
    async with serving(tmp_path, agent) as served:
        result = await agent.run(served.client, "Go.", timeout=5)
        assert result.result == "done"


@stop_condition
def cancels(ctx: StopConditionContext) -> bool:
    """Raise what only a cancelled task raises."""
    raise asyncio.CancelledError


async def test_a_stop_condition_that_raises_a_cancellation_ends_its_run(tmp_path: Path) -> None:
    agent = scripted(turn(call("fill", size=1)), "done", tools=(fill,), stop_conditions=[cancels])
    async with serving(tmp_path, agent) as served:
        with structlog.testing.capture_logs():
            async with asyncio.timeout(5):
                events = await served.events(await served.start(agent))
        assert answer_of(events).error.reason == FailureReason.FAILURE_REASON_INTERNAL


async def test_a_queued_run_ends_when_its_time_is_over(tmp_path: Path) -> None:
    agent = scripted(turn(pause()))
    async with serving(tmp_path, agent, max_runs=1) as served:
        first = await served.start(agent)
        stream = await agent.stream(served.client, "Go.", run_timeout_seconds=0.05)
        async with asyncio.timeout(5):
            events = await served.events(stream.id)
        assert answer_of(events).error.reason == FailureReason.FAILURE_REASON_RUN_TIMEOUT
        running = await served.runs.GetRun(pb.GetRunRequest(run_id=first))
        assert running.run.state == RunState.RUN_STATE_RUNNING


async def test_a_large_integer_reaches_the_model_as_the_tool_returned_it(tmp_path: Path) -> None:
    @tool
    async def count() -> int:
        return 2**70

    agent = demo(tools=[count])
    async with MockProvider() as provider:
        provider.reply(ask("count", {}))
        provider.reply(answer("I see."))
        known = {"openai_base_url": provider.url, "openai_api_key": KEY}
        async with serving(tmp_path, agent, **known) as served:
            await agent.run(served.client, "Go.")
    assert provider.requests[1].body["messages"][-1]["content"] == str(2**70)


async def test_the_log_of_the_service_has_the_traceback_and_no_values_of_variables(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    agent = demo(tools=[fill], stop_conditions=[broken])
    monkeypatch.setattr("polos_service.logs._outlets", [])  # other tests may have sent it elsewhere
    structlog.reset_defaults()
    log_to_stderr()
    try:
        async with MockProvider() as provider:
            provider.reply(ask("fill", {"size": 1}))
            known = {"openai_base_url": provider.url, "openai_api_key": KEY}
            async with serving(tmp_path, agent, **known) as served:
                await everything_served(served, "demo")
    finally:
        structlog.reset_defaults()
    told = capsys.readouterr()
    assert EXCEPTION in told.err
    assert "Traceback" in told.err
    for secret in (KEY, PROMPT, STATE):
        assert secret not in told.err + told.out
