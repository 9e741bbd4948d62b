"""The traps of grpc.aio: one test or more for each."""

from __future__ import annotations

import asyncio
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import grpc
import grpc.aio
import pytest
import structlog.testing
from google.protobuf.descriptor import MethodDescriptor
from google.protobuf.message_factory import GetMessageClass
from pydantic import ValidationError

from polos.v1 import run_service_pb2 as pb
from polos_client.calls import channels as channels_module
from polos_client.calls.client import PolosClient
from polos_client.calls.status import to_error
from polos_client.define.scripted import call, pause, turn
from polos_client.define.tool import tool
from polos_client.errors import Draining, InternalError, InvalidRequest, PolosError
from polos_service import server as root
from polos_service.api.grpc import server as server_module
from polos_service.api.grpc.handlers import generic_handler
from polos_service.api.grpc.server import AGENT_SERVICE, RUN_SERVICE
from polos_service.config import PING_SECONDS
from polos_service.listening import ListenError
from polos_service.server import Service
from tests.support.control import Gate, Thread
from tests.support.service import (
    BOUND,
    Served,
    answer_of,
    events_in,
    scripted,
    serving,
    settings_for,
    text_of,
    until,
)

WAITING = scripted(turn("Hello ", pause()), id="waiting")


PINGS = "grpc.keepalive_time_ms"


async def said(served: Served, run_id: str) -> bool:
    """Return whether a run's log has begun."""
    return (await served.store.get("default", run_id)).latest > 0


def refusal(error: grpc.aio.AioRpcError) -> PolosError:
    """Return what a client makes of a failed call."""
    return to_error(error, "the service")


async def test_breaking_out_of_a_loop_ends_the_call_in_the_service(tmp_path: Path) -> None:
    async with serving(tmp_path, WAITING) as served:
        waits = served.readers._tails
        stream = await WAITING.stream(served.client, "Go.")
        async for _event in stream.events:
            break
        async for _chunk in stream.text_chunks:
            await until(lambda: len(waits) == 1, "the second reader waits, and the first has left")
            break
        await until(lambda: not waits, "no reader is left")


@pytest.mark.parametrize("cancelled", ["get", "read"])
async def test_a_cancellation_inside_a_handler_becomes_a_status(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, cancelled: str
) -> None:
    async def raises(*_: object) -> Any:
        raise asyncio.CancelledError

    async with serving(tmp_path, WAITING) as served:
        run_id = await served.start(WAITING)
        await until(lambda: said(served, run_id), "there is something to read")
        monkeypatch.setattr(served.service._store, cancelled, raises)
        async with asyncio.timeout(BOUND):
            with pytest.raises(grpc.aio.AioRpcError) as caught:
                await served.runs.GetRun(pb.GetRunRequest(run_id=run_id))
            with pytest.raises(grpc.aio.AioRpcError) as streamed:
                await served.events(run_id)
        monkeypatch.undo()
    assert isinstance(refusal(caught.value), Draining)
    assert isinstance(refusal(streamed.value), Draining)


@pytest.mark.parametrize("failing", ["get", "read"])
async def test_the_text_of_an_unexpected_exception_does_not_leave_the_service(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, failing: str
) -> None:
    async def raises(*_: object) -> Any:
        raise RuntimeError("planted secret")

    async with serving(tmp_path, WAITING) as served:
        run_id = await served.start(WAITING)
        await until(lambda: said(served, run_id), "there is something to read")
        monkeypatch.setattr(served.service._store, failing, raises)
        with structlog.testing.capture_logs() as logs:
            with pytest.raises(grpc.aio.AioRpcError) as caught:
                await served.runs.GetRun(pb.GetRunRequest(run_id=run_id))
            with pytest.raises(grpc.aio.AioRpcError) as streamed:
                await served.events(run_id)
        monkeypatch.undo()
    for entry, error in zip(logs, (caught.value, streamed.value), strict=True):
        meaning = refusal(error)
        assert isinstance(meaning, InternalError)
        assert error.code() is grpc.StatusCode.INTERNAL
        assert meaning.metadata == {"error_id": entry["error_id"]}
        assert (
            str(meaning)
            == f"The service failed. Its log has the details under {entry['error_id']}."
        )
        assert "planted" not in f"{error!r}{error.trailing_metadata()!r}"
        assert (entry["event"], str(entry["exc_info"])) == ("call_failed", "planted secret")


