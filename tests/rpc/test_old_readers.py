"""Readers whose stubs are of a released version: they skip the events that came later."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
from google.protobuf.descriptor import FileDescriptor
from google.protobuf.descriptor_pb2 import FileDescriptorProto
from google.protobuf.descriptor_pool import DescriptorPool
from google.protobuf.message_factory import GetMessageClass

from polos.v1 import event_pb2, run_service_pb2
from polos_client.define.context import WorkflowContext
from polos_client.define.workflow import workflow
from tests.data.fold_0_1_0 import RunAccumulator
from tests.support.service import Served, serving
from tests.support.waits import answer, begun

LATER = {
    "Event": {"suspended", "resumed", "custom", "workflow_retry"},
    "StepRetry": {"start_time"},
    "WorkflowStart": {"code_version"},
    "Run": {"open_waits", "early_answers"},
    "StreamWorkflowResponse": {"covered_through"},
}
"""Fields that version 0.1.0 does not know."""


@workflow(id="later")
async def later(ctx: WorkflowContext) -> str:
    """Use everything that came later."""
    await ctx.step.publish_workflow_event("told", {"percent": 50}, event_type="progress")
    await ctx.step.wait_for("nap", seconds=0.001)
    return str((await ctx.step.suspend("ok"))["data"])


def old(name: str) -> Any:
    """Return the class of a message as the stubs of version 0.1.0 have it."""
    pool = DescriptorPool()
    add(pool, run_service_pb2.DESCRIPTOR, set())
    return GetMessageClass(pool.FindMessageTypeByName(f"polos.v1.{name}"))


def add(pool: DescriptorPool, file: FileDescriptor, added: set[str]) -> None:
    """Add a file and those that it imports, without the fields that came later."""
    if file.name in added:
        return
    added.add(file.name)
    for one in file.dependencies:
        add(pool, one, added)
    proto = FileDescriptorProto()
    file.CopyToProto(proto)
    for message in proto.message_type:
        fields = [one for one in message.field if one.name not in LATER.get(message.name, ())]
        del message.field[:]
        message.field.extend(fields)
    pool.AddSerializedFile(proto.SerializeToString())


@pytest.fixture
async def served(tmp_path: Path) -> AsyncIterator[Served]:
    async with serving(tmp_path, later) as one:
        yield one


async def finished(served: Served) -> str:
    """Run the workflow to its end; return the run's id."""
    create = run_service_pb2.CreateRunRequest(agent_id="later")
    run_id = (await served.runs.CreateRun(create)).run.run_id
    await begun(served, run_id, "ok")
    await answer(served, run_id, "ok")
    await served.events(run_id)
    return run_id


async def test_stubs_of_a_released_version_skip_what_they_do_not_know(served: Served) -> None:
    run_id = await finished(served)
    response = old("StreamWorkflowResponse")
    events = [one async for data in served.raw(run_id) for one in response.FromString(data).events]
    assert [one.sequence for one in events] == list(range(1, len(events) + 1))
    kinds = [one.WhichOneof("payload") for one in events]
    assert kinds == [
        *("workflow_start", "step_start", None, "step_finish"),  # the event of the code's own type
        *(None, None, None, None),  # two waits
        "workflow_finish",
    ]
    assert [one.terminal for one in events] == [False] * 8 + [True]
    assert {one.run_id for one in events} == {run_id}
    assert events[-1].workflow_finish.result_json == '"yes"'


async def test_the_fold_of_a_released_client_reaches_the_end(served: Served) -> None:
    run_id = await finished(served)
    fold = RunAccumulator()
    for event in await served.events(run_id):
        kind = event.WhichOneof("payload")
        if kind in LATER["Event"]:
            event.ClearField(kind)
        fold.add([event])
    assert fold.outcome is not None
    assert fold.outcome.HasField("workflow_finish")


def test_the_fields_that_came_later_are_there() -> None:
    assert {one.name for one in event_pb2.Event.DESCRIPTOR.fields} >= LATER["Event"]
    assert not {one.name for one in old("Event").DESCRIPTOR.fields} & LATER["Event"]
