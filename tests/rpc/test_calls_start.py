"""StreamRun and CreateRun: what a start may say, and what is refused."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path
from typing import Any

import grpc
import grpc.aio
import pytest

from polos.v1 import agent_service_pb2 as agents_pb
from polos.v1 import run_service_pb2 as pb
from polos.v1.run_pb2 import RunOptions, RunState
from polos_client.calls.status import to_error
from polos_client.define.scripted import call, turn
from polos_client.errors import (
    AgentNotFound,
    CallError,
    InvalidRequest,
    RequestIdReused,
    TooManyRuns,
)
from polos_service.api.grpc.requests import NO_INPUT
from tests.support.control import Gate
from tests.support.service import Served, events_in, query, scripted, serving
from tests.support.waits import asking

FINE = scripted("fine")


async def refused(answer: Any) -> CallError:
    """Return what a call was refused with."""
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await answer
    meaning = to_error(caught.value, "the service")
    assert isinstance(meaning, CallError), meaning
    return meaning


async def streamed(served: Served, **fields: Any) -> tuple[str, bytes]:
    """Start by StreamRun; return the run's id and the events' bytes."""
    live = served.runs.StreamRun(pb.StreamRunRequest(agent_id="demo", **fields))
    run_id = (await live.initial_metadata())["polos-run-id"]
    responses = [response async for response in live]
    return str(run_id), b"".join(
        event.SerializeToString() for response in responses for event in response.events
    )


async def test_the_id_of_a_run_travels_before_any_event(tmp_path: Path) -> None:
    gate = Gate()
    agent = scripted(turn(call("gate")), tools=(gate.tool,))
    busy = scripted(turn(call("gate")), tools=(gate.tool,), id="busy")
    async with serving(tmp_path, agent, busy, max_runs=1) as served:
        await served.start(busy)
        await gate.reached()
        live = served.runs.StreamRun(pb.StreamRunRequest(agent_id="demo", input="Go."))
        run_id = str((await live.initial_metadata())["polos-run-id"])
        run = (await served.runs.GetRun(pb.GetRunRequest(run_id=run_id))).run
        assert (run.state, run.latest_sequence) == (RunState.RUN_STATE_QUEUED, 0)
        attached = served.raw(run_id)
        assert (await attached.initial_metadata())["polos-run-id"] == run_id
        live.cancel()
        attached.cancel()


async def test_a_repeated_request_id_attaches_to_the_same_run_from_the_start(
    tmp_path: Path,
) -> None:
    async with serving(tmp_path, FINE) as served:
        first, events = await streamed(served, input="Go.", request_id="once")
        again, replayed = await streamed(served, input="Go.", request_id="once")
        assert (first, events) == (again, replayed)
        other, _ = await streamed(served, input="Go.", request_id="twice")
        assert other != first
        unnamed = [await streamed(served, input="Go."), await streamed(served, input="Go.")]
        assert unnamed[0][0] != unnamed[1][0]


async def test_a_start_beyond_the_queue_is_refused_and_none_is_lost(tmp_path: Path) -> None:
    gate = Gate()
    agent = scripted(turn(call("gate")), turn("fine"), tools=(gate.tool,))
    async with serving(tmp_path, agent, max_runs=1, max_queued=2) as served:
        running = await served.start(agent)
        await gate.reached()
        waiting = [await served.start(agent, request_id=name) for name in ("one", "two")]
        error = await refused(served.start(agent, request_id="three"))
        assert isinstance(error, TooManyRuns)
        assert error.retry_after, "whoever is refused is told when to come again"
        assert "2 runs are queued" in str(error)
        assert await served.start(agent, request_id="two") == waiting[1], "a repetition is no start"
        gate.opened.set()
        for run_id in (running, *waiting):
            assert [event async for event in served.raw(run_id)]
        await served.start(agent, request_id="three")


async def test_starts_with_one_request_id_at_once_start_one_run(tmp_path: Path) -> None:
    async with serving(tmp_path, FINE) as served:
        ids = await asyncio.gather(*(served.start(FINE, request_id="once") for _ in range(20)))
        assert len(set(ids)) == 1
        assert query(served.path, "SELECT count(*) FROM runs") == [(1,)]


@pytest.mark.parametrize(
    "other",
    [{"input": "Stop."}, {"streaming": False}, {"options": RunOptions(session_id="s")}],
    ids=lambda one: next(iter(one)),
)
async def test_a_request_id_with_another_payload_already_exists(
    tmp_path: Path, other: dict[str, Any]
) -> None:
    async with serving(tmp_path, FINE) as served:
        run_id = await served.start(FINE, request_id="once")
        fields: dict[str, Any] = {"agent_id": "demo", "input": "Go.", "streaming": True} | other
        answer = served.runs.CreateRun(pb.CreateRunRequest(request_id="once", **fields))
        error = await refused(answer)
        assert await answer.code() is grpc.StatusCode.ALREADY_EXISTS
        assert type(error) is RequestIdReused
        assert error.metadata == {"request_id": "once", "run_id": run_id}


async def test_create_run_returns_the_run_when_it_is_on_disk(tmp_path: Path) -> None:
    async with serving(tmp_path, FINE) as served:
        options = RunOptions(session_id="s", user_id="u")
        request = pb.CreateRunRequest(agent_id="demo", input="Go.", options=options)
        run = (await served.runs.CreateRun(request)).run
        assert query(served.path, "SELECT run_id FROM runs") == [(run.run_id,)]
        assert (run.workflow_id, run.session_id, run.user_id) == ("demo", "s", "u")
        assert not run.streaming
        events = await served.events(run.run_id)
        assert not any(event.HasField("text_delta") for event in events)
        assert not events[0].agent_start.streaming


async def test_ids_order_by_time_of_creation(tmp_path: Path) -> None:
    async with serving(tmp_path, FINE) as served:
        ids = [await served.start(FINE) for _ in range(20)]
        assert ids == sorted(ids)


OVER = "x" * (1024 * 1024 + 1)

WRONG: dict[str, tuple[dict[str, Any], str, str]] = {
    "no agent": ({"agent_id": ""}, "agent_id", "is empty"),
    "no input": ({"input": ""}, "input", "is empty"),
    "blank input": ({"input": " \n\t"}, "input", "is empty"),
    "both inputs": (
        {"input_messages_json": '[{"role": "user", "content": "Go."}]'},
        "input_messages_json",
        "cannot be given together with input",
    ),
    "input too large": ({"input": OVER}, "input", "has 1048577 bytes, the limit is 1048576"),
    "no JSON": (
        {"input": "", "input_messages_json": "[{"},
        "input_messages_json",
        "is not valid JSON",
    ),
    "no array": ({"input": "", "input_messages_json": "{}"}, "input_messages_json", "JSON array"),
    "empty array": ({"input": "", "input_messages_json": "[]"}, "input_messages_json", "at least"),
    "no role": (
        {"input": "", "input_messages_json": '[{"role": "user"}, {"content": "Go."}]'},
        "input_messages_json[1]",
        "is not an object with a role",
    ),
    "no object": (
        {"input": "", "input_messages_json": '["Go."]'},
        "input_messages_json[0]",
        "is not an object with a role",
    ),
    "messages too large": (
        {"input": "", "input_messages_json": json.dumps([{"role": "user", "content": OVER}])},
        "input_messages_json",
        "the limit is 1048576",
    ),
    "request id too long": ({"request_id": "x" * 129}, "request_id", "129 characters"),
}

WRONG_OPTIONS: dict[str, tuple[dict[str, Any], str, str]] = {
    "session id": ({"session_id": "é" * 257}, "session_id", "has 257 characters"),
    "user id": ({"user_id": "x" * 257}, "user_id", "has 257 characters"),
    "state no JSON": ({"initial_state_json": "{"}, "initial_state_json", "is not valid JSON"),
    "state no object": ({"initial_state_json": "[1]"}, "initial_state_json", "not a JSON object"),
    "state empty": ({"initial_state_json": ""}, "initial_state_json", "is not valid JSON"),
    "state too large": (
        {"initial_state_json": json.dumps({"x": "x" * 256 * 1024})},
        "initial_state_json",
        "the limit is 262144",
    ),
    "model options no object": (
        {"provider_options_json": '"seed"'},
        "provider_options_json",
        "is not a JSON object",
    ),
    "unknown model option": (
        {"provider_options_json": '{"base_url": "http://elsewhere"}'},
        "provider_options_json.base_url",
        "cannot be set",
    ),
    "no time": ({"timeout": {"seconds": 0}}, "timeout", "not from 0.001 s to 3153600000 s"),
    "negative time": ({"timeout": {"seconds": -1}}, "timeout", "is -1.0 s"),
    "too short": ({"timeout": {"nanos": 999_999}}, "timeout", "not from 0.001 s"),
    "too long": ({"timeout": {"seconds": 3_153_600_001}}, "timeout", "is 3153600001.0 s"),
    "far too long": ({"timeout": {"seconds": 2**62}}, "timeout", "to 3153600000 s"),
}


@pytest.mark.parametrize("case", WRONG)
async def test_a_wrong_field_is_named_with_what_is_wrong(tmp_path: Path, case: str) -> None:
    fields, field, what = WRONG[case]
    await refuses(tmp_path, {"agent_id": "demo", "input": "Go."} | fields, field, what)


@pytest.mark.parametrize("case", WRONG_OPTIONS)
async def test_a_wrong_option_is_named_with_what_is_wrong(tmp_path: Path, case: str) -> None:
    options, field, what = WRONG_OPTIONS[case]
    fields = {"agent_id": "demo", "input": "Go.", "options": options}
    await refuses(tmp_path, fields, f"options.{field}", what)


async def refuses(tmp_path: Path, fields: dict[str, Any], field: str, what: str) -> None:
    """Demand that both ways to start refuse, for one reason, and start nothing."""
    async with serving(tmp_path, FINE) as served:
        answers = (
            served.runs.CreateRun(pb.CreateRunRequest(**fields)),
            served.runs.StreamRun(pb.StreamRunRequest(**fields)).read(),
        )
        for answer in answers:
            error = await refused(answer)
            assert isinstance(error, InvalidRequest)
            assert list(error.violations) == [field]
            assert what in error.violations[field]
        assert query(served.path, "SELECT count(*) FROM runs") == [(0,)]


async def test_every_wrong_field_is_told_at_once(tmp_path: Path) -> None:
    async with serving(tmp_path, FINE) as served:
        options = RunOptions(session_id="x" * 257, initial_state_json="[")
        request = pb.CreateRunRequest(agent_id="demo", request_id="x" * 129, options=options)
        error = await refused(served.runs.CreateRun(request))
        assert isinstance(error, InvalidRequest)
        wrong = {"input", "request_id", "options.session_id", "options.initial_state_json"}
        assert set(error.violations) == wrong


PAYLOADS: dict[str, tuple[dict[str, Any], dict[str, str]]] = {
    "invalid JSON": (
        {"payload_json": "{", "request_id": "x" * 129},
        {"payload_json": "is not valid JSON", "request_id": "has 129 characters"},
    ),
    "half a character": (
        {"payload_json": '{"a": ["\\ud800"]}'},
        {"payload_json.a[0]": "without its other half"},
    ),
    "too large": (
        {"payload_json": f'{{"a": "{"x" * 262_136}"}}'},
        {"payload_json": "has 262145 bytes, the limit is 262144"},
    ),
    "no payload": ({}, {"payload_json": "is missing"}),
    "another type": ({"payload_json": "[1]"}, {"payload_json": "should be"}),
    "input": (
        {"payload_json": "{}", "input": "Go."},
        {"input": NO_INPUT},
    ),
    "a conversation": (
        {"input_messages_json": "[]", "payload_json": "["},
        {
            "input_messages_json": NO_INPUT,
            "payload_json": "is not valid JSON",
        },
    ),
    "model options": (
        {"payload_json": "{}", "options": RunOptions(provider_options_json="{}")},
        {"options.provider_options_json": "cannot be given to a workflow: it asks no model"},
    ),
}


@pytest.mark.parametrize("case", PAYLOADS)
async def test_a_wrong_payload_is_named_with_what_is_wrong(tmp_path: Path, case: str) -> None:
    fields, wrong = PAYLOADS[case]
    async with serving(tmp_path, asking) as served:
        for answer in (
            served.runs.CreateRun(pb.CreateRunRequest(agent_id="asking", **fields)),
            served.runs.StreamRun(pb.StreamRunRequest(agent_id="asking", **fields)).read(),
        ):
            error = await refused(answer)
            assert isinstance(error, InvalidRequest)
            assert error.violations.keys() == wrong.keys()
            assert all(what in error.violations[field] for field, what in wrong.items())
        assert query(served.path, "SELECT count(*) FROM runs") == [(0,)]


async def test_an_agent_takes_no_payload(tmp_path: Path) -> None:
    async with serving(tmp_path, FINE) as served:
        request = pb.CreateRunRequest(agent_id="demo", payload_json="{}", request_id="x" * 129)
        error = await refused(served.runs.CreateRun(request))
        assert isinstance(error, InvalidRequest)
        assert error.violations["payload_json"] == "cannot be given to an agent: give it an input"
        assert error.violations.keys() == {"payload_json", "input", "request_id"}
        request = pb.CreateRunRequest(agent_id="nobody", payload_json="{}")
        assert isinstance(await refused(served.runs.CreateRun(request)), AgentNotFound)


async def test_the_largest_payload_is_taken_and_its_run_is_started_once(tmp_path: Path) -> None:
    async with serving(tmp_path, asking) as served:
        payload = f"{{{' ' * 262_142}}}"
        start = pb.CreateRunRequest(agent_id="asking", payload_json=payload, request_id="r")
        run_id = (await served.runs.CreateRun(start)).run.run_id
        events = await served.events(run_id)
        assert events[0].workflow_start.payload_json == payload
        assert events[-1].workflow_finish.result_json == "{}"
        assert (await served.runs.CreateRun(start)).run.run_id == run_id
        start.payload_json = "{}"
        error = await refused(served.runs.CreateRun(start))
        assert isinstance(error, RequestIdReused)
        assert error.metadata == {"request_id": "r", "run_id": run_id}


@pytest.mark.parametrize(
    "fields",
    [
        {"input": "x" * 1024 * 1024},
        {"request_id": "é" * 128},
        {"options": RunOptions(session_id="é" * 256, user_id="")},
        {"options": {"timeout": {"seconds": 3_153_600_000}}},
        {"options": RunOptions(provider_options_json='{"seed": 7}', initial_state_json="{}")},
    ],
    ids=["input", "request_id", "names", "timeout", "json"],
)
async def test_what_is_just_within_the_bounds_is_taken(
    tmp_path: Path, fields: dict[str, Any]
) -> None:
    async with serving(tmp_path, FINE) as served:
        request = pb.CreateRunRequest(**{"agent_id": "demo", "input": "Go."} | fields)
        run_id = (await served.runs.CreateRun(request)).run.run_id
        assert (await served.events(run_id))[-1].agent_finish.result == "fine"


async def test_an_agent_that_is_not_loaded_is_not_found_and_the_loaded_ones_are_told(
    tmp_path: Path,
) -> None:
    async with serving(tmp_path, FINE, scripted("fine", id="a")) as served:
        for answer in (
            served.runs.CreateRun(pb.CreateRunRequest(agent_id="nobody", input="Go.")),
            served.runs.StreamRun(pb.StreamRunRequest(agent_id="nobody", input="Go.")).read(),
            served.agents.GetAgent(agents_pb.GetAgentRequest(agent_id="nobody")),
        ):
            error = await refused(answer)
            assert type(error) is AgentNotFound
            assert error.metadata == {"agent_id": "nobody", "known": "a,demo"}
            assert str(error) == "There is no agent or workflow 'nobody'. Loaded: a, demo."


async def test_a_conversation_is_stored_whole(tmp_path: Path) -> None:
    async with serving(tmp_path, FINE) as served:
        messages = [{"role": "user", "content": "Hi"}, {"role": "assistant", "content": "Yes?"}]
        stream = await FINE.stream(served.client, [*messages, {"role": "user", "content": "Go."}])
        assert await stream.text() == "fine"
        (definition,) = query(served.path, "SELECT definition FROM runs")[0]
    assert json.loads(definition)["messages"] == [*messages, {"role": "user", "content": "Go."}]


async def test_heartbeats_say_where_the_log_stands(tmp_path: Path) -> None:
    gate = Gate()
    agent = scripted(turn(call("gate")), "after", tools=(gate.tool,))
    async with serving(tmp_path, agent) as served:
        served.readers.heartbeat = 0.05
        run_id = await served.start(agent)
        await gate.reached()
        latest = (await served.runs.GetRun(pb.GetRunRequest(run_id=run_id))).run.latest_sequence
        live = served.raw(run_id, latest)
        for _ in range(3):
            beat = pb.StreamWorkflowResponse.FromString(await live.read())
            assert (list(beat.events), beat.latest_sequence) == ([], latest)
        gate.opened.set()
        while not (rest := events_in(await live.read())):
            pass
        assert rest[0].sequence == latest + 1
        live.cancel()