async def test_a_client_that_pings_a_silent_stream_is_not_sent_away(tmp_path: Path) -> None:
    # The pair of settings as it is, a hundred times faster: the client pings every 300 ms.
    async with serving(tmp_path, WAITING, min_ping_interval=PING_SECONDS / 100) as served:
        run_id = await served.start(WAITING)
        # Core's client pings without data only twice, by itself; those of other languages go on.
        options = [
            *faster(PINGS, channels_module.OPTIONS),
            ("grpc.http2.max_pings_without_data", 0),
        ]
        address = f"127.0.0.1:{served.service.port}"
        async with grpc.aio.insecure_channel(address, options=options) as channel:
            open_stream: Any = channel.unary_stream(
                "/polos.v1.RunService/StreamWorkflow",
                request_serializer=pb.StreamWorkflowRequest.SerializeToString,
            )
            live = open_stream(pb.StreamWorkflowRequest(workflow_run_id=run_id))
            said = ""
            while said != "Hello ":
                said += text_of(events_in(await live.read()))
            silent = asyncio.create_task(live.read())
            done, _ = await asyncio.wait({silent}, timeout=5.0)
            assert not done, f"{await live.code()}: {await live.details()}"
            live.cancel()
            await asyncio.wait({silent})


def faster(time: str, options: Any) -> Iterator[tuple[str, int]]:
    """Yield the options with one time a hundredth as long."""
    for name, value in options:
        yield name, value // 100 if name == time else value


def test_the_client_pings_more_rarely_than_the_service_allows(tmp_path: Path) -> None:
    server, client = dict(server_module.OPTIONS), dict(channels_module.OPTIONS)
    assert client[PINGS] >= 2 * 1000 * settings_for(tmp_path).min_ping_interval
    with pytest.raises(ValidationError):
        settings_for(tmp_path, min_ping_interval=client[PINGS] / 1000)
    assert server["grpc.keepalive_permit_without_calls"] == 1


@tool
async def fill() -> str:
    """Return much."""
    return "x" * 400 * 1024


async def test_responses_stay_well_below_4_mib_in_a_log_of_large_events(tmp_path: Path) -> None:
    agent = scripted(turn(*(call("fill") for _ in range(30))), "done", tools=(fill,))
    async with serving(tmp_path, agent) as served:
        run_id = await served.start(agent)
        live = [len(response) async for response in served.raw(run_id)]
        replayed = [len(response) async for response in served.raw(run_id)]
        inside = [len(response) async for response in served.raw(run_id, 40)]
        assert sum(replayed) > 30 * 400 * 1024
        assert max(live + replayed + inside) <= 1.5 * 1024 * 1024 + 100


async def test_a_request_over_4_mib_gets_a_status(tmp_path: Path) -> None:
    async with serving(tmp_path, WAITING) as served:
        request = pb.CreateRunRequest(agent_id="waiting", input="x" * 5 * 1024 * 1024)
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await served.runs.CreateRun(request)
        assert caught.value.code() is grpc.StatusCode.RESOURCE_EXHAUSTED
        runs = (await served.runs.ListRuns(pb.ListRunsRequest())).runs
        assert not runs


async def test_the_client_refuses_what_is_too_large_before_it_sends() -> None:
    async with PolosClient("127.0.0.1:1") as client:
        for size in (1024 * 1024 + 1, 5 * 1024 * 1024):
            with pytest.raises(InvalidRequest, match=f"input has {size} bytes"):
                await WAITING.stream(client, "x" * size)
        assert not client._channels._made


async def test_a_port_in_use_is_an_error_and_leaves_nothing_behind(tmp_path: Path) -> None:
    (tmp_path / "other").mkdir()
    async with serving(tmp_path, WAITING) as served:
        taken = f"127.0.0.1:{served.service.port}"
        settings = settings_for(tmp_path / "other", listen=taken)
        with pytest.raises(ListenError, match=f"Cannot listen on {taken}: the port is in use"):
            await Service.start(settings, [WAITING])
        async with serving(tmp_path / "other", WAITING) as second:
            assert await second.start(WAITING)


