"""`agent.run` and handles: a run seen to its end, and looked after."""

from __future__ import annotations

import asyncio
import warnings

import grpc
import pytest
from pydantic import BaseModel

from polos.v1 import event_pb2 as pb
from polos.v1 import run_pb2
from polos_client.calls.client import PolosClient
from polos_client.calls.connection import Definition
from polos_client.calls.handle import ExecutionHandle
from polos_client.calls.start import NO_MEMORY
from polos_client.define.agent import Agent
from polos_client.errors import DefinitionError, RunFailed, RunTimeout
from polos_client.result import AgentResult
from tests.support.fake_service import (
    AGENT,
    RUN,
    FakeService,
    Play,
    completed,
    connected,
    delta,
    ended,
    event,
    finish,
    hang,
    numbered,
    refuse,
    run_of,
)

Code = grpc.StatusCode


def demo() -> Agent:
    return Agent(AGENT, "scripted", "{}")


async def test_a_handle_tells_the_result_with_its_tool_results() -> None:
    call = pb.ToolCall(id="c1", name="add", arguments_json='{"a": 1}')
    broken = pb.ToolCall(id="c2", name="add", arguments_json="{no")
    results = [
        run_pb2.ToolResult(tool_call=call, result_json="3"),
        run_pb2.ToolResult(tool_call=broken, failure=pb.StepFailure(message="no JSON")),
    ]
    async with connected(FakeService(run=completed(tool_results=results))) as client:
        handle = ExecutionHandle.of(await client.get_run(RUN))
        got = await handle.get(client)
        assert await handle.cancel(client) is False
    assert handle.model_dump() == {
        "id": RUN,
        "workflow_id": AGENT,
        "created_at": "2026-01-02T03:04:05+00:00",
        "parent_execution_id": None,
        "root_workflow_id": AGENT,
        "root_execution_id": RUN,
        "session_id": None,
        "user_id": None,
        "step_key": None,
    }
    assert got["status"] == "completed"
    assert got["completed_at"] == "2026-01-02T03:05:05+00:00"
    assert got["error"] is None
    assert isinstance(got["result"], AgentResult)
    assert got["result"].result == "The sum is 3."
    first, second = got["result"].tool_results
    assert (first.status, first.input, first.result) == ("completed", {"a": 1}, 3)
    assert (second.status, second.input, second.error) == ("failed", "{no", "no JSON")


async def test_a_handle_reads_tool_results_that_were_left_out_from_the_log() -> None:
    log = numbered(
        [
            {"step_finish": pb.StepFinish(step_key="add", step_type="tool", result_json="3")},
            {"agent_finish": finish("3"), "terminal": True},
        ]
    )
    service = FakeService(log=log, run=completed(tool_results_omitted=1))
    async with connected(service) as client:
        got = await ExecutionHandle.of(service.run).get(client)
    assert [one.result for one in got["result"].tool_results] == [3]


async def test_a_handle_of_a_failed_run_tells_the_error() -> None:
    outcome = event(2, error=pb.Error(message="the model is away"), terminal=True)
    service = FakeService(run=ended(outcome, run_pb2.RUN_STATE_FAILED))
    async with connected(service) as client:
        got = await ExecutionHandle.of(service.run).get(client)
    assert (got["status"], got["result"], got["error"]) == ("failed", None, "the model is away")


async def test_a_handle_of_a_running_run_has_no_end() -> None:
    service = FakeService(run=run_of(run_pb2.RUN_STATE_RUNNING, session_id="s"))
    async with connected(service) as client:
        handle = ExecutionHandle.of(service.run)
        got = await handle.get(client)
        assert await handle.cancel(client) is True
    assert handle.session_id == "s"
    assert (got["status"], got["completed_at"], got["error"]) == ("running", None, None)


async def test_run_returns_the_result_of_a_run_that_does_not_stream() -> None:
    service = FakeService()
    async with connected(service) as client:
        result = await demo().run(client, [{"role": "user", "content": "1 + 2?"}], user_id="u")
    assert result.result == "The sum is 3."
    assert (result.total_steps, result.usage.total_tokens) == (1, 9)
    assert (result.cost, result.finish_reason, result.duration) == (0.0015, "stop", 1.5)
    (start,) = service.starts
    assert not start.streaming
    assert start.input_messages_json == '[{"role":"user","content":"1 + 2?"}]'
    assert start.options.user_id == "u"
    assert not start.options.HasField("timeout")


