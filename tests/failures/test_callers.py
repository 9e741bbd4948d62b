"""Callers that get it wrong, the whole way: the message, the status, and what the store holds.

Each refusal leaves the store as it was, and the service goes on. The commands' side of these
failures (`polos serve` and its exit codes) is in tests/failures/test_starting.py.
"""

from __future__ import annotations

import inspect
import re
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import grpc
import pytest
from google.protobuf.message import Message

from polos import (
    AgentNotFound,
    InvalidRequest,
    RunNotFound,
    events,
)
from polos.v1 import run_service_pb2 as pb
from polos.v1.agent_service_pb2 import GetAgentRequest
from polos.v1.run_pb2 import RunState
from polos_client.calls.status import to_error
from tests.failures.scene import contents
from tests.support.service import Served, answer_of, query, scripted, serving, until

FINE = scripted("fine", id="fine")
OTHER = scripted("other", id="other")
UNKNOWN = "01a2048b-0000-7000-8000-000000000000"
BIG = "x" * (1024 * 1024 + 1)
USER = '[{"role": "user", "content": "Go."}]'


@dataclass(frozen=True)
class Refusal:
    """A call that is refused, with {run} for an ended run of four events."""

    method: str
    request: Callable[[str], Message]
    code: grpc.StatusCode
    reason: str
    message: str


def starts(reason: str, message: str, code: grpc.StatusCode, **fields: Any) -> list[Refusal]:
    """Return the refusals of both ways to start a run with these fields."""
    both: list[tuple[str, Any]] = [
        ("RunService/CreateRun", pb.CreateRunRequest),
        ("RunService/StreamRun", pb.StreamRunRequest),
    ]
    return [
        Refusal(method, lambda _, made=made: made(**fields), code, reason, message)  # type: ignore[misc]  # bound here
        for method, made in both
    ]


def invalid(message: str, **fields: Any) -> list[Refusal]:
    """Return the refusals of starts of the agent that is there, with these fields."""
    code = grpc.StatusCode.INVALID_ARGUMENT
    return starts("INVALID_REQUEST", message, code, **{"agent_id": "fine", **fields})


def of_run(method: str, made: Any, field: str) -> list[Refusal]:
    """Return the refusals of a method for a run that is none, and for no run at all."""
    return [
        Refusal(
            f"RunService/{method}",
            lambda _: made(**{field: UNKNOWN}),
            grpc.StatusCode.NOT_FOUND,
            "RUN_NOT_FOUND",
            f"There is no run {UNKNOWN!r}.",
        ),
        Refusal(
            f"RunService/{method}",
            lambda _: made(**{field: ""}),
            grpc.StatusCode.INVALID_ARGUMENT,
            "INVALID_REQUEST",
            f"{field} is empty",
        ),
    ]


def cursor(after: int, code: grpc.StatusCode, reason: str, message: str) -> list[Refusal]:
    """Return the refusal of a cursor in a run that has ended after four events."""
    return [
        Refusal(
            "RunService/StreamWorkflow",
            lambda run: pb.StreamWorkflowRequest(workflow_run_id=run, after_sequence=after),
            code,
            reason,
            message,
        )
    ]


NOT_LOADED = "There is no agent or workflow 'nobody'. Loaded: fine, other."
REFUSALS: dict[str, list[Refusal]] = {
    "unknown agent": [
        *starts(
            "AGENT_NOT_FOUND",
            NOT_LOADED,
            grpc.StatusCode.NOT_FOUND,
            agent_id="nobody",
            input="Go.",
        ),
        Refusal(
            "AgentService/GetAgent",
            lambda _: GetAgentRequest(agent_id="nobody"),
            grpc.StatusCode.NOT_FOUND,
            "AGENT_NOT_FOUND",
            NOT_LOADED,
        ),
    ],
    "no agent": invalid("agent_id is empty", agent_id="", input="Go."),
    "empty input": invalid("input is empty"),
    "blank input": invalid("input is empty", input=" \n\t"),
    "input over the limit": invalid("input has 1048577 bytes, the limit is 1048576", input=BIG),
    "both inputs": invalid(
        "input_messages_json cannot be given together with input",
        input="Go.",
        input_messages_json=USER,
    ),
    "messages that are no JSON": invalid(
        "input_messages_json is not valid JSON: Expecting property name enclosed in double quotes: "
        "line 1 column 3 (char 2)",
        input_messages_json="[{",
    ),
    "messages that are no array": invalid(
        "input_messages_json is not a JSON array with at least one message",
        input_messages_json=USER[1:-1],
    ),
    "messages that are none": invalid(
        "input_messages_json is not a JSON array with at least one message",
        input_messages_json="[]",
    ),
    "messages that are texts": invalid(
        "input_messages_json[0] is not an object with a role", input_messages_json='["Go."]'
    ),
    "messages without a role": invalid(
        "input_messages_json[0] is not an object with a role",
        input_messages_json='[{"content": "Go."}]',
    ),
    "negative cursor": cursor(
        -1,
        grpc.StatusCode.INVALID_ARGUMENT,
        "INVALID_REQUEST",
        "after_sequence is -1, not 0 or more",
    ),
    "cursor past the end": cursor(
        5,
        grpc.StatusCode.OUT_OF_RANGE,
        "CURSOR_AHEAD",
        "The cursor 5 is past the newest event of run {run}, which is 4.",
    ),
    "largest cursor": cursor(
        2**63 - 1,
        grpc.StatusCode.OUT_OF_RANGE,
        "CURSOR_AHEAD",
        "The cursor 9223372036854775807 is past the newest event of run {run}, which is 4.",
    ),
    "unknown run, GetRun": of_run("GetRun", pb.GetRunRequest, "run_id"),
    "unknown run, CancelRun": of_run("CancelRun", pb.CancelRunRequest, "run_id"),
    "unknown run, DeleteRun": of_run("DeleteRun", pb.DeleteRunRequest, "run_id"),
    "unknown run, StreamWorkflow": of_run(
        "StreamWorkflow", pb.StreamWorkflowRequest, "workflow_run_id"
    ),
}