@pytest.mark.parametrize("service", [RUN_SERVICE, AGENT_SERVICE], ids=lambda one: str(one.name))
def test_a_servicer_without_one_of_the_methods_cannot_be_registered(service: Any) -> None:
    names = [method.name for method in service.methods]
    whole = type("Whole", (), dict.fromkeys(names, print))()
    handler: Any = generic_handler(service, whole)
    assert set(handler._method_handlers) == {f"/{service.full_name}/{name}" for name in names}
    for name in names:
        lacking = type("Lacking", (), {one: print for one in names if one != name})()
        with pytest.raises(AttributeError, match=name):
            generic_handler(service, lacking)


@pytest.mark.parametrize(
    "method", [*RUN_SERVICE.methods, *AGENT_SERVICE.methods], ids=lambda one: str(one.name)
)
async def test_every_method_of_the_descriptors_is_served(
    tmp_path: Path, method: MethodDescriptor
) -> None:
    async with serving(tmp_path, WAITING) as served:
        stubs: Any = served.runs if method.containing_service is RUN_SERVICE else served.agents
        answer = getattr(stubs, method.name)(GetMessageClass(method.input_type)())
        if method.server_streaming:
            assert await answer.code() is grpc.StatusCode.INVALID_ARGUMENT
        elif method.name.startswith("List"):
            assert type(await answer) is GetMessageClass(method.output_type)
        else:
            with pytest.raises(grpc.aio.AioRpcError) as caught:
                await answer
            assert isinstance(refusal(caught.value), InvalidRequest)


PROGRAM = """
import asyncio, sys
from polos import Agent, PolosClient

agent = Agent("demo", "scripted", "whatever")
client = PolosClient(sys.argv[1])

async def main():
    print((await agent.run(client, "Go.")).result)

asyncio.run(main())
asyncio.run(main())
"""


async def test_a_client_made_at_the_top_of_a_module_works_in_two_event_loops(
    tmp_path: Path,
) -> None:
    async with serving(tmp_path, scripted("fine")) as served:
        address = f"127.0.0.1:{served.service.port}"
        program = await asyncio.create_subprocess_exec(
            sys.executable,
            *("-W", "error", "-c", PROGRAM, address),
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.PIPE,
        )
        out, err = await program.communicate()
    assert (out.split(), err, program.returncode) == ([b"fine", b"fine"], b"", 0)


async def test_a_tool_that_blocks_its_thread_stalls_no_other_run(tmp_path: Path) -> None:
    thread = Thread()
    blocked = scripted(turn(call("block")), "after", tools=(thread.tool,))
    other = scripted("fine", id="other")
    async with serving(tmp_path, blocked, other) as served:
        run_id = await served.start(blocked)
        await until(thread.entered.is_set, "the tool blocks")
        assert (await other.run(served.client, "Go.", timeout=BOUND)).result == "fine"
        assert not thread.left.is_set()
        thread.opened.set()
        assert answer_of(await served.events(run_id)).agent_finish.result == "after"


async def test_an_async_tool_that_holds_the_loop_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    logs: list[Any] = []
    named = asyncio.Event()
    gate = Gate("hog")
    monkeypatch.setattr(root, "BLOCKED_LIMIT", 0.05)
    monkeypatch.setattr(gate.opened, "wait", lambda: hold_the_loop(logs, named))
    agent = scripted(turn(call("hog")), "after", tools=(gate.tool,))
    with structlog.testing.capture_logs() as captured:
        logs = captured
        async with serving(tmp_path, agent) as served:
            await agent.run(served.client, "Go.", timeout=BOUND)
    assert named.is_set(), logs
    assert {entry["tool"] for entry in logs} == {"hog"}


async def hold_the_loop(logs: list[Any], named: asyncio.Event) -> None:
    """Block until the watchdog has told somebody."""
    end = time.monotonic() + BOUND
    while not logs and time.monotonic() < end:
        time.sleep(0.01)  # noqa: ASYNC251 - it holds the loop, that is the point
    if logs:
        named.set()
