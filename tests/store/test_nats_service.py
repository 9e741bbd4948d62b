"""Services as equal replicas on one NATS, over gRPC."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any

import pytest
from grpc_health.v1 import health_pb2

from polos.v1 import run_service_pb2 as pb
from polos.v1.run_pb2 import RunState
from polos_client.define.context import WorkflowContext
from polos_client.define.scripted import call, turn
from polos_client.define.tool import tool
from polos_client.define.workflow import workflow
from polos_service.config import Settings, SettingsInvalidError
from polos_service.runs import executor
from tests.support import family
from tests.support.nats import NatsServer
from tests.support.service import Served, scripted, serving, until, words
from tests.support.stores import soon

SERVING = health_pb2.HealthCheckResponse.SERVING
NOT_SERVING = health_pb2.HealthCheckResponse.NOT_SERVING


async def test_a_run_started_at_one_replica_streams_at_another(
    nats_server: NatsServer, tmp_path: Path
) -> None:
    agent = scripted("".join(words(200)))
    async with (
        serving(tmp_path, agent, store=nats_server.url) as one,
        serving(tmp_path, agent, store=nats_server.url) as other,
    ):
        run_id = await one.start(agent)
        events = await other.events(run_id)
        assert [event.sequence for event in events] == list(range(1, len(events) + 1))
        assert [event.terminal for event in events] == [False] * (len(events) - 1) + [True]
        assert await one.events(run_id) == events
        assert (await other.events(run_id, after=5)) == events[5:]
        run = (await other.runs.GetRun(pb.GetRunRequest(run_id=run_id))).run
        assert run.state == RunState.RUN_STATE_COMPLETED


async def test_a_run_is_cancelled_through_another_replica(
    nats_server: NatsServer, tmp_path: Path
) -> None:
    started = asyncio.Event()

    @tool
    async def hang() -> str:
        """Never end."""
        started.set()
        await asyncio.Event().wait()
        return ""

    agent = scripted(turn(call("hang")), tools=(hang,))
    async with (
        serving(tmp_path, agent, store=nats_server.url) as one,
        serving(tmp_path, store=nats_server.url) as other,
    ):
        run_id = await one.start(agent)
        await started.wait()
        await other.runs.CancelRun(pb.CancelRunRequest(run_id=run_id))
        events = await other.events(run_id)
        assert events[-1].WhichOneof("payload") == "run_cancelled"


async def test_a_run_goes_on_at_the_replica_whose_code_fits(
    nats_server: NatsServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A replica with other code leaves it, says why, and changes nothing in its log."""
    monkeypatch.setattr(executor, "PASS_PAUSE", 0.01)
    monkeypatch.setattr(executor, "RETRY_PAUSE", 0.05)
    asked = asyncio.Event()

    @workflow(id="order", version="1")
    async def before(ctx: WorkflowContext) -> str:
        await ctx.step.run("reserve", str)
        asked.set()
        await ctx.step.suspend("approve")
        return "shipped"

    @workflow(id="order", version="2")
    async def after(ctx: WorkflowContext) -> str:
        await ctx.step.uuid("reserve")
        return "shipped too early"

    async with AsyncExitStack() as stack:
        async with serving(tmp_path, before, store=nats_server.url) as one:
            handle = await before.invoke(one.client)
            await soon(asked.wait())
            other = await stack.enter_async_context(serving(tmp_path, after, store=nats_server.url))

        async def blocked() -> str:
            run = (await other.runs.GetRun(pb.GetRunRequest(run_id=handle.id))).run
            return run.blocked_reason

        await until(lambda: holds(blocked, "as 'run'"), "the other one has left the run")
        async with serving(tmp_path, before, store=nats_server.url) as one:
            await handle.resume(one.client, "approve", {})
            events = await other.events(handle.id)
        assert events[-1].workflow_finish.result_json == '"shipped"'
        assert [one.WhichOneof("payload") for one in events].count("step_start") == 1
        assert await blocked() == ""


async def holds(told: Callable[[], Awaitable[str]], part: str) -> bool:
    return part in await told()


async def test_health_tells_that_nats_is_away_and_back(
    nats_server: NatsServer, tmp_path: Path
) -> None:
    async with serving(tmp_path, store=nats_server.url) as served:
        assert await health(served) == SERVING
        await asyncio.to_thread(nats_server.stop)
        await until(lambda: health_is(served, NOT_SERVING), "health says NOT_SERVING")
        await asyncio.to_thread(nats_server.start)
        await until(lambda: health_is(served, SERVING), "health says SERVING")


async def health(served: Served) -> Any:
    return (await served.health().Check(health_pb2.HealthCheckRequest())).status


async def health_is(served: Served, status: Any) -> bool:
    return bool(await health(served) == status)


@pytest.mark.parametrize(
    ("store", "servers", "shown"),
    [
        ("nats://h:4222", ["nats://h:4222"], "nats://h:4222"),
        ("nats://u:p@a:1,u:p@b:2", ["nats://u:p@a:1", "nats://u:p@b:2"], "nats://a:1,b:2"),
        ("tls://a,tls://b", ["tls://a", "tls://b"], "tls://a,tls://b"),
        ("sqlite:///x.db", [], "sqlite:///x.db"),
    ],
)
def test_the_servers_are_those_of_the_address(store: str, servers: list[str], shown: str) -> None:
    settings = Settings(store=store)
    assert (settings.nats_servers, settings.store_shown) == (servers, shown)


@pytest.mark.parametrize("store", ["nats://", "nats://a,", "nats://user:secret@"])
def test_an_address_without_a_host_is_refused_and_not_repeated(store: str) -> None:
    with pytest.raises(SettingsInvalidError, match="nats://HOST:PORT") as refused:
        Settings.load(store=store)
    assert "secret" not in str(refused.value)


async def test_a_child_is_read_and_cancelled_through_another_replica(
    nats_server: NatsServer, tmp_path: Path
) -> None:
    async with (
        serving(tmp_path, *family.DEFINITIONS, store=nats_server.url) as one,
        serving(tmp_path, store=nats_server.url) as other,
    ):
        run_id, (child, sibling) = await family.started(one)
        reading = asyncio.ensure_future(other.events(child))
        assert (await other.client.cancel_run(child)).state == RunState.RUN_STATE_CANCELLED
        own = await soon(reading)
        assert own[-1].HasField("run_cancelled")
        await other.client.resume("asks", sibling, "ok", 1)
        log = await other.events(run_id)
        assert own == family.below(log, child)
        assert await other.events(child, after=own[0].sequence + 1) == [
            event for event in own if event.sequence > own[0].sequence + 1
        ]
        assert log[-1].HasField("workflow_finish")
        request = pb.GetRunRequest(run_id=run_id, include_tree=True)
        nodes = {one.run_id: one for one in (await other.runs.GetRun(request)).tree.nodes}
        assert nodes[child].state == RunState.RUN_STATE_CANCELLED
        assert nodes[sibling].state == nodes[run_id].state == RunState.RUN_STATE_COMPLETED
