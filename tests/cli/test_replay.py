"""`polos runs export` and `polos replay`: changed code against runs that are stored."""

from __future__ import annotations

import sys
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from polos import events
from polos_client.define.workflow import Workflow
from polos_service.loader import load
from tests.cli.commands import Cli
from tests.support.service import serving

APP = """
from polos import Agent, WorkflowContext, scripted, workflow


@workflow
async def order(ctx: WorkflowContext, payload: dict) -> str:
    await ctx.step.run("charge", lambda: 1)
    return str(ctx.user_id)


greeter = Agent(id="greeter", provider="scripted", model=scripted.script("Hello."))
"""


@pytest.fixture
async def scene(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> AsyncIterator[tuple[Cli, str, Path]]:
    """Give the command, the id of a run of the workflow `order` that has ended, and the app."""
    monkeypatch.setattr(sys, "path", [*sys.path])
    app = tmp_path / "app.py"
    app.write_text(APP)
    definitions = load(str(app))
    async with serving(tmp_path, *definitions) as served:
        order = next(one for one in definitions if isinstance(one, Workflow))
        handle = await order.invoke(served.client, {}, user_id="ann")
        async for _ in events.stream_workflow(served.client, workflow_run_id=handle.id):
            pass
        yield Cli(served.client.address), handle.id, app


async def test_code_is_replayed_against_a_run_and_against_its_file(
    scene: tuple[Cli, str, Path],
) -> None:
    cli, run_id, app = scene
    exported = await cli("runs", "export", run_id)
    assert exported.code == 0
    assert exported.objects[0] == {
        "history": {"run_id": run_id, "session_id": None, "user_id": "ann"}
    }
    file = app.with_name("run.jsonl")
    file.write_text(exported.out)
    for named, way in ((run_id, cli), (str(file), Cli("127.0.0.1:1"))):
        same = await way("replay", named, "--code", str(app))
        assert (same.code, same.err) == (0, "")
        assert (
            same.out == f"Run {run_id}: the code goes the way of the log, 4 events, to its end.\n"
        )
    changed = app.with_name("changed.py")
    changed.write_text(APP.replace('"charge"', '"pay"'))
    differs = await cli("replay", str(file), run_id, "--code", str(changed), "--json")
    assert differs.code == 5
    assert differs.objects[0] == differs.objects[1]
    assert differs.objects[0]["differs"]
    assert differs.objects[0]["step_key"] == "pay"


async def test_what_cannot_be_replayed_is_refused(scene: tuple[Cli, str, Path]) -> None:
    cli, run_id, app = scene
    unknown = await cli("replay", "nobody", "--code", str(app))
    assert (unknown.code, unknown.err) == (1, "Error: There is no run 'nobody'.\n")
    missing = await cli("replay", "none.jsonl", "--code", str(app))
    assert missing.code == 1
    assert missing.err.startswith("Error: none.jsonl cannot be read")
    other = app.with_name("other.py")
    other.write_text(APP.replace("async def order", "async def delivery"))
    foreign = await cli("replay", run_id, "--code", str(other))
    assert foreign.code == 1
    assert "'order', which the code does not define" in foreign.err
