"""Unary calls: what they return, what they raise, and when they are made again."""

from __future__ import annotations

import asyncio
import re
import socket
import subprocess
import sys
from typing import Any

import grpc
import pytest
from google.protobuf.duration_pb2 import Duration
from google.rpc.error_details_pb2 import BadRequest, RetryInfo

from polos.v1 import event_pb2 as pb
from polos.v1 import run_pb2
from polos.v1 import run_service_pb2 as rpc
from polos.v1.error_pb2 import ErrorReason
from polos_client import client as client_module
from polos_client import events, status
from polos_client.agent import Agent
from polos_client.client import ExecutionHandle, PolosClient
from polos_client.errors import (
    CALL_ERRORS,
    CallError,
    ConnectionLost,
    DefinitionError,
    InvalidRequest,
    RunFailed,
    RunNotFound,
    RunTimeout,
)
from polos_client.start import Start
from tests.unit.fake_service import (
    AGENT,
    RUN,
    FakeService,
    Play,
    abort,
    answer_log,
    connected,
    delta,
    event,
    finish,
    hang,
    numbered,
    refuse,
)

Code = grpc.StatusCode


def demo() -> Agent:
    return Agent(AGENT, "scripted", "{}")


def run_of(state: run_pb2.RunState.ValueType, **fields: Any) -> run_pb2.Run:
    run = run_pb2.Run(run_id=RUN, workflow_id=AGENT, state=state, **fields)
    run.create_time.FromJsonString("2026-01-02T03:04:05Z")
    return run


def ended(outcome: pb.Event, state: run_pb2.RunState.ValueType, **fields: Any) -> run_pb2.Run:
    run = run_of(state, outcome=outcome, **fields)
    run.finish_time.FromJsonString("2026-01-02T03:05:05Z")
    return run


def completed(**fields: Any) -> run_pb2.Run:
    outcome = event(7, agent_finish=finish("The sum is 3."), terminal=True)
    return ended(outcome, run_pb2.RUN_STATE_COMPLETED, **fields)


@pytest.mark.parametrize("reason", sorted(set(CALL_ERRORS) - {"INVALID_REQUEST"}))
async def test_every_call_error_comes_back_as_the_class_it_was_raised_as(reason: str) -> None:
    end = refuse(Code.FAILED_PRECONDITION, reason, text="as it was said", run_id="x", message="m")
    async with connected(FakeService(refusals=[end])) as client:
        with pytest.raises(CallError, match=r"^as it was said$") as caught:
            await client.delete_run(RUN)
    assert type(caught.value) is CALL_ERRORS[reason]
    assert caught.value.metadata == {"run_id": "x", "message": "m"}
    assert caught.value.retry_after is None


def test_every_reason_of_the_protocol_has_a_class() -> None:
    reasons = {name.removeprefix("ERROR_REASON_") for name in ErrorReason.keys()}  # noqa: SIM118
    assert set(CALL_ERRORS) == reasons - {"UNSPECIFIED"}


async def test_an_invalid_request_comes_back_with_its_violations() -> None:
    violation = BadRequest.FieldViolation(field="input", description="is empty")
    details = BadRequest(field_violations=[violation])
    end = refuse(Code.INVALID_ARGUMENT, "INVALID_REQUEST", details)
    async with connected(FakeService(refusals=[end])) as client:
        with pytest.raises(InvalidRequest, match=r"^input is empty$") as caught:
            await client.get_run(RUN)
    assert caught.value.violations == {"input": "is empty"}


async def test_a_hint_when_to_come_back_is_kept() -> None:
    hint = RetryInfo(retry_delay=Duration(seconds=1, nanos=500_000_000))
    end = refuse(Code.RESOURCE_EXHAUSTED, "TOO_MANY_RUNS", hint)
    async with connected(FakeService(refusals=[end])) as client:
        with pytest.raises(CallError) as caught:
            await client.get_run(RUN)
    assert caught.value.retry_after == 1.5


async def test_a_reason_of_a_later_version_is_a_plain_call_error() -> None:
    end = refuse(Code.ABORTED, "LATER", text="from the future")
    async with connected(FakeService(refusals=[end])) as client:
        with pytest.raises(CallError, match="from the future"):
            await client.get_run(RUN)