@pytest.mark.parametrize("name", REFUSALS)
async def test_a_refused_call_says_why_and_changes_nothing(tmp_path: Path, name: str) -> None:
    async with serving(tmp_path, FINE, OTHER) as served:
        run_id = await ended_run(served)
        before = contents(served.path)
        for refusal in REFUSALS[name]:
            error = await refused(served, refusal.method, refusal.request(run_id))
            told = to_error(error, "the service")
            assert error.code() is refusal.code
            assert getattr(told, "reason", None) == refusal.reason
            assert str(told) == refusal.message.format(run=run_id)
            assert contents(served.path) == before
        assert (await FINE.run(served.client, "Go.")).result == "fine"


STREAMS = ("RunService/StreamRun", "RunService/StreamWorkflow")
METHODS = (
    *STREAMS,
    "RunService/CreateRun",
    "RunService/GetRun",
    "RunService/ListRuns",
    "RunService/CancelRun",
    "RunService/DeleteRun",
    "AgentService/GetAgent",
    "AgentService/ListAgents",
    "AgentService/ListWorkflows",
)


@pytest.mark.parametrize("garbage", [b"\xff\xff\xff", b"\x0a\x7fshort", b'{"agent_id": "fine"}'])
async def test_bytes_that_are_no_message_are_refused_and_change_nothing(
    tmp_path: Path, garbage: bytes
) -> None:
    async with serving(tmp_path, FINE) as served:
        await ended_run(served)
        before = contents(served.path)
        for method in METHODS:
            error = await refused(served, method, garbage)
            told = to_error(error, "the service")
            assert error.code() is grpc.StatusCode.INVALID_ARGUMENT, method
            assert isinstance(told, InvalidRequest)
            assert told.violations == {"request": "is not a message of this method"}
        assert contents(served.path) == before
        assert (await FINE.run(served.client, "Go.")).result == "fine"


async def test_fields_of_a_later_version_are_skipped(tmp_path: Path) -> None:
    async with serving(tmp_path, FINE) as served:
        request = pb.CreateRunRequest(agent_id="fine", input="Go.").SerializeToString()
        create: Any = served.channel.unary_unary("/polos.v1.RunService/CreateRun")
        later = b"\xfa\x3e\x03new"  # field 1007
        answer = await create(request + later)
        run = pb.CreateRunResponse.FromString(answer).run
        assert answer_of(await served.events(run.run_id)).agent_finish.result == "fine"


async def test_the_client_raises_what_the_service_refuses(tmp_path: Path) -> None:
    nobody = scripted("never", id="nobody")
    async with serving(tmp_path, FINE, OTHER) as served:
        client, run_id = served.client, await ended_run(served)
        before = contents(served.path)
        for start in (
            lambda: nobody.run(client, "Go."),
            lambda: nobody.stream(client, "Go."),
            lambda: nobody.invoke(client, {"input": "Go."}),
        ):
            with pytest.raises(AgentNotFound) as raised:
                await start()
            assert str(raised.value) == NOT_LOADED
            assert raised.value.metadata["known"] == "fine,other"
        with pytest.raises(RunNotFound, match=f"^There is no run '{UNKNOWN}'.$"):
            [event async for event in events.stream_workflow(client, workflow_run_id=UNKNOWN)]
        for after, message in CURSORS.items():
            with pytest.raises(InvalidRequest, match=re.escape(message)):
                events.stream_workflow(client, workflow_run_id=run_id, last_sequence_id=after)
        assert contents(served.path) == before


CURSORS = {
    -1: "last_sequence_id is -1; it cannot be negative",
    2**63: "last_sequence_id is 9223372036854775808; no run has that many events",
}


async def ended_run(served: Served) -> str:
    """Return a run that has ended, after four events."""
    result = await FINE.run(served.client, "Go.")
    await until(lambda: settled(served), "the run is over in the store")
    return result.agent_run_id


def settled(served: Served) -> bool:
    rows = query(served.path, "SELECT state FROM runs")
    return rows == [(RunState.RUN_STATE_COMPLETED,)]


async def refused(served: Served, method: str, request: Message | bytes) -> grpc.aio.AioRpcError:
    """Call a method, which must refuse, and return how."""
    data = request if isinstance(request, bytes) else request.SerializeToString()
    path = f"/polos.v1.{method}"
    channel: Any = served.channel
    make = channel.unary_stream if method in STREAMS else channel.unary_unary
    made = make(path)(data)
    with pytest.raises(grpc.aio.AioRpcError) as raised:
        await (made if inspect.isawaitable(made) else made.read())
    return raised.value
