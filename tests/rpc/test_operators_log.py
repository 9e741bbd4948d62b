"""What the service's log tells operators: starts, stops, and runs of processes that died."""

from __future__ import annotations

import json
import signal
from importlib.metadata import version
from pathlib import Path
from typing import Any

from polos import PolosClient, events
from tests.support.access import BOOTSTRAP
from tests.support.nats import NatsServer
from tests.support.process import ServiceProcess

APP = """
from polos import Agent, scripted, workflow

talker = Agent("talker", "scripted", scripted.script(scripted.turn("Hello.")))
slow = Agent("slow", "scripted", scripted.script(
    scripted.turn("No", scripted.pause(), retried=["Yes."])
))

@workflow(id="flow")
async def flow(ctx):
    return 1
"""


def write_app(folder: Path) -> Path:
    path = folder / "app.py"
    path.write_text(APP)
    return path


def entries(service: ServiceProcess) -> list[dict[str, Any]]:
    """Return what the log has, whose lines are JSON objects."""
    return [json.loads(line) for line in service.lines if line.startswith("{")]


async def test_a_start_and_a_stop_are_told_and_an_ordinary_run_is_not(tmp_path: Path) -> None:
    settings = {"POLOS_LOG_FORMAT": "json", "POLOS_BOOTSTRAP_KEY": BOOTSTRAP, "POLOS_GRACE": "3"}
    async with ServiceProcess(write_app(tmp_path), tmp_path / "runs.db", **settings) as service:
        async with PolosClient(service.address, api_key=BOOTSTRAP) as client:
            handle = await client.invoke("talker", {"input": "Hi."})
            assert [one async for one in events.stream_workflow(client, workflow_run_id=handle.id)]
        service.send(signal.SIGTERM)
        assert await service.ended() == 0
        found = entries(service)
    assert BOOTSTRAP not in service.output
    for one in found:
        del one["timestamp"]
        assert one.pop("level") == "info"
    assert found == [
        {
            "event": "service_started",
            "version": version("polos-grpc"),
            "address": service.address,
            "store": "sqlite",
            "agents": 2,
            "workflows": 1,
            "access": True,
        },
        {"event": "service_stopping", "grace": 3.0},
        {"event": "service_stopped"},
    ]


async def test_at_level_warning_none_of_it_is_told(tmp_path: Path) -> None:
    settings = {"POLOS_LOG_FORMAT": "json", "POLOS_LOG_LEVEL": "warning"}
    async with ServiceProcess(write_app(tmp_path), tmp_path / "runs.db", **settings) as service:
        service.send(signal.SIGTERM)
        assert await service.ended() == 0
    assert entries(service) == []


async def test_a_run_of_a_process_that_died_is_told_with_its_former_holder(tmp_path: Path) -> None:
    app, json_lines = write_app(tmp_path), {"POLOS_LOG_FORMAT": "json", "POLOS_CLAIM_TIMEOUT": "2"}
    with NatsServer(tmp_path) as server:
        async with (
            ServiceProcess(app, server.url, **json_lines) as one,
            PolosClient(one.address) as client,
        ):
            handle = await client.invoke("slow", {"input": "Hi.", "streaming": True})
            async for event in events.stream_workflow(client, workflow_run_id=handle.id):
                if event.event_type == "text_delta":
                    break
            pid = one.pid
            async with ServiceProcess(app, server.url, **json_lines) as other:
                await one.kill()
                told = json.loads(await other.said("run_taken_over"))
                async with PolosClient(other.address) as reader:
                    assert [
                        event
                        async for event in events.stream_workflow(reader, workflow_run_id=handle.id)
                    ]
            assert entries(other)[0]["store"] == "nats"
    assert (told["run_id"], told["project"]) == (handle.id, "default")
    assert told["former_holder"].endswith(f":{pid}")
    assert [one["event"] for one in entries(other)].count("run_taken_over") == 1
