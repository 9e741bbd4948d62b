"""`kill -9` of the service while a run starts others, each of which it starts once."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

from grpc.aio import insecure_channel

from polos.v1 import run_service_pb2 as pb
from polos.v1.run_pb2 import Run
from polos.v1.run_service_pb2_grpc import RunServiceStub
from tests.support.process import ServiceProcess
from tests.support.service import until

APP = """
import asyncio

from polos import WorkflowContext, workflow


@workflow
async def leaf(ctx: WorkflowContext, payload: dict) -> int:
    return payload["number"]


@workflow
async def tree(ctx: WorkflowContext) -> int:
    handles = []
    for number in range(30):
        one, other = await asyncio.gather(
            ctx.step.invoke(f"leaf-{number}", leaf, {"number": number}),
            ctx.step.invoke(f"other-{number}", "leaf", {"number": number}),
        )
        assert one.id != other.id
        handles += [one, other]
    waits = [ctx.step.wait_for_run(f"end-{at}", one) for at, one in enumerate(handles)]
    return sum(await asyncio.gather(*waits))
"""

RUNS = 60


async def test_runs_are_started_once_across_kills(tmp_path: Path) -> None:
    app = tmp_path / "app.py"
    app.write_text(APP)
    async with ServiceProcess(app, tmp_path / "runs.db") as service:
        async with insecure_channel(service.address) as channel:
            request = pb.CreateRunRequest(agent_id="tree", request_id="tree")
            run_id = (await RunServiceStub(channel).CreateRun(request)).run.run_id
        for enough in (5, 25):

            async def begun(enough: int = enough) -> bool:
                return len(await started(service, run_id)) >= enough

            await until(begun, "runs to be started")
            await service.kill()
            await service.start()

        async def found() -> Run:
            async with insecure_channel(service.address) as channel:
                request = pb.GetRunRequest(run_id=run_id)
                return (await RunServiceStub(channel).GetRun(request)).run

        async def ended() -> bool:
            return (await found()).HasField("outcome")

        await until(ended, "the run to end")
        assert (await found()).outcome.workflow_finish.result_json == str(2 * sum(range(30)))
        runs = await started(service, run_id)
    steps = Counter(one.parent_step_key for one in runs)
    assert len(steps) == RUNS
    assert set(steps.values()) == {1}


async def started(service: ServiceProcess, parent: str) -> list[Run]:
    """Return the runs that the steps of a run have started."""
    request = pb.ListRunsRequest(parent_run_id=parent, page_size=1000)
    async with insecure_channel(service.address) as channel:
        return list((await RunServiceStub(channel).ListRuns(request)).runs)
