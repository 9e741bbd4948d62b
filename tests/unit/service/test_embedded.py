"""`Polos`: its arguments, what it loads by itself, and its start and end."""

from __future__ import annotations

import asyncio
import logging
import os
import signal
import socket
import warnings
from collections.abc import Awaitable
from pathlib import Path
from typing import Any

import pytest
import structlog
from structlog.testing import capture_logs

from polos.v1.run_service_pb2 import CreateRunRequest
from polos_client.calls.client import PolosClient
from polos_client.calls.events import stream_workflow
from polos_client.define.agent import Agent
from polos_client.define.scripted import call, script, turn
from polos_client.define.tool import tool
from polos_client.define.workflow import workflow
from polos_client.errors import AgentNotFound, DefinitionError, RunFailed, StoreUnavailable
from polos_client.sync import wait
from polos_service.config import SettingsInvalidError
from polos_service.embedded import Polos
from polos_service.listening import ListenError


def speaker(agent_id: str, words: str = "Hi.") -> Agent:
    return Agent(agent_id, "scripted", script(words))


def free_port() -> int:
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        return int(one.getsockname()[1])


async def test_what_the_original_sdk_takes_is_taken() -> None:
    with pytest.warns(UserWarning, match="Polos ignores api_url, api_key, deployment_id: it is"):
        polos = Polos(
            project_id="p",
            api_url="http://localhost:8080",
            api_key="k",
            deployment_id="d",
            port=0,
            max_concurrent_workflows=3,
            channels=[],
        )
    async with polos:
        assert (await speaker("embedded-1").run(polos, "Go.")).result == "Hi."


def test_a_project_is_taken_without_a_warning() -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        Polos(project_id="p")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"channels": ["slack"]}, r"Polos\(channels=\['slack'\]\) is not built yet"),
        ({"port": 70_000}, "the port must be from 0 to 65535, not 70000"),
        ({"port": "8000"}, "the port must be from 0 to 65535, not '8000'"),
        ({"agents": "project"}, "'p' is not an Agent or a Workflow; name all other arguments"),
    ],
)
def test_what_cannot_be_used_is_refused(arguments: dict[str, Any], message: str) -> None:
    with pytest.raises(DefinitionError, match=message):
        Polos(**arguments)


async def test_a_bound_on_runs_is_kept() -> None:
    inside, most = 0, 0
    both = asyncio.Event()

    @tool
    async def meet() -> str:
        nonlocal inside, most
        inside += 1
        most = max(most, inside)
        await asyncio.sleep(0)
        if inside == 2:
            both.set()
        inside -= 1
        return "met"

    agent = Agent("embedded-2", "scripted", script(turn(call("meet")), "Done."), tools=[meet])
    async with Polos(max_concurrent_workflows=1) as polos:
        await asyncio.gather(*(agent.run(polos, "Go.") for _ in range(5)))
    assert most == 1
    with pytest.raises(SettingsInvalidError, match="POLOS_MAX_RUNS"):
        await Polos(max_concurrent_workflows=0).start()


async def test_an_agent_that_was_only_defined_is_started_by_its_id() -> None:
    agent = speaker("embedded-3", "Replaced.")
    agent = speaker("embedded-3", "Hi.")
    async with Polos() as polos:
        run = await polos.create_run(CreateRunRequest(agent_id=agent.id, input="Go."))
        async for event in stream_workflow(polos, workflow_run_id=run.run_id):
            outcome = event
        assert outcome.data["result"]["result"] == "Hi."
        with pytest.raises(AgentNotFound, match="embedded-none"):
            await polos.create_run(CreateRunRequest(agent_id="embedded-none", input="Go."))


async def test_a_workflow_is_started_as_an_agent_is() -> None:
    defined = workflow(id="defined")(lambda ctx: "by id")
    given = workflow(id="given")(lambda ctx: "from the start")
    async with Polos([given]) as polos:
        assert list(polos._running().catalog) == ["given"]
        assert await given.run(polos) == "from the start"
        handle = await polos.invoke("defined")
        events = [one async for one in stream_workflow(polos, workflow_run_id=handle.id)]
        assert events[-1].data["result"] == "by id"
        assert await defined.run(polos) == "by id"
        another = workflow(id="given")(lambda ctx: "another")
        with pytest.raises(DefinitionError, match="Two workflows have the id 'given'"):
            await another.run(polos)
        with pytest.raises(DefinitionError, match="Two runnables have the id 'given'"):
            await speaker("given").run(polos, "Hello")