async def test_details_that_contradict_the_status_are_not_believed() -> None:
    error = grpc.aio.AioRpcError(
        Code.ABORTED,
        grpc.aio.Metadata(),
        grpc.aio.Metadata(("grpc-status-details-bin", b"\x08\x05")),
        details="odd",
    )
    assert isinstance(status.to_error(error, "here"), ConnectionLost)


async def test_a_lost_start_is_made_again_with_the_same_request_id() -> None:
    lost = [abort(Code.UNAVAILABLE), abort(Code.CANCELLED)]
    service = FakeService(refusals=lost, run=run_of(run_pb2.RUN_STATE_QUEUED))
    async with connected(service) as client:
        handle = await demo().invoke(client, {"input": "go"}, session_id="s")
    assert handle.id == RUN
    assert len(service.starts) == 3
    assert service.starts[0] == service.starts[1] == service.starts[2]
    assert service.starts[0].request_id


async def test_nobody_at_the_address_is_said_with_what_to_do(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(client_module, "PATIENCE", 0.2)
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        address = f"127.0.0.1:{unused.getsockname()[1]}"
        async with PolosClient(address) as client:
            with pytest.raises(ConnectionLost, match=f"{address}.*polos serve"):
                await client.get_run(RUN)


async def test_deleting_is_not_tried_again() -> None:
    service = FakeService(refusals=[abort(Code.UNAVAILABLE)])
    async with connected(service) as client:
        with pytest.raises(ConnectionLost):
            await client.delete_run(RUN)
        assert len(service.cancels) == 1
        await client.delete_run(RUN)


async def test_closing_the_client_ends_a_call_with_connection_lost() -> None:
    service = FakeService(refusals=[hang])
    async with connected(service) as client:
        call = asyncio.create_task(client.cancel_run(RUN))
        while not service.cancels:
            await asyncio.sleep(0.01)
        await client.close()
        with pytest.raises(ConnectionLost, match="was closed"):
            await call


async def test_cancelling_a_call_cancels_its_task() -> None:
    service = FakeService(refusals=[hang])
    async with connected(service) as client:
        call = asyncio.create_task(client.cancel_run(RUN))
        while not service.cancels:
            await asyncio.sleep(0.01)
        call.cancel()
        with pytest.raises(asyncio.CancelledError):
            await call


async def test_a_page_of_runs_is_returned() -> None:
    async with connected(FakeService()) as client:
        page = await client.list_runs(rpc.ListRunsRequest(workflow_id=AGENT))
    assert [one.run_id for one in page.runs] == [RUN]


def test_the_address_is_the_given_one_else_that_of_the_environment_else_the_default(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("POLOS_ADDRESS", "there:1")
    assert PolosClient("here:1").address == "here:1"
    assert PolosClient().address == "there:1"
    monkeypatch.delenv("POLOS_ADDRESS")
    assert PolosClient().address == "127.0.0.1:50051"


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
        "root_workflow_id": AGENT,
        "root_execution_id": RUN,
        "created_at": "2026-01-02T03:04:05+00:00",
        "session_id": None,
    }
    assert got["status"] == "completed"
    assert got["completed_at"] == "2026-01-02T03:05:05+00:00"
    assert got["error"] is None
    assert got["result"]["result"] == "The sum is 3."
    first, second = got["result"]["tool_results"]
    assert (first["status"], first["input"], first["result"]) == ("completed", {"a": 1}, 3)
    assert (second["status"], second["input"], second["error"]) == ("failed", "{no", "no JSON")


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
    assert [one["result"] for one in got["result"]["tool_results"]] == [3]


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
        def prepare(self, agent: Agent) -> None:
            prepared.append(agent.id)

    async with connected(FakeService()) as plain, Watching(plain.address) as client:
        await demo().run(client, "go")
        await demo().stream(client, "go")
        await demo().invoke(client, {"input": "go", "streaming": True})
    assert prepared == [AGENT] * 3


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"input": ""}, "input is empty"),
        ({"input": []}, "input is empty"),
        ({"input": "x" * (1024 * 1024 + 1)}, "input has 1048577 bytes; at most 1048576"),
        ({"input": "\ud800"}, "input is no valid Unicode"),
        ({"input": [{"role": object()}]}, "input cannot be written as JSON"),
        ({"initial_state": {"a": float("nan")}}, "initial_state cannot be written as JSON"),
        ({"initial_state": {"a": "x" * 262144}}, "initial_state has 262152 bytes"),
        ({"session_id": "x" * 257}, "session_id has 257 characters"),
        ({"user_id": "x" * 257}, "user_id has 257 characters"),
        ({"run_timeout_seconds": 0.0}, "run_timeout_seconds is 0.0; it must be from 0.001"),
        ({"run_timeout_seconds": 2592001.0}, "must be from 0.001 to 2592000"),
    ],
)
def test_what_cannot_travel_is_refused_before_it_does(fields: dict[str, Any], message: str) -> None:
    start = Start(**{"agent": demo(), "input": "go", **fields})
    with pytest.raises(InvalidRequest, match=re.escape(message)):
        start.stream_request()
    with pytest.raises(InvalidRequest, match=re.escape(message)):
        start.create_request(streaming=False)


