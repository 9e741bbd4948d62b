"""`kill -9` of the service around an approval: nobody is asked twice, and nothing is paid twice."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import grpc.aio
import pytest

from polos.v1 import run_service_pb2 as pb
from polos.v1.error_pb2 import FailureReason
from polos.v1.event_pb2 import Event
from polos.v1.run_service_pb2_grpc import RunServiceStub
from tests.support.approver import YES, Approver
from tests.support.process import ServiceProcess
from tests.support.service import until

APP = """
import asyncio
from pathlib import Path

from polos import Agent, WorkflowContext, scripted, tool

NOTES = Path(__file__).with_name("notes")


@tool(approval="always", at_most_once={at_most_once})
async def pay(ctx: WorkflowContext, amount: int) -> str:
    with NOTES.open("a") as notes:
        notes.write(f"{{ctx.attempt}} {{ctx.idempotency_key}}\\n")
    if ctx.attempt == 1:
        await asyncio.Event().wait()
    return "paid"


payer = Agent(
    "payer",
    "scripted",
    scripted.script(scripted.turn("I pay. ", scripted.call("pay", amount=1)), "Done."),
    tools=[pay],
)
"""


@asynccontextmanager
async def reached(service: ServiceProcess) -> AsyncIterator[Approver]:
    async with grpc.aio.insecure_channel(service.address) as channel:
        yield Approver(RunServiceStub(channel))


@pytest.mark.parametrize("at_most_once", [False, True])
async def test_killed_during_an_approval_and_in_the_call(
    tmp_path: Path, *, at_most_once: bool
) -> None:
    app, notes = tmp_path / "app.py", tmp_path / "notes"
    app.write_text(APP.format(at_most_once=at_most_once))
    async with ServiceProcess(app, tmp_path / "runs.db") as service:
        async with reached(service) as person:
            request = pb.CreateRunRequest(agent_id="payer", input="Pay.", streaming=True)
            run_id = (await person.runs.CreateRun(request)).run.run_id
            await person.sees("pay/approve")
        await service.kill()
        await service.start()
        async with reached(service) as person:
            await person.answers("pay/approve", YES)
            await until(lambda: notes.exists() and bool(notes.read_text()), "a call of the tool")
        await service.kill()
        await service.start()
        async with reached(service) as person:
            events = await read(person, run_id)
    payloads = [event.WhichOneof("payload") for event in events]
    assert payloads.count("suspended") == payloads.count("resumed") == 1
    keys = [f"{run_id}/pay"] * (1 if at_most_once else 2)
    assert [line.split()[1] for line in notes.read_text().splitlines()] == keys
    (end,) = [event.step_finish for event in events if event.step_finish.step_key == "pay"]
    if at_most_once:
        assert end.failure.reason == FailureReason.FAILURE_REASON_TOOL_OUTCOME_UNKNOWN
    else:
        assert (end.result_json, end.attempt) == ('"paid"', 2)
    assert "".join(event.text_delta.content for event in events) == "I pay. Done."
    assert events[-1].agent_finish.total_steps == 2


async def read(person: Approver, run_id: str) -> list[Event]:
    """Return the events of a run once it has ended."""
    request = pb.StreamWorkflowRequest(workflow_run_id=run_id)
    return [event async for found in person.runs.StreamWorkflow(request) for event in found.events]
