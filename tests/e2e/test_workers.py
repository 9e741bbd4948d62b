"""`polos serve --workers`: processes die, are replaced and stopped, and readers notice nothing."""

from __future__ import annotations

import asyncio
import contextlib
import os
import re
import signal
from pathlib import Path
from typing import Any

import grpc
import grpc.aio
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc

from polos import Agent, PolosClient
from polos_client.calls import connection as connection_module
from polos_service.outlet import STOPPING
from tests.support.process import PATIENCE, POLOS, environment, until
from tests.support.reader import Events, assert_whole, texts
from tests.support.workers import Workers, end_of

APP = """
import asyncio
import os
from pathlib import Path

from polos import Agent, scripted, tool

HERE = Path(__file__).parent


@tool(description="Wait until the gate is open")
async def gate() -> str:
    print("waiting in", os.getpid(), "x" * 100_000, "end")
    while not (HERE / "open").exists():
        await asyncio.sleep(0.01)
    return "open"


waiter = Agent(
    id="waiter",
    provider="scripted",
    model=scripted.script(scripted.turn("Wait. ", scripted.call("gate")), "It is open."),
    tools=[gate],
)
"""

WAITER = Agent(id="waiter", provider="scripted", model="script")
"""The agent as a caller defines it."""

MORE = 'more = Agent(id="more", provider="scripted", model=scripted.script("I am new."))\n'
MORE_AGENT = Agent(id="more", provider="scripted", model="script")


