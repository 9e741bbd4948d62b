"""Runs with logs of their own that a workflow starts."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import pytest
from pydantic import BaseModel

from polos.v1.error_pb2 import FailureReason
from polos.v1.run_pb2 import RunState
from polos_client.calls.handle import ExecutionHandle
from polos_client.define.children import AgentRunConfig, BatchWorkflowInput
from polos_client.define.context import WorkflowContext
from polos_client.define.workflow import Workflow, workflow
from polos_client.errors import (
    CallError,
    DefinitionError,
    QuotaExceeded,
    StepExecutionError,
    StoreUnavailable,
    TooManyRuns,
)
from polos_service.agents.runnable import AgentRunnable
from polos_service.models.providers import Providers
from polos_service.models.scripted import Scripted
from polos_service.runs import activity
from polos_service.runs.frame import SECOND
from polos_service.store import Claim, NewRun, Parent, RunQuery
from polos_service.store.sqlite import SqliteStore
from polos_service.workflows import independent
from polos_service.workflows.room import Room
from tests.support.flows import Flows, flowing, kinds, result_of
from tests.support.service import scripted, until
from tests.support.stores import claimed, first_claim, new_run, soon


class Order(BaseModel):
    item: str


@workflow(id="seen")
async def seen(ctx: WorkflowContext, payload: dict[str, Any] | None = None) -> dict[str, Any]:
    """Return what the run knows of itself."""
    del payload
    told = ctx.to_dict()
    return {name: told[name] for name in ("parent_execution_id", "session_id", "user_id")} | {
        "root": ctx.root_execution_id == ctx.execution_id,
        "state": ctx.initial_state,
    }


@workflow(id="shout")
async def shout(ctx: WorkflowContext, payload: Order) -> Order:
    return Order(item=payload.item.upper())


@workflow(id="long")
async def long(ctx: WorkflowContext) -> None:
    await ctx.step.suspend("on")


async def test_a_run_of_its_own_is_started_and_linked(store: SqliteStore) -> None:
    @workflow(id="parent")
    async def parent(ctx: WorkflowContext) -> dict[str, Any]:
        handle = await ctx.step.invoke("go", seen, {"a": 1}, initial_state={"b": 2})
        assert isinstance(handle, ExecutionHandle)
        return handle.to_dict()

    async with flowing(store, parent, seen) as flows:
        events = await flows.run(parent)
        handle = result_of(events)
        run_id = events[0].run_id
        told = result_of(await flows.ended(handle["id"]))
    assert kinds(events) == [
        "workflow_start",
        "step_start go 1",
        "step_finish go 1",
        "workflow_finish",
    ]
    assert events[1].step_start.step_type == "invoke"
    assert events[2].step_finish.started_run_id == handle["id"]
    assert handle == {
        "id": handle["id"],
        "workflow_id": "seen",
        "created_at": handle["created_at"],
        "parent_execution_id": run_id,
        "root_workflow_id": "seen",
        "root_execution_id": handle["id"],
        "session_id": None,
        "user_id": None,
        "step_key": "go",
    }
    assert told == {
        "parent_execution_id": run_id,
        "session_id": None,
        "user_id": None,
        "root": True,
        "state": {"b": 2},
    }
    record = await store.get("default", handle["id"])
    assert record.parent == Parent(root=run_id, run_id=run_id, step_key="go", depth=1)


async def test_a_batch_gives_handles_in_order(store: SqliteStore) -> None:
    agent = scripted("Hello.", id="agent")

    @workflow(id="parent")
    async def parent(ctx: WorkflowContext) -> list[str]:
        assert await ctx.step.batch_invoke("none", []) == []
        handles = await ctx.step.batch_invoke(
            "some",
            [
                BatchWorkflowInput(id="shout", payload=Order(item="tea")),
                BatchWorkflowInput(id="seen"),
                BatchWorkflowInput(id="agent", payload={"input": "Hi"}),
            ],
        )
        handles.append(await ctx.step.agent_invoke("one", AgentRunConfig(agent, "Hi")))
        handles += await ctx.step.batch_agent_invoke("two", [AgentRunConfig(agent, "Hi")])
        return [f"{one.workflow_id} {one.step_key} {one.id}" for one in handles]

    flows = Flows(store, parent, shout, seen)
    flows.add(AgentRunnable(agent, Providers({"scripted": lambda _: Scripted()}), flows.means))
    flows.begin()
    told = [one.split() for one in await flows.result(parent)]
    assert [one[:2] for one in told] == [
        ["shout", "some/0"],
        ["seen", "some/1"],
        ["agent", "some/2"],
        ["agent", "one"],
        ["agent", "two/0"],
    ]
    assert result_of(await flows.ended(told[0][2])) == {"item": "TEA"}
    for one in told[2:]:
        assert (await flows.ended(one[2]))[-1].agent_finish.result == "Hello."
    await flows.stop()


async def test_what_cannot_be_started_fails_the_step(store: SqliteStore) -> None:
    told: list[str] = []

    @workflow(id="parent")
    async def parent(ctx: WorkflowContext) -> str:
        none: Any = None
        wrong: list[Any] = [
            lambda: ctx.step.invoke("a", "nobody", {}),
            lambda: ctx.step.invoke("b", shout, {"count": 1}),
            lambda: ctx.step.invoke("c", shout, Order(item="t"), run_timeout_seconds=0),
            lambda: ctx.step.invoke("d", none),
            lambda: ctx.step.batch_invoke("e", [BatchWorkflowInput(id="seen"), none]),
            lambda: ctx.step.agent_invoke("f", none),
            lambda: ctx.step.invoke("g", shout, {"item": "x" * 500_000}),
            lambda: ctx.step.batch_invoke(
                "h", [BatchWorkflowInput(id="nobody"), BatchWorkflowInput(id="seen")]
            ),
        ]
        for one in wrong:
            with pytest.raises(StepExecutionError) as error:
                await one()
            told.append(str(error.value))
        with pytest.raises(DefinitionError, match=r"ctx\.step\.invoke\(queue='q'\)"):
            await ctx.step.invoke("i", seen, queue="q")
        return "ended"

    async with flowing(store, parent, shout, seen) as flows:
        assert await flows.result(parent) == "ended"
    expected = ["There is no 'nobody'", "item", "run_timeout_seconds", "None of 'd'", "of 'e'"]
    expected += ["must be an agent with an input", "limit is", "There is no 'nobody'"]
    assert [want in text for want, text in zip(expected, told, strict=True)] == [True] * 8, told
    (started,) = await store.list("default", RunQuery(limit=10, workflow_id="seen"))
    assert started.parent is not None
    assert started.parent.step_key == "h/1"


class Halting(Flows):
    """An executor whose process ends where the next start is halted.

    Attributes:
        before: whether that is before the run is stored, or after it.
        halted: set once it is there.

    """

    def __init__(self, *args: Any, **options: Any) -> None:
        super().__init__(*args, **options)
        self.before = False
        self.halting = True
        self.halted = asyncio.Event()

    async def create(self, run: NewRun) -> str:
        """Store a run, unless the process ends here."""
        if not self.halting:
            return await super().create(run)
        self.halting = False
        if not self.before:
            await super().create(run)
        self.halted.set()
        await asyncio.Event().wait()
        raise AssertionError


@pytest.mark.parametrize("before", [True, False])
async def test_a_crash_around_the_start_starts_one_run(store: SqliteStore, *, before: bool) -> None:
    @workflow(id="parent")
    async def parent(ctx: WorkflowContext) -> str:
        return str((await ctx.step.invoke("go", shout, Order(item="tea"))).id)

    flows = Halting(store, parent, shout)
    flows.before = before
    flows.begin()
    run_id = await flows.start(parent)
    await flows.halted.wait()
    await flows.restart()
    events = await flows.ended(run_id)
    assert kinds(events)[1:3] == ["step_start go 1", "step_finish go 1"]
    (started,) = await store.list("default", RunQuery(limit=10, workflow_id="shout"))
    assert result_of(events) == started.run_id
    assert result_of(await flows.ended(started.run_id)) == {"item": "TEA"}
    await flows.restart()
    assert await flows.result(parent) != started.run_id
    await flows.stop()


async def test_another_payload_for_the_same_step_leaves_the_run(store: SqliteStore) -> None:
    item = "tea"

    @workflow(id="parent")
    async def parent(ctx: WorkflowContext) -> str:
        return str((await ctx.step.invoke("go", shout, Order(item=item))).id)

    flows = Halting(store, parent, shout)
    flows.begin()
    run_id = await flows.start(parent)
    await flows.halted.wait()
    item = "coffee"
    await flows.restart()

    async def left() -> bool:
        return bool((await store.get("default", run_id)).left)

    await until(left, "the run to be left")
    reason = (await store.get("default", run_id)).left
    assert "of step 'go' as" in reason
    assert "another run" in reason
    item = "tea"
    assert result_of(await flows.ended(run_id))
    assert len(await store.list("default", RunQuery(limit=10, workflow_id="shout"))) == 1
    await flows.stop()


async def test_a_run_of_its_own_goes_on_after_its_parent(store: SqliteStore) -> None:
    @workflow(id="parent")
    async def parent(ctx: WorkflowContext) -> None:
        await ctx.step.invoke("go", long)
        await ctx.step.suspend("for ever")

    async with flowing(store, parent, long) as flows:
        run_id = await flows.start(parent)
        await flows.holds(run_id, "suspended for ever")
        (started,) = await store.list("default", RunQuery(limit=1, parent_root=run_id))
        await flows.holds(started.run_id, "suspended on")
        await flows.cancel(run_id)
        assert kinds(await flows.ended(run_id))[-1] == "run_cancelled"
        await flows.answer(started.run_id, "on")
        assert kinds(await flows.ended(started.run_id))[-1] == "workflow_finish"
    await store.delete("default", run_id)
    kept = await store.get("default", started.run_id)
    assert kept.parent == started.parent


async def test_the_depth_travels_with_runs_of_their_own(store: SqliteStore) -> None:
    @workflow(id="deeper")
    async def deeper(ctx: WorkflowContext) -> str:
        try:
            return str((await ctx.step.invoke("go", "deeper")).id)
        except StepExecutionError as error:
            return str(error)

    async with flowing(store, deeper) as flows:
        parent = Parent(root="root", run_id="root", step_key="s", depth=31)
        first = await flows.ended(await flows.start(deeper, parent=parent))
        last = await flows.ended(result_of(first))
    assert "there are 32 runs above it" in result_of(last)
    failed = next(one.step_finish for one in last if one.HasField("step_finish"))
    assert failed.failure.reason == FailureReason.FAILURE_REASON_TOO_DEEP


def gated(gate: asyncio.Event) -> Workflow:
    """Return a workflow that starts a run once a gate is open."""

    @workflow(id="gated")
    async def parent(ctx: WorkflowContext) -> str:
        await ctx.step.run("gate", gate.wait)
        return str((await ctx.step.invoke("go", shout, Order(item="tea"))).id)

    return parent


@pytest.mark.parametrize("cancelled", [False, True])
async def test_a_start_waits_for_room_in_the_queue(tmp_path: Path, *, cancelled: bool) -> None:
    store = await SqliteStore.open(tmp_path / "full.db", max_queued=1)
    gate = asyncio.Event()
    parent = gated(gate)
    async with flowing(store, parent, shout) as flows:
        run_id = await flows.start(parent)
        await flows.holds(run_id, "step_start gate 1")
        blocker = new_run(workflow_id="nobody has it")
        await store.create(blocker)
        gate.set()
        await flows.holds(run_id, "step_start go 1")
        if cancelled:
            await flows.cancel(run_id)
            events = await flows.ended(run_id)
            assert kinds(events)[3:] == ["step_start go 1", "step_failed go 1", "run_cancelled"]
        else:
            claim = await store.claim_run("default", blocker.run_id)
            assert claim is not None
            events = await flows.ended(run_id)
            assert kinds(events)[3:5] == ["step_start go 1", "step_finish go 1"]
            assert result_of(await flows.ended(result_of(events))) == {"item": "TEA"}
    await store.close()


async def test_parents_that_wait_for_room_give_their_slots_to_others(tmp_path: Path) -> None:
    store = await SqliteStore.open(tmp_path / "full.db", max_queued=1)
    gate = asyncio.Event()
    parent = gated(gate)
    async with flowing(store, parent, shout, limit=1, threshold=0.05) as flows:
        first = await flows.start(parent)
        await flows.holds(first, "step_start gate 1")
        second = await flows.start(parent)
        gate.set()
        for run_id in (first, second):
            started = result_of(await flows.ended(run_id))
            assert result_of(await flows.ended(started)) == {"item": "TEA"}
        assert kinds(await flows.events(first)).count("step_start go 1") == 1
    await store.close()


async def test_parents_that_look_for_room_leave_their_slot_to_those_that_make_it(
    tmp_path: Path,
) -> None:
    """Parents go first, as they are older: if they looked in turn for ever, nothing else would."""

    @workflow(id="parent")
    async def parent(ctx: WorkflowContext) -> str:
        await ctx.step.suspend("on")
        return (await ctx.step.invoke("go", shout, Order(item="tea"))).id

    store = await SqliteStore.open(tmp_path / "full.db", max_queued=1)
    async with flowing(store, parent, shout, limit=1, threshold=0.1) as flows:
        parents = []
        for _ in range(8):
            parents.append(await flows.start(parent))
            await flows.parked(parents[-1])
        blocker = new_run(workflow_id="nobody has it")
        await store.create(blocker)
        for run_id in parents:
            await flows.answer(run_id, "on")
            await flows.holds(run_id, "step_start go 1")
        await store.claim_run("default", blocker.run_id)
        for run_id in parents:
            started = result_of(await flows.ended(run_id))
            assert result_of(await flows.ended(started)) == {"item": "TEA"}
    await store.close()


@pytest.fixture
def no_trying(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let nobody try again by itself: neither a step that waits for room, nor a parked run."""
    for name in ("FIRST_PAUSE", "LONGEST_PAUSE"):
        monkeypatch.setattr(independent, name, 3600.0)
    monkeypatch.setattr(activity, "LEAST_PAUSE", 3600 * SECOND)


