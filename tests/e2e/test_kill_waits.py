"""`kill -9` of the service between waits: each is answered once, and none stays listed."""

from __future__ import annotations

from functools import partial
from pathlib import Path

import grpc.aio
import pytest

from polos.v1 import run_service_pb2 as pb
from polos.v1.run_service_pb2_grpc import RunServiceStub
from polos_client.calls.status import to_error
from polos_client.errors import AlreadyAnswered
from tests.support.process import ServiceProcess
from tests.support.service import until

APP = """
from polos import WorkflowContext, workflow


@workflow(id="loop")
async def loop(ctx: WorkflowContext) -> list:
    return [(await ctx.step.suspend(f"ask {number}"))["data"] for number in range(2)]
"""


async def test_killed_right_behind_an_answer(tmp_path: Path) -> None:
    app = tmp_path / "app.py"
    app.write_text(APP)
    async with ServiceProcess(app, tmp_path / "runs.db") as service:
        run_id = ""
        for number in range(2):
            async with grpc.aio.insecure_channel(service.address) as channel:
                runs = RunServiceStub(channel)
                if not number:
                    create = pb.CreateRunRequest(agent_id="loop")
                    run_id = (await runs.CreateRun(create)).run.run_id
                key = f"ask {number}"

                await until(partial(alone_is_open, channel, key), f"{key} alone is open")
                for before in range(number):
                    await runs.ResumeRun(answer(run_id, before))
                    with pytest.raises(grpc.aio.AioRpcError) as refused:
                        await runs.ResumeRun(answer(run_id, before, "another"))
                    assert isinstance(to_error(refused.value, "it"), AlreadyAnswered)
                await runs.ResumeRun(answer(run_id, number))
            await service.kill()
            await service.start()
        async with grpc.aio.insecure_channel(service.address) as channel:
            stream = pb.StreamWorkflowRequest(workflow_run_id=run_id)
            found = RunServiceStub(channel).StreamWorkflow(stream)
            events = [event async for one in found for event in one.events]
            assert not (await RunServiceStub(channel).ListWaits(pb.ListWaitsRequest())).waits
    resumed = [(e.resumed.step_key, e.resumed.data_json) for e in events if e.HasField("resumed")]
    assert resumed == [(f"ask {number}", str(number)) for number in range(2)]
    assert events[-1].workflow_finish.result_json == "[0,1]"


async def alone_is_open(channel: grpc.aio.Channel, key: str) -> bool:
    found = await RunServiceStub(channel).ListWaits(pb.ListWaitsRequest())
    return [one.step_key for one in found.waits] == [key]


def answer(run_id: str, number: int, request_id: str = "r") -> pb.ResumeRunRequest:
    return pb.ResumeRunRequest(
        run_id=run_id, step_key=f"ask {number}", data_json=str(number), request_id=request_id
    )