@pytest.fixture(autouse=True)
def patient(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let clients wait for a service on a machine that is busy."""
    monkeypatch.setattr(connection_module, "PATIENCE", PATIENCE)


@pytest.fixture
def app(tmp_path: Path) -> Path:
    file = tmp_path / "app.py"
    file.write_text(APP)
    return file


def add_to(app: Path, text: str) -> None:
    """Save the app with more in it."""
    app.write_text(APP + text)


def open_gate(app: Path) -> None:
    app.with_name("open").touch()


async def waits_in(polos: Workers, times: int = 1) -> int:
    """Wait until tools have begun to wait so many times; return the process of the last one."""

    def found() -> list[str]:
        return re.findall(r"^worker=\d+ waiting in (\d+) x", polos.output, re.MULTILINE)

    await until(lambda: len(found()) >= times, f"{times} tools that wait")
    return int(found()[times - 1])


async def test_a_worker_and_the_store_are_killed_and_a_reader_misses_nothing(app: Path) -> None:
    async with Workers(app, 2) as polos, PolosClient(polos.address) as client:
        stream = await WAITER.stream(client, "Go")
        async with Events(stream.events) as read:
            first = await waits_in(polos)
            assert first in polos.workers
            os.kill(first, signal.SIGKILL)
            second = await waits_in(polos, 2)
            await polos.said(rf"worker_ended .*how=SIGKILL pid={first} ")
            await until(lambda: first not in polos.workers, "another worker")
            server = polos.nats
            os.kill(server, signal.SIGKILL)
            await until(lambda: polos.nats != server, "another nats-server")
            open_gate(app)
            log = await read.all()
        assert second != first
        assert_whole(log)
        assert "".join(texts(log)) == "Wait. It is open."
        assert any(event.event_type == "step_retry" for event in log)
        assert [line for line in polos.lines if "Traceback" in line] == []


async def test_killed_or_stopped_the_supervisor_leaves_nothing_but_the_runs(app: Path) -> None:
    async with Workers(app, 2) as polos, PolosClient(polos.address) as client:
        stream = await WAITER.stream(client, "Go")
        async with Events(stream.events) as read:
            await waits_in(polos)
            os.kill(polos.pid, signal.SIGKILL)
            await polos.all_end()
            await polos.ended()
            open_gate(app)
            await polos.start()
            log = await read.all()
        assert_whole(log)
        printed = len(polos.lines)
        polos.send(signal.SIGINT)
        assert await polos.ended() == 0
        assert polos.lines[printed:] == [STOPPING]
        await polos.all_end()


async def test_workers_are_replaced_one_by_one_and_nobody_is_refused(app: Path) -> None:
    async with Workers(app, 2, POLOS_GRACE="0.1") as polos, PolosClient(polos.address) as client:
        stream = await WAITER.stream(client, "Go")
        async with Events(stream.events) as read:
            await waits_in(polos)
            before = polos.workers
            add_to(app, "nothing = there_is_no_such_name\n")
            polos.send(signal.SIGHUP)
            await polos.said("restart_abandoned .*there_is_no_such_name")
            assert polos.workers == before

            add_to(app, MORE)
            polos.send(signal.SIGHUP)
            while set(before) & set(polos.workers):
                await call_anew(polos)
                await asyncio.sleep(0.05)
            open_gate(app)
            log = await read.all()
        assert_whole(log)
        await end_of(*before)
        assert await (await MORE_AGENT.stream(client, "Who are you?")).text() == "I am new."


async def call_anew(polos: Workers) -> None:
    """Call on a connection of its own, which any worker may get; it must serve."""
    async with PolosClient(polos.address) as caller:
        await caller.list_agents()
        stub: Any = health_pb2_grpc.HealthStub(await caller.channel())
        # A connection may be lost on the way to a worker that stops; nobody says NOT_SERVING.
        with contextlib.suppress(grpc.aio.AioRpcError):
            answer = await stub.Check(health_pb2.HealthCheckRequest())
            assert answer.status == health_pb2.HealthCheckResponse.SERVING


async def test_a_second_signal_stops_at_once(app: Path) -> None:
    async with Workers(app, 1, POLOS_GRACE="3600") as polos, PolosClient(polos.address) as client:
        await WAITER.stream(client, "Go")
        await waits_in(polos)
        polos.send(signal.SIGTERM)
        await polos.said("^Stopping")
        polos.send(signal.SIGTERM)
        assert await polos.ended() == 128 + signal.SIGTERM
        await polos.all_end()


async def test_address_and_store_are_nobody_elses(app: Path) -> None:
    async with Workers(app, 1) as polos:
        again, elsewhere = await asyncio.gather(
            serve(app, "--listen", polos.address, "--workers", "1"),
            serve(app, "--listen", "127.0.0.1:0", "--workers", "1"),
        )
        address = f"Error: Cannot listen on {polos.address}: the port is in use. "
        store = f"Error: The store {app.parent}/polos/nats is in use by another process. "
        assert again[0] == elsewhere[0] == 1
        assert again[1].startswith(address)
        assert elsewhere[1].startswith(store)
        async with PolosClient(polos.address) as client:
            open_gate(app)
            assert await (await WAITER.stream(client, "Go")).text() == "Wait. It is open."


async def test_what_cannot_be_served_is_told_once(app: Path) -> None:
    broken = app.with_name("broken.py")
    broken.write_text("raise RuntimeError('no settings')\n")
    leaving = app.with_name("leaving.py")
    leaving.write_text("import sys\nsys.exit(3)\n")
    workers = ("--listen", "127.0.0.1:0", "--workers", "3")
    refused = await asyncio.gather(
        serve(broken, *workers, data="a"),
        serve(leaving, *workers, data="b"),
        serve(app, *workers, "--store", "sqlite:///tmp/runs.db"),
        serve(app, *workers, "--reload"),
    )
    assert [code for code, _ in refused] == [1, 3, 1, 1]
    told = [said.splitlines() for _, said in refused]
    assert told[0][1] == "Error: broken.py cannot be loaded."
    assert told[0][-1] == "RuntimeError: no settings"
    assert len(told[0]) == 6
    assert told[1][1:] == ["Error: A worker ended with exit code 3 before it served."]
    assert told[2][0].startswith("Error: POLOS_STORE (--store): a SQLite file belongs to one ")
    assert told[3] == [
        "Error: --reload serves with a single process: leave out --workers (POLOS_WORKERS)."
    ]


async def serve(app: Path, *options: str, data: str = ".") -> tuple[int, str]:
    """Run `polos serve` to its end, which must come; return its exit code and standard error."""
    process = await asyncio.create_subprocess_exec(
        POLOS,
        *("serve", str(app), *options),
        env=environment(XDG_DATA_HOME=str(app.parent / data)),
        stdin=asyncio.subprocess.DEVNULL,
        stderr=asyncio.subprocess.PIPE,
    )
    async with asyncio.timeout(PATIENCE):
        _, said = await process.communicate()
    assert process.returncode is not None
    return process.returncode, said.decode()
