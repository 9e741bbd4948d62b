"""`kill -9` of the service in the middle of parallel steps, whose keys come from a set."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING

from grpc.aio import insecure_channel

from polos.v1 import run_service_pb2 as pb
from polos.v1.event_pb2 import Event
from polos.v1.run_service_pb2_grpc import RunServiceStub
from tests.support.process import ServiceProcess
from tests.support.service import until

if TYPE_CHECKING:
    from polos.v1.run_service_pb2_grpc import RunServiceAsyncStub

APP = """
import asyncio
import random
from pathlib import Path

from polos import WorkflowContext, workflow

NOTES = Path(__file__).with_name("notes")
OPEN = Path(__file__).with_name("open")


async def work(key: str, number: int) -> str:
    while number and not OPEN.with_name(f"open-{number}").exists():
        await asyncio.sleep(0.01)
    await asyncio.sleep(random.random() / 100)
    with NOTES.open("a") as notes:
        notes.write(f"{key}\\n")
    return key


@workflow
async def many(ctx: WorkflowContext) -> list[str]:
    keys = {f"step-{number}" for number in range(20)}  # in another order in each process
    calls = [ctx.step.run(key, work, key, int(key[5:]) % 3) for key in keys]
    return sorted(await asyncio.gather(*calls))
"""

KILLS = 3


async def test_parallel_steps_survive_kills(tmp_path: Path) -> None:
    """A third of the steps may end in each process."""
    app = tmp_path / "app.py"
    app.write_text(APP)
    async with ServiceProcess(app, tmp_path / "runs.db") as service:
        async with insecure_channel(service.address) as channel:
            request = pb.CreateRunRequest(agent_id="many", request_id="many")
            run_id = (await RunServiceStub(channel).CreateRun(request)).run.run_id
        for number in range(1, KILLS):
            await until(lambda count=6 * number: noted(tmp_path) >= count, "the steps to end")  # type: ignore[misc]
            await service.kill()
            (tmp_path / f"open-{number}").touch()
            await service.start()
        await until(lambda: noted(tmp_path) == 20, "the last steps to end")
        await service.kill()
        await service.start()
        async with insecure_channel(service.address) as channel:
            events = await read(RunServiceStub(channel), run_id)
        printed = "\n".join(service.lines)
    keys = sorted(f"step-{number}" for number in range(20))
    assert json.loads(events[-1].workflow_finish.result_json) == keys
    ended = [one.step_finish.step_key for one in events if one.HasField("step_finish")]
    assert sorted(ended) == keys
    for complaint in ("steps_unasked", "run_left", "steps_not_awaited", "Traceback"):
        assert complaint not in printed


def noted(folder: Path) -> int:
    """Return how many steps have run to their end."""
    notes = folder / "notes"
    return len(set(notes.read_text().split())) if notes.exists() else 0


async def read(runs: RunServiceAsyncStub, run_id: str) -> list[Event]:
    """Return the events of a run once it has ended."""
    request = pb.StreamWorkflowRequest(workflow_run_id=run_id)
    return [event async for found in runs.StreamWorkflow(request) for event in found.events]
