"""A child that is cancelled alone: its branch ends, and the rest of the tree goes on."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from polos.v1.error_pb2 import FailureReason
from polos.v1.event_pb2 import Event
from polos.v1.run_pb2 import RunState
from polos_client.calls.follow import fold
from polos_client.define.context import WorkflowContext
from polos_client.define.scripted import pause, turn
from polos_client.define.workflow import workflow
from polos_client.errors import RunCancelled, StepExecutionError
from polos_service import service
from polos_service.store import SETTLED
from tests.support.family import DEFINITIONS, below, started
from tests.support.service import Served, kinds, scripted, serving, until
from tests.support.waits import park_soon, parked

HANGING = scripted(turn("Hm", pause()), id="hanging")


@workflow(id="busy")
async def busy(ctx: WorkflowContext, payload: dict[str, Any]) -> Any:
    """Do what never ends by itself."""

    async def hang() -> None:
        await asyncio.Event().wait()

    match payload["what"]:
        case "step":
            await ctx.step.run("hang", hang)
        case "model":
            await ctx.step.agent_invoke_and_wait("ask", HANGING.with_input("Go."))
        case "child":
            await ctx.step.invoke_and_wait("deeper", busy, {"what": "step"})
        case "timer":
            await ctx.step.wait_for("nap", hours=1)
        case "code":
            await hang()


@workflow(id="parent")
async def parent(ctx: WorkflowContext, payload: dict[str, Any]) -> list[Any]:
    """Run one child that never ends, and one that goes on once the other has failed."""
    over = asyncio.Event()

    async def first() -> str:
        try:
            await ctx.step.invoke_and_wait("first", busy, payload)
        except StepExecutionError as error:
            over.set()
            return str(error)
        return "ended"

    async def second() -> Any:
        await over.wait()
        return await ctx.step.run("after", lambda: "went on")

    return list(await asyncio.gather(first(), second()))


@pytest.fixture
async def served(tmp_path: Path) -> AsyncIterator[Served]:
    async with serving(tmp_path, parent, busy, HANGING, *DEFINITIONS) as one:
        yield one


async def child_of(served: Served, run_id: str, kind: str) -> str:
    """Wait for an event of this kind, which a child is about to stay at; return the first child."""
    first = ""
    async for event in served.follow(run_id):
        if event.parent_run_id == run_id and not first:
            first = event.run_id
        if first and event.WhichOneof("payload") == kind and event.run_id != run_id:
            return first
    raise AssertionError(f"run {run_id} ended without {kind}")


@pytest.mark.parametrize(
    ("what", "at", "open_runs"),
    [
        ("step", "step_start", 1),
        ("model", "agent_start", 2),
        ("child", "step_start", 2),
        ("timer", "suspended", 1),
        ("code", "workflow_start", 1),
    ],
)
async def test_a_cancelled_child_ends_and_nothing_else_does(
    served: Served, what: str, at: str, open_runs: int
) -> None:
    client = served.client
    handle = await parent.invoke(client, {"what": what})
    child = await child_of(served, handle.id, at)
    assert await client.cancel_execution(child)
    log = await served.events(handle.id)
    own = below(log, child)
    ends = [one for one in own if one.HasField("run_cancelled")]
    assert len(ends) == len({one.run_id for one in own})
    assert ends[-1].run_id == child
    assert own[-1] == ends[-1], "nothing of the child follows its end"
    step = failed_step(log, handle.id, "first")
    assert step.step_finish.failure.reason == FailureReason.FAILURE_REASON_CHILD_CANCELLED
    assert log[-1].workflow_finish.result_json.endswith('"went on"]')
    assert (await client.get_execution(child))["status"] == "cancelled"
    assert not any(one.HasField("step_retry") for one in log)
    with pytest.raises(RunCancelled) as raised:
        (await fold(client, child)).result()
    assert raised.value.run_id == child
    assert not await client.cancel_execution(handle.id), "it had ended well"
    assert await client.cancel_execution(child), "and the child is cancelled all the same"


def failed_step(log: list[Event], run_id: str, key: str) -> Event:
    return next(one for one in log if one.run_id == run_id and one.step_finish.step_key == key)


async def test_a_sibling_and_its_wait_stay_when_a_child_is_cancelled(served: Served) -> None:
    client = served.client
    run_id, (child, other) = await started(served)
    assert await client.cancel_execution(child)

    async def left() -> bool:
        inbox = await served.store.inbox("default", run_id)
        waits = [one.run_id async for one in client.list_waits()]
        return waits == [other] and {one.kind for one in inbox} == {SETTLED}

    await until(left, "the other's wait is left, and the inbox has room")
    await client.resume("asks", other, "ok", 1)
    log = await served.events(run_id)
    result = (await client.get_execution(run_id))["result"]
    assert result[1] == {"said": "One two three.", "answer": 1}
    assert "was cancelled" in result[0]
    assert not await client.cancel_execution(other), "it had ended otherwise"
    ends = [one.run_id for one in log if one.HasField("run_cancelled")]
    assert ends == [child]


async def test_a_child_is_cancelled_whose_root_another_process_takes_up(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(service, "CANCEL_WAIT", 0.1)
    async with serving(tmp_path, *DEFINITIONS) as served:
        run_id, (child, other) = await started(served)
    async with serving(tmp_path) as served:  # nobody has the code
        run = await served.client.cancel_run(child)
        assert run.state == RunState.RUN_STATE_QUEUED
    async with serving(tmp_path, *DEFINITIONS) as served:
        client = served.client
        assert kinds(await served.events(child))[-1] == "run_cancelled"

        async def settled() -> bool:
            return [one.run_id async for one in client.list_waits()] == [other]

        await until(settled, "one wait is left")
        await client.resume("asks", other, "ok", 1)
        log = await served.events(run_id)
        starts = [one for one in log if one.HasField("step_start") and one.run_id == child]
        assert len(starts) == 1, "nothing of it began anew"
        assert log[-1].HasField("workflow_finish")


async def test_one_of_two_children_is_cancelled_while_the_run_is_parked(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    park_soon(monkeypatch)
    async with serving(tmp_path, *DEFINITIONS) as served:
        run_id, (child, other) = await started(served)
        await parked(served, run_id)
        for one in (child, other):
            assert (await served.client.get_run(one)).state == RunState.RUN_STATE_SUSPENDED
        assert await served.client.cancel_execution(child)
        assert (await served.client.get_execution(child))["status"] == "cancelled"
        await parked(served, run_id)
        await served.client.resume("asks", other, "ok", 1)
        log = await served.events(run_id)
        assert log[-1].HasField("workflow_finish")
        assert [one.run_id for one in log if one.HasField("run_cancelled")] == [child]
