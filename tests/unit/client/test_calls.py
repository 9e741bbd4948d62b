"""Unary calls: what they return, what they raise, and when they are made again."""

from __future__ import annotations

import asyncio
import re
import socket
import subprocess
import sys
import traceback
from typing import Any

import grpc
import pytest
from google.protobuf.duration_pb2 import Duration
from google.rpc.error_details_pb2 import BadRequest, RetryInfo

from polos.v1 import event_pb2 as pb
from polos.v1 import run_pb2
from polos.v1.error_pb2 import ErrorReason
from polos_client.calls import connection as connection_module
from polos_client.calls import events, status
from polos_client.calls.client import PolosClient
from polos_client.calls.handle import ExecutionHandle
from polos_client.calls.start import Start
from polos_client.define.agent import Agent
from polos_client.errors import (
    CALL_ERRORS,
    CallError,
    ConnectionLost,
    DefinitionError,
    InvalidRequest,
    RunNotFound,
)
from tests.support.fake_service import (
    AGENT,
    RUN,
    FakeService,
    Play,
    abort,
    answer_log,
    connected,
    event,
    hang,
    refuse,
    run_of,
)

Code = grpc.StatusCode


def demo() -> Agent:
    return Agent(AGENT, "scripted", "{}")


@pytest.mark.parametrize("reason", sorted(set(CALL_ERRORS) - {"INVALID_REQUEST"}))
async def test_every_call_error_comes_back_as_the_class_it_was_raised_as(reason: str) -> None:
    end = refuse(Code.FAILED_PRECONDITION, reason, text="as it was said", run_id="x", message="m")
    async with connected(FakeService(refusals=[end])) as client:
        with pytest.raises(CallError, match=r"^as it was said$") as caught:
            await client.delete_run(RUN)
    assert type(caught.value) is CALL_ERRORS[reason]
    assert "AioRpcError" not in "".join(traceback.format_exception(caught.value))
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


async def test_nobody_at_the_address_is_said_with_what_to_do() -> None:
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        address = f"127.0.0.1:{unused.getsockname()[1]}"
        async with PolosClient(address, reconnect_timeout=0.2) as client:
            async with asyncio.timeout(connection_module.PATIENCE / 2):
                for call in (client.get_run(RUN), demo().stream(client, "go")):
                    with pytest.raises(ConnectionLost, match=f"{address}.*polos serve"):
                        await call


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


def test_the_address_is_the_given_one_else_that_of_the_environment_else_the_default(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("POLOS_ADDRESS", "there:1")
    assert PolosClient("here:1").address == "here:1"
    assert PolosClient().address == "there:1"
    monkeypatch.delenv("POLOS_ADDRESS")
    assert PolosClient().address == "127.0.0.1:50051"
    assert repr(PolosClient()) == "<PolosClient 127.0.0.1:50051>"


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"input": ""}, "input is empty"),
        ({"input": []}, "input is empty"),
        ({"input": "x" * (1024 * 1024 + 1)}, "input has 1048577 bytes; at most 1048576"),
        ({"input": "\ud800"}, "input is not valid Unicode"),
        ({"input": [{"role": object(), "content": "go"}]}, "input cannot be written as JSON"),
        ({"initial_state": {"a": float("nan")}}, "initial_state cannot be written as JSON"),
        ({"initial_state": {"a": "x" * 262144}}, "initial_state has 262152 bytes"),
        ({"session_id": "x" * 257}, "session_id has 257 characters"),
        ({"user_id": "x" * 257}, "user_id has 257 characters"),
        ({"run_timeout_seconds": 0.0}, "run_timeout_seconds is 0.0; it must be from 0.001"),
        ({"run_timeout_seconds": "5"}, "run_timeout_seconds is '5'; it must be from 0.001"),
        ({"run_timeout_seconds": 3153600001.0}, "must be from 0.001 to 3153600000"),
        ({"deadlines": 60}, "deadlines must be Deadlines, not 60"),
    ],
)
def test_what_cannot_travel_is_refused_before_it_does(fields: dict[str, Any], message: str) -> None:
    start = Start(**{"workflow_id": AGENT, "input": "go", **fields})
    with pytest.raises(InvalidRequest, match=re.escape(message)):
        start.stream_request()
    with pytest.raises(InvalidRequest, match=re.escape(message)):
        start.create_request(streaming=False)


def test_a_start_says_all_it_was_given() -> None:
    start = Start(
        workflow_id=AGENT,
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
        ({"input": "go", "provider_kwargs": [1]}, r"payload.provider_kwargs must be a dict, not"),
    ],
)
async def test_a_payload_with_other_keys_is_refused(payload: Any, message: str) -> None:
    service = FakeService()
    async with connected(service) as client:
        with pytest.raises(InvalidRequest, match=message):
            await demo().invoke(client, payload)
    assert service.starts == []


@pytest.mark.parametrize("given", [5, None, "", ExecutionHandle(id=RUN)], ids=repr)
async def test_what_is_no_id_of_a_run_is_refused(given: Any) -> None:
    async with connected(FakeService()) as client:
        for call in (client.get_execution, client.cancel_execution, client.delete_run):
            with pytest.raises(
                InvalidRequest, match=r"^run_id must be a string such as handle\.id, not"
            ):
                await call(given)
        with pytest.raises(InvalidRequest, match=r"handle\.id"):
            events.stream_workflow(client, workflow_run_id=given)
    with pytest.raises(InvalidRequest, match="client must be a PolosClient, not None"):
        events.stream_workflow(None, workflow_run_id=RUN)  # type: ignore[arg-type]


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


async def test_the_topic_of_every_event_is_the_roots() -> None:
    child = event(2, run_id=f"{RUN}:1", parent=RUN, step_start=pb.StepStart(step_key="llm:1"))
    child.workflow_id = "helper"
    log = [*answer_log()[:1], child, *answer_log()[2:]]
    async with connected(FakeService(log=log)) as client:
        whole = [one async for one in events.stream_workflow(client, workflow_run_id=RUN)]
        rest = [one async for one in events.stream_workflow(client, AGENT, RUN, 1)]
        stream = await demo().stream(client, "go")
        live = [one async for one in stream.events]
    assert {one.topic for one in [*whole, *rest, *live]} == {stream.topic}
    assert whole[1].data["_metadata"]["workflow_id"] == "helper"


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
    for wrong in ("3", 3.0, True):
        with pytest.raises(InvalidRequest, match="last_sequence_id must be a whole number, not"):
            events.stream_workflow(client, workflow_run_id=RUN, last_sequence_id=wrong)  # type: ignore[arg-type]


def test_events_since_a_time_are_refused() -> None:
    with pytest.raises(DefinitionError, match=r"last_timestamp=1\) is not built yet"):
        events.stream_workflow(PolosClient(), workflow_run_id=RUN, last_timestamp=1)


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