def test_a_start_says_all_it_was_given() -> None:
    start = Start(
        agent=demo(),
        input="x" * 1024 * 1024,
        initial_state={"a": 1},
        run_timeout_seconds=1.5,
        request_id="r",
    )
    request = start.create_request(streaming=True)
    assert request.agent_id == AGENT
    assert request.request_id == "r"
    assert request.streaming
    assert request.options.initial_state_json == '{"a":1}'
    assert request.options.timeout == Duration(seconds=1, nanos=500_000_000)


@pytest.mark.parametrize(
    ("payload", "message"),
    [
        ({}, "payload.input is missing"),
        ({"input": "go", "stream": True}, "payload.stream is not known"),
        ({"input": "go", "streaming": "yes"}, "payload.streaming must be True or False"),
    ],
)
async def test_a_payload_with_other_keys_is_refused(payload: Any, message: str) -> None:
    service = FakeService()
    async with connected(service) as client:
        with pytest.raises(InvalidRequest, match=message):
            await demo().invoke(client, payload)
    assert service.starts == []


async def test_the_events_of_a_run_are_read_by_keyword_by_position_and_from_a_cursor() -> None:
    service = FakeService()
    async with connected(service) as client:
        named = [one async for one in events.stream_workflow(client, workflow_run_id=RUN)]
        placed = [one.id async for one in events.stream_workflow(client, AGENT, RUN)]
        tail = events.stream_workflow(client, workflow_run_id=RUN, last_sequence_id=5)
        rest = [one.sequence_id async for one in tail]
    assert [one.proto for one in named] == answer_log()
    assert placed == [f"{RUN}:{sequence}" for sequence in range(1, 8)]
    assert rest == [6, 7]


async def test_leaving_the_events_of_a_run_early_ends_the_call() -> None:
    service = FakeService(plays=[Play(hang, until=5)])
    async with connected(service) as client:
        async for _ in events.stream_workflow(client, workflow_run_id=RUN):
            break
        await service.no_open_calls()


async def test_events_need_a_run_and_a_cursor_that_is_not_negative() -> None:
    client = PolosClient("127.0.0.1:1")
    with pytest.raises(InvalidRequest, match="'run-1' was given as workflow_id"):
        events.stream_workflow(client, RUN)
    with pytest.raises(InvalidRequest, match="cannot be negative"):
        events.stream_workflow(client, workflow_run_id=RUN, last_sequence_id=-1)
    with pytest.raises(DefinitionError, match="not built yet"):
        events.publish(client, topic="x")


async def test_the_events_of_an_unknown_run_raise() -> None:
    end = refuse(Code.NOT_FOUND, "RUN_NOT_FOUND", text="no run x")
    async with connected(FakeService(plays=[Play(end, until=0)])) as client:
        with pytest.raises(RunNotFound, match="no run x"):
            await anext(events.stream_workflow(client, workflow_run_id="x"))


def test_definitions_load_no_grpc_and_the_client_no_service() -> None:
    code = (
        "import sys; from polos import Agent, tool, events; assert 'grpc' not in sys.modules;"
        "from polos import PolosClient; assert 'grpc' in sys.modules;"
        "assert not {'openai', 'polos_service'} & set(sys.modules)"
    )
    subprocess.run([sys.executable, "-c", code], check=True, timeout=60)