async def test_a_definition_that_was_made_again_is_used_after_a_restart() -> None:
    polos = Polos()
    await polos.start()
    try:
        first = speaker("embedded-again", "First.")
        assert (await first.run(polos, "Go.")).result == "First."
        second = speaker("embedded-again", "Second.")
        with pytest.raises(DefinitionError, match="stop the service and start it again"):
            await second.run(polos, "Go.")
        await polos.stop()
        await polos.start()
        assert (await second.run(polos, "Go.")).result == "Second."
    finally:
        await polos.stop()


async def test_a_service_in_another_loop_is_reached_after_a_restart() -> None:
    agent, polos = speaker("embedded-loops"), Polos()
    await asyncio.to_thread(wait, polos.start())
    try:
        assert (await agent.run(polos, "Go.")).result == "Hi."
        with pytest.raises(RuntimeError, match="started in another event loop"):
            await polos.stop()
        await asyncio.to_thread(wait, polos.stop())
        await asyncio.to_thread(wait, polos.start())
        assert (await agent.run(polos, "Go.")).result == "Hi."
    finally:
        await asyncio.to_thread(wait, polos.stop())
        await polos.close()


async def test_a_path_names_the_store(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    agent = speaker("embedded-path")
    for path in (Path("runs.db"), Path("~/runs.db")):
        async with Polos(store=path) as polos:
            first = await agent.run(polos, "Go.", request_id="one")
        async with Polos(store=f"sqlite://{path.expanduser().absolute()}") as polos:
            again = await agent.run(polos, "Go.", request_id="one")
        assert again.agent_run_id == first.agent_run_id
    assert (tmp_path / "runs.db").exists()
    assert (tmp_path / "home" / "runs.db").exists()


async def test_a_store_of_this_process_says_so(tmp_path: Path) -> None:
    async with Polos(store=tmp_path / "runs.db"):
        with pytest.raises(StoreUnavailable, match="in use by another service in this process"):
            await Polos(store=tmp_path / "runs.db").start()


async def test_a_run_that_an_earlier_process_left_is_resumed_by_definition_alone(
    tmp_path: Path,
) -> None:
    store = f"sqlite://{tmp_path / 'runs.db'}"
    reached, let = asyncio.Event(), asyncio.Event()

    @tool
    async def hold() -> str:
        reached.set()
        await let.wait()
        return "held"

    agent = Agent("embedded-4", "scripted", script(turn(call("hold")), "Done."), tools=[hold])
    async with Polos(store=store) as polos:
        run_id = (await agent.invoke(polos, {"input": "Go."})).id
        await reached.wait()
    let.set()
    async with Polos(store=store) as polos:
        async with asyncio.timeout(30):
            while (await polos.get_run(run_id)).outcome.WhichOneof("payload") is None:
                await asyncio.sleep(0.05)
        assert (await polos.get_run(run_id)).outcome.agent_finish.result == "Done."


async def test_it_is_started_and_stopped_by_hand_and_again() -> None:
    polos = Polos()
    for _ in range(2):
        await polos.start()
        with pytest.raises(RuntimeError, match="running already"):
            await polos.start()
        assert (await speaker("embedded-5").run(polos, "Go.")).result == "Hi."
        await polos.stop()
    await polos.stop()
    with pytest.raises(RuntimeError, match="Use it inside `async with"):
        await speaker("embedded-5").run(polos, "Go.")


async def test_the_port_is_the_one_that_was_asked_for() -> None:
    port = free_port()
    async with Polos(port=port) as polos:
        assert polos.address == f"127.0.0.1:{port}"
        with pytest.raises(ListenError, match=str(port)):
            await Polos(port=port).start()


async def test_the_environment_says_the_port_that_the_program_leaves_out(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    polos = Polos()
    port, another = free_port(), free_port()
    monkeypatch.setenv("POLOS_PORT", str(port))
    async with polos, Polos(port=another) as other, Polos(port=0) as third:
        assert polos.address == f"127.0.0.1:{port}"
        assert other.address == f"127.0.0.1:{another}"
        assert third.address not in (polos.address, other.address)
    monkeypatch.setenv("POLOS_PORT", "65536")
    with pytest.raises(SettingsInvalidError, match=r"POLOS_PORT must be .* not '65536'"):
        await Polos().start()


async def test_variables_of_tls_are_for_other_services(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("CERT", "KEY", "CLIENT_CA"):
        monkeypatch.setenv(f"POLOS_TLS_{name}", "/no/such/file.pem")
    async with Polos() as polos:
        assert (await speaker("embedded-tls").run(polos, "Go.")).result == "Hi."


async def logged(work: Awaitable[object]) -> list[str]:
    """Await work, and return the events that the log had meanwhile."""
    with capture_logs() as logs:
        await work
    return [one["event"] for one in logs]


async def test_serving_ends_with_a_signal() -> None:
    handlers = {one: signal.getsignal(one) for one in (signal.SIGINT, signal.SIGTERM)}
    polos = Polos(port=free_port())
    try:
        serving = asyncio.create_task(logged(polos.serve()))
        client = PolosClient(f"127.0.0.1:{polos._port}")
        agent = speaker("embedded-6")
        assert (await agent.run(client, "Go.")).result == "Hi."
        await client.close()
        os.kill(os.getpid(), signal.SIGTERM)
        told = await asyncio.wait_for(serving, 30)
        assert told == ["service_started", "service_stopping", "service_stopped"]
        assert {one: signal.getsignal(one) for one in handlers} == handlers
    finally:
        for number, handler in handlers.items():
            signal.signal(number, handler)


async def test_serving_that_cannot_start_leaves_the_signals_alone() -> None:
    handlers = {one: signal.getsignal(one) for one in (signal.SIGINT, signal.SIGTERM)}
    try:
        async with Polos() as other:
            with pytest.raises(ListenError):
                await Polos(port=int(other.address.rpartition(":")[2])).serve()
        assert {one: signal.getsignal(one) for one in handlers} == handlers
    finally:
        for number, handler in handlers.items():
            signal.signal(number, handler)


async def test_the_log_file_takes_the_program_s_log_and_the_service_s(tmp_path: Path) -> None:
    structlog.reset_defaults()  # other tests capture the log, which counts as configuring it
    path = tmp_path / "polos.log"
    path.write_text("before\n")
    root = logging.getLogger()
    handlers = root.handlers[:]
    async with Polos(log_file=path):
        logging.getLogger("mine").warning("from the program")
        structlog.get_logger("polos").warning("from_the_service", number=7)
        assert root.handlers != handlers
    assert root.handlers == handlers
    text = path.read_text()
    assert text.startswith("before\n")
    assert "WARNING mine: from the program" in text
    assert "from_the_service" in text
    assert "\x1b" not in text


async def test_a_log_file_that_cannot_be_opened_is_named(tmp_path: Path) -> None:
    handlers = logging.getLogger().handlers[:]
    with pytest.raises(
        SettingsInvalidError, match=r"The log file .*no/such.* cannot be opened: No"
    ):
        await Polos(log_file=tmp_path / "no/such/file").start()
    assert logging.getLogger().handlers == handlers


async def test_an_agent_of_an_unknown_provider_is_refused_where_it_is_run_and_by_its_id() -> None:
    far = Agent("embedded-far", "opnai", "m")
    near = speaker("embedded-near")
    async with Polos() as polos:
        with pytest.raises(DefinitionError, match=r"no provider 'opnai' \(did you mean 'openai'"):
            await far.run(polos, "Go.")
        with pytest.raises(AgentNotFound, match=r"cannot be loaded.* there is no provider 'opnai'"):
            await polos.invoke(far.id, {"input": "Go."})
        assert (await near.run(polos, "Go.")).result == "Hi."
    with pytest.raises(DefinitionError, match="there is no provider 'opnai'"):
        await Polos([far]).start()


async def test_an_agent_that_lacks_a_key_is_logged_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("GROQ_API_KEY", raising=False)
    grey = Agent("embedded-grey", "groq", "m")
    with capture_logs() as logs:
        async with Polos() as polos:
            for _ in range(2):
                with pytest.raises(RunFailed, match="set GROQ_API_KEY"):
                    await grey.run(polos, "Go.")
    told = [(one["agent"], one["why"]) for one in logs if one["event"] == "model_calls_will_fail"]
    assert told == [("embedded-grey", "calls to groq will fail: GROQ_API_KEY is not set")]
