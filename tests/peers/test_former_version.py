"""A replica of a former version beside one of today, on NATS: both continue plain agents' runs."""

from __future__ import annotations

import asyncio
import io
import json
import subprocess
import sys
import tarfile
from collections.abc import AsyncIterator
from pathlib import Path

import grpc.aio
import pytest

from bench.processes import ROOT
from polos.v1.run_pb2 import Run, RunState
from polos.v1.run_service_pb2 import (
    CancelRunRequest,
    CreateRunRequest,
    GetRunRequest,
    ListRunsRequest,
    ResumeRunRequest,
)
from polos.v1.run_service_pb2_grpc import RunServiceStub
from tests.support.nats import NatsServer
from tests.support.process import ServiceProcess

FORMER = "d1a4a1e"
"""The commit: the last one that knows neither workflows nor suspended runs."""

CLAIM_TIMEOUT = 1.0
"""Seconds of silence after which a replica loses its claims."""

RUNNING, SUSPENDED = RunState.RUN_STATE_RUNNING, RunState.RUN_STATE_SUSPENDED
COMPLETED, CANCELLED = RunState.RUN_STATE_COMPLETED, RunState.RUN_STATE_CANCELLED

AGENT = """
import asyncio
from pathlib import Path
from polos import Agent, scripted, tool

@tool
async def gate() -> str:
    "Wait until the gate is open."
    while not Path(__file__).with_name("open").exists():
        await asyncio.sleep(0.01)
    return "open"

script = scripted.script(scripted.turn("Wait. ", scripted.call("gate")), "It is open.")
plain = Agent(id="plain", provider="scripted", model=script, tools=[gate])
"""

WORKFLOW = """
from polos import workflow

@workflow(id="order")
async def order(ctx):
    await ctx.step.run("first", lambda: 1)
    await ctx.step.suspend("ask", timeout=3600)
    await ctx.step.wait_for("nap", seconds=1)
    return "sent"

@workflow(id="starts")
async def starts(ctx):
    handle = await ctx.step.invoke("go", "plain", {"input": "Go"})
    return handle.id
"""

LAUNCHER = """
import sys
checkout = sys.argv.pop(1)
sys.path[:0] = [checkout, checkout + "/generated"]
from polos_service.cli import main
main()
"""


class Former(ServiceProcess):
    """`polos serve` of the former version."""

    def _command(self) -> tuple[str | Path, ...]:
        folder = Path(self._app).parent
        return (sys.executable, folder / "launch.py", folder / "former")


@pytest.fixture
def former_version(tmp_path: Path) -> Path:
    """Give the files of the former version."""
    known = ["git", "cat-file", "-e", FORMER]
    if subprocess.run(known, cwd=ROOT, capture_output=True, check=False).returncode:
        pytest.skip(f"the clone has no history: {FORMER} is not in it")
    command = ["git", "archive", FORMER, "polos_client", "polos_service", "generated"]
    archive = subprocess.run(command, cwd=ROOT, capture_output=True, check=True).stdout
    with tarfile.open(fileobj=io.BytesIO(archive)) as opened:
        opened.extractall(tmp_path / "former", filter="data")
    return tmp_path


@pytest.fixture
async def replicas(former_version: Path) -> AsyncIterator[tuple[Former, ServiceProcess]]:
    """Give a former replica, and one of today."""
    tmp_path = former_version
    for name, text in (
        ("launch.py", LAUNCHER),
        ("former.py", AGENT),
        ("today.py", AGENT + WORKFLOW),
    ):
        (tmp_path / name).write_text(text)
    settings = {
        "POLOS_CLAIM_TIMEOUT": str(CLAIM_TIMEOUT),
        "POLOS_WAIT_THRESHOLD_SECONDS": "0.1",
    }
    store = tmp_path / "nats"
    store.mkdir()
    with NatsServer(store) as server:
        former = Former(tmp_path / "former.py", server.url, **settings)
        today = ServiceProcess(tmp_path / "today.py", server.url, **settings)
        async with former, today:
            yield former, today


async def test_each_goes_on_with_the_plain_run_of_the_other(
    replicas: tuple[Former, ServiceProcess], tmp_path: Path
) -> None:
    former, today = replicas
    for first, second in ((former, today), (today, former)):
        await second.kill()
        run_id = await start(first, "plain")
        await come_to(first, run_id, RUNNING)
        await second.start()
        await first.kill()
        (tmp_path / "open").touch()
        run = await come_to(second, run_id, COMPLETED)
        assert run.outcome.agent_finish.result == "It is open."
        (tmp_path / "open").unlink()
        await first.start()


async def test_a_former_replica_leaves_alone_what_it_cannot_run(
    replicas: tuple[Former, ServiceProcess], tmp_path: Path
) -> None:
    former, today = replicas
    asks, cancelled = [await start(today, "order") for _ in range(2)]
    for run_id in (asks, cancelled):
        await come_to(today, run_id, SUSPENDED)
    queued = await start(today, "order")
    await today.kill()
    (tmp_path / "open").touch()
    await come_to(former, await start(former, "plain"), COMPLETED)
    await today.start()
    await come_to(today, queued, SUSPENDED)
    for run_id in (asks, cancelled):
        waiting = await come_to(today, run_id, SUSPENDED)
        assert [one.step_key for one in waiting.open_waits] == ["ask"]
    async with grpc.aio.insecure_channel(today.address) as channel:
        answer = ResumeRunRequest(run_id=asks, step_key="ask", data_json="true")
        await RunServiceStub(channel).ResumeRun(answer)
    run = await come_to(today, asks, COMPLETED)
    assert run.outcome.workflow_finish.result_json == '"sent"'
    async with grpc.aio.insecure_channel(former.address) as channel:
        await RunServiceStub(channel).CancelRun(CancelRunRequest(run_id=cancelled))
    await come_to(today, cancelled, CANCELLED)


async def test_a_former_replica_goes_on_with_a_run_that_a_workflow_has_started(
    replicas: tuple[Former, ServiceProcess], tmp_path: Path
) -> None:
    former, today = replicas
    parent = await come_to(today, await start(today, "starts"), COMPLETED)
    run_id = json.loads(parent.outcome.workflow_finish.result_json)
    assert (await come_to(former, run_id, RUNNING)).run_id == run_id
    await today.kill()
    (tmp_path / "open").touch()
    ended = await come_to(former, run_id, COMPLETED)
    assert ended.outcome.agent_finish.result == "It is open."
    async with grpc.aio.insecure_channel(former.address) as channel:
        listed = (await RunServiceStub(channel).ListRuns(ListRunsRequest())).runs
    assert run_id in [run.run_id for run in listed]
    await today.start()
    known = await come_to(today, run_id, COMPLETED)
    assert (known.parent_run_id, known.parent_step_key) == (parent.run_id, "go")


async def start(service: ServiceProcess, runnable: str) -> str:
    async with grpc.aio.insecure_channel(service.address) as channel:
        asked = CreateRunRequest(agent_id=runnable, input="Go" if runnable == "plain" else "")
        run_id: str = (await RunServiceStub(channel).CreateRun(asked)).run.run_id
        return run_id


async def come_to(service: ServiceProcess, run_id: str, state: RunState.ValueType) -> Run:
    async with asyncio.timeout(90), grpc.aio.insecure_channel(service.address) as channel:
        while True:
            asked = GetRunRequest(run_id=run_id)
            run = (await RunServiceStub(channel).GetRun(asked)).run
            if run.state == state:
                return run
            await asyncio.sleep(0.05)