async def test_arguments_stand_in_the_order_of_the_original_sdk() -> None:
    service = FakeService()
    async with connected(service) as client:
        await demo().run(client, "go", {"a": 1}, "session", "user", 60)
        await demo().stream(client, "go", {"a": 1}, "session", "user", 5)
        payload = {"input": "go", "provider_kwargs": {"seed": 7}}
        await demo().invoke(client, payload, None, None, "session", "user", {"a": 1}, 5)
    assert len(service.starts) == 3
    for start in service.starts:
        assert start.options.initial_state_json == '{"a":1}'
        assert (start.options.session_id, start.options.user_id) == ("session", "user")
    assert service.starts[-1].options.provider_options_json == '{"seed":7}'
    assert [start.options.timeout.seconds for start in service.starts] == [0, 5, 5]


async def test_each_line_that_gives_a_session_is_told_once_that_it_has_no_memory() -> None:
    async with connected(FakeService()) as client:
        with warnings.catch_warnings(record=True) as told:
            warnings.simplefilter("default")
            for _ in range(2):
                await demo().run(client, "go", session_id="s")
            await demo().stream(client, "go", session_id="s")
            await demo().invoke(client, {"input": "go"}, session_id="s")
            await client.invoke("demo", {"input": "go"}, session_id="s")
    assert [str(one.message) for one in told] == [NO_MEMORY] * 4
    assert {one.filename for one in told} == {__file__}


async def test_the_state_may_be_a_model() -> None:
    class Cart(BaseModel):
        items: list[str]

    service = FakeService()
    async with connected(service) as client:
        await demo().run(client, "go", initial_state=Cart(items=["tea"]))
    assert service.starts[0].options.initial_state_json == '{"items":["tea"]}'


async def test_queues_of_a_start_are_refused() -> None:
    client = PolosClient("127.0.0.1:1")
    with pytest.raises(DefinitionError, match=r"agent.invoke\(queue='q'\) is not built yet"):
        await demo().invoke(client, {"input": "go"}, queue="q")
    with pytest.raises(DefinitionError, match=r"agent.invoke\(concurrency_key='k'\) is not built"):
        await demo().invoke(client, {"input": "go"}, concurrency_key="k")


async def test_a_run_that_takes_too_long_is_cancelled_and_says_so() -> None:
    outcome = event(9, run_cancelled=pb.RunCancelled(usage=pb.Usage(total_tokens=4)), terminal=True)
    run = ended(outcome, run_pb2.RUN_STATE_CANCELLED)
    service = FakeService(plays=[Play(hang, until=4)], run=run)
    async with connected(service) as client:
        with pytest.raises(RunTimeout, match=r"run run-1 took longer.*and was cancelled") as caught:
            await demo().run(client, "go", timeout=0.2)
        await service.no_open_calls()
    assert service.cancels == [RUN]
    assert caught.value.usage.total_tokens == 4
    assert caught.value.text == "The sum "
    assert caught.value.reason == "run_timeout"
    assert (caught.value.execution_id, caught.value.timeout_seconds) == (RUN, 0.2)


async def test_a_run_that_ended_while_it_was_cancelled_gives_its_result() -> None:
    service = FakeService(plays=[Play(hang, until=4)], run=completed())
    async with connected(service) as client:
        result = await demo().run(client, "go", timeout=0.2)
    assert result.result == "The sum is 3."
    assert service.cursors == [0, 4]


async def test_a_timeout_whose_cancelling_fails_says_that(monkeypatch: pytest.MonkeyPatch) -> None:
    service = FakeService(plays=[Play(hang, until=4)])
    async with connected(service) as client:
        run = asyncio.create_task(demo().run(client, "go", timeout=0.2))
        while not service.open_calls:
            await asyncio.sleep(0.01)
        service.refusals.append(refuse(Code.NOT_FOUND, "RUN_NOT_FOUND", text="gone"))
        with pytest.raises(RunTimeout, match="cancelling it failed: gone"):
            await run


async def test_a_failed_run_raises() -> None:
    log = numbered([delta("Half"), {"error": pb.Error(message="away"), "terminal": True}])
    async with connected(FakeService(log=log)) as client:
        with pytest.raises(RunFailed, match="away"):
            await demo().run(client, "go", timeout=None)


async def test_the_hook_of_a_client_sees_the_agent_before_each_start() -> None:
    prepared: list[str] = []

    class Watching(PolosClient):
        def prepare(self, definition: Definition) -> None:
            prepared.append(definition.id)

    async with connected(FakeService()) as plain, Watching(plain.address) as client:
        await demo().run(client, "go")
        await demo().stream(client, "go")
        await demo().invoke(client, {"input": "go", "streaming": True})
    assert prepared == [AGENT] * 3