@pytest.mark.usefixtures("no_trying")
@pytest.mark.parametrize("parked", [False, True])
async def test_starts_that_wait_are_made_as_soon_as_there_is_room(
    tmp_path: Path, *, parked: bool
) -> None:
    store = await SqliteStore.open(tmp_path / "full.db", max_queued=1)
    gate = asyncio.Event()
    parent = gated(gate)
    async with flowing(store, parent, shout, threshold=0.05 if parked else 60.0) as flows:
        run_ids = []
        for _ in range(3):
            run_ids.append(await flows.start(parent))
            await flows.holds(run_ids[-1], "step_start gate 1")
        blocker = new_run(workflow_id="nobody has it")
        await store.create(blocker)
        gate.set()
        for run_id in run_ids:
            await flows.holds(run_id, "step_start go 1")
            if parked:
                await flows.parked(run_id)
        await store.claim_run("default", blocker.run_id)
        for run_id in run_ids:
            started = result_of(await flows.ended(run_id))
            assert result_of(await flows.ended(started)) == {"item": "TEA"}
    await store.close()


async def test_a_room_that_is_closed_wakes_nobody(
    store: SqliteStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    room, waking = Room(store), asyncio.Event()

    async def hangs(*_: object) -> bool:
        waking.set()
        await asyncio.Event().wait()
        return True

    monkeypatch.setattr(store, "wake", hangs)
    with pytest.raises(asyncio.CancelledError), room.waiting("default", "cut off"):
        raise asyncio.CancelledError
    await claimed(store)  # leaves the queue
    await soon(waking.wait())
    before = {one for one in asyncio.all_tasks() if one.get_name() == "polos-wake-for-room"}
    assert len(before) == 1
    await room.close()
    assert all(one.cancelled() for one in before)
    with room.waiting("default", "next") as freed:
        await claimed(store)
        assert not freed.is_set()
    assert "polos-wake-for-room" not in {one.get_name() for one in asyncio.all_tasks()}


async def test_one_parked_run_at_a_time_is_woken_for_room(store: SqliteStore) -> None:
    """Woken runs are queued: all at once they would take the room."""
    room = Room(store)
    works, *claims = [await taken(store) for _ in range(3)]
    for claim in (works, *claims):
        with pytest.raises(asyncio.CancelledError), room.waiting("default", claim.run_id):
            raise asyncio.CancelledError
    for claim in claims:
        await store.suspend(claim, wake_at=None, seen=0, deadline=None)
    first, second = claims
    await taken(store)  # the run before these is not suspended: it is passed over
    await until(lambda: is_queued(store, first), "the first is woken")
    await store.claim_run("default", first.run_id)
    assert not await is_queued(store, second), "the first may come to its start"
    with room.waiting("default", first.run_id):
        assert not await is_queued(store, second), "the first has its turn"
    await until(lambda: is_queued(store, second), "the second is woken")


async def test_a_step_that_is_cut_off_before_it_tries_leaves_its_turn_to_the_next(
    store: SqliteStore,
) -> None:
    room = Room(store)
    with room.waiting("default", "next") as freed:
        with pytest.raises(asyncio.CancelledError), room.waiting("default", "cut off") as own:
            await taken(store)
            assert freed.is_set()
            freed.clear()
            await taken(store)
            assert own.is_set()
            raise asyncio.CancelledError
        assert freed.is_set()


async def taken(store: SqliteStore) -> Claim:
    await store.create(new_run())
    return await soon(first_claim(store, {"agent"}))


async def is_queued(store: SqliteStore, claim: Claim) -> bool:
    record = await store.get(claim.project, claim.run_id)
    return record.state == RunState.RUN_STATE_QUEUED


class Refusing(Flows):
    """An executor whose store refuses starts with these errors, one after the other."""

    def __init__(self, *args: Any, errors: list[CallError], **options: Any) -> None:
        super().__init__(*args, **options)
        self._errors = errors

    async def create(self, run: NewRun) -> str:
        """Store a run, unless an error is left."""
        if self._errors:
            raise self._errors.pop(0)
        return await super().create(run)


async def test_what_waiting_helps_against_is_waited_for(
    store: SqliteStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(independent, "FIRST_PAUSE", 0.01)
    limit: dict[str, Any] = {"limit": "queued", "value": "1", "project": "default"}
    errors = [
        QuotaExceeded("as many as may be", retry_after=1.0, **limit),
        StoreUnavailable("away"),
        TooManyRuns("full", retry_after=1.0),
    ]
    gate = asyncio.Event()
    gate.set()
    parent = gated(gate)
    flows = Refusing(store, parent, shout, errors=errors)
    flows.begin()
    assert result_of(await flows.ended(await flows.result(parent))) == {"item": "TEA"}
    errors.append(QuotaExceeded("too many bytes", **limit))
    events = await flows.run(parent)
    assert events[-1].HasField("error")
    assert "too many bytes" in events[-1].error.message
    await flows.stop()
