"""Timers and answers in workflows, and what a run does while it waits."""

from __future__ import annotations

import asyncio
import gc
import weakref
from collections.abc import Coroutine
from datetime import UTC, datetime, timedelta
from functools import partial
from typing import Any

import pytest
from pydantic import BaseModel, Field
from structlog.testing import capture_logs

from polos.v1.error_pb2 import FailureReason
from polos_client.define.children import BatchWorkflowInput
from polos_client.define.context import WorkflowContext
from polos_client.define.state import WorkflowState
from polos_client.define.workflow import workflow
from polos_client.errors import InvalidRequest, StepExecutionError
from polos_service.runs.frame import SECOND
from polos_service.store.sqlite import SqliteStore
from tests.support.flows import flowing, kinds, result_of
from tests.support.stores import new_run, until


class Form(BaseModel):
    title: str = "ok?"


class Cart(WorkflowState):
    items: list[str] = Field(default_factory=list)
    count: int = 0


@pytest.mark.parametrize("data", [{"title": "ok?"}, Form()])
async def test_suspend_returns_the_event_that_ended_it(store: SqliteStore, data: Any) -> None:
    seen: list[dict[str, Any]] = []

    @workflow(id="asks")
    async def function(ctx: WorkflowContext) -> Any:
        seen.append(await ctx.step.suspend("ask", data))
        await ctx.step.suspend("end")
        return seen[-1]

    async with flowing(store, function, threshold=0.02) as flows:
        run_id = await flows.start(function)
        await flows.answer(run_id, "ask", {"yes": True})
        await flows.parked(run_id)
        await flows.answer(run_id, "end")
        events = await flows.ended(run_id)
    assert kinds(events)[1:3] == ["suspended ask", "resumed ask answered"]
    assert events[1].suspended.data_json == '{"title":"ok?"}'
    created = events[2].create_time.ToDatetime(tzinfo=UTC)
    expected = {
        "data": {"yes": True},
        "event_type": "resume_ask",
        "sequence_id": 3,
        "topic": f"workflow/asks/{run_id}",
        "id": f"{run_id}:3",
    }
    for found in seen:
        at = datetime.fromisoformat(found["created_at"])
        assert abs(at - created) <= timedelta(microseconds=1)
        assert found == {**expected, "created_at": found["created_at"]}
    assert seen[0] == seen[1] == result_of(events)


async def test_nobody_answers_in_time(store: SqliteStore) -> None:
    @workflow(id="expires")
    async def function(ctx: WorkflowContext) -> str:
        try:
            await ctx.step.suspend("ask", timeout=0.02)
        except StepExecutionError as error:
            return str(error)
        return "answered"

    async with flowing(store, function) as flows:
        events = await flows.run(function)
    assert kinds(events)[1:-1] == ["suspended ask", "resumed ask expired"]
    assert result_of(events) == "Step 'ask' failed: Nobody answered in time."


RESERVED = ("workflow_finish", "error", "suspended", "suspend_x", "resume_", "unknown")


async def told(name: str, step: Any) -> None:
    await step.publish_workflow_event("a", {}, name)


async def in_another_loop(step: Coroutine[Any, Any, Any]) -> None:
    await asyncio.to_thread(asyncio.run, step)


@pytest.mark.parametrize(
    ("call", "text"),
    [
        (lambda step: step.wait_for("a"), "more than 0 seconds"),
        (lambda step: step.wait_for("a", seconds=-1, minutes=0), "more than 0 seconds"),
        (lambda step: step.wait_for("a", seconds=float("nan")), "must be numbers, not"),
        (lambda step: step.wait_for("a", seconds="5"), "must be numbers, not {'seconds': '5'}"),
        (lambda step: step.wait_for("a", weeks=1e30), "longer than 100 years"),
        (lambda step: step.wait_for("a", weeks=10_000), "longer than 100 years"),
        (lambda step: step.wait_until("a", datetime(2020, 1, 1)), "is past"),  # noqa: DTZ001
        (lambda step: step.wait_until("a", datetime(9999, 1, 1)), "100 years"),  # noqa: DTZ001
        (lambda step: step.wait_until("a", 5), "timestamp=5 of 'a' must be a datetime"),
        (lambda step: step.wait_until([], datetime.now(UTC)), "key [] must be a string"),
        (lambda step: step.version("a", 1.7), "current=1.7 of 'a' must be a whole number"),
        (lambda step: step.run(None, print), "key None must be a string of 1 to 1024 bytes"),
        (lambda step: step.uuid("\ud800"), "must be a string of 1 to 1024 bytes"),
        (  # the key of its entry has two bytes more
            lambda step: step.batch_invoke_and_wait("k" * 1023, [BatchWorkflowInput(id="x")]),
            "must be a string of 1 to 1024 bytes",
        ),
        (lambda step: step.resume("a", "b", None, "flow", {}), "suspend_execution_id=None"),
        (lambda step: in_another_loop(step.uuid("a")), "the service's event loop only"),
        (lambda step: step.suspend("a", timeout=0), "timeout=0"),
        (lambda step: step.suspend("a", [1]), "must be a dict or a model, not list"),
        (lambda step: step.suspend("a", {"a": float("nan")}), "cannot be stored as JSON"),
        (lambda step: step.suspend("a", {"a": "x" * 300_000}), "the limit is 262144"),
        (lambda step: step.publish_workflow_event("a", {"a": "x" * 300_000}), "the limit is"),
        (lambda step: step.publish_workflow_event("a", {}, "x" * 129), "1 to 128 characters"),
        *((partial(told, name), f"The type {name!r} of an event") for name in RESERVED),
        (lambda step: step.resume("a", "b", "run", "flow", {"a": float("nan")}), "JSON"),
    ],
)
async def test_what_cannot_be_waited_for_or_told_fails_at_once(
    store: SqliteStore, call: Any, text: str
) -> None:
    @workflow(id="refused")
    async def function(ctx: WorkflowContext) -> None:
        await call(ctx.step)

    async with flowing(store, function) as flows:
        events = await flows.run(function)
    assert kinds(events)[-1] == "error"
    assert text in events[-1].error.message
    assert "suspended a" not in kinds(events)


async def test_a_time_that_is_past_when_the_code_runs_again(store: SqliteStore) -> None:
    at = datetime.now(UTC) + timedelta(seconds=0.2)

    @workflow(id="past")
    async def function(ctx: WorkflowContext) -> str:
        await ctx.step.wait_until("nap", at)
        await ctx.step.suspend("end")
        return "done"

    async with flowing(store, function, threshold=0.02) as flows:
        run_id = await flows.start(function)
        await flows.parked(run_id)
        await flows.stop()
        await until(lambda: datetime.now(UTC) > at)
        flows.begin()
        await flows.answer(run_id, "end")
        events = await flows.ended(run_id)
    assert result_of(events) == "done"
    assert kinds(events)[1:3] == ["suspended nap", "resumed nap due"]


async def test_a_run_parks_again_and_again(store: SqliteStore) -> None:
    passes: list[int] = []

    @workflow(id="again")
    async def function(ctx: WorkflowContext) -> int:
        passes.append(1)
        for number in range(3):
            await ctx.step.suspend(f"ask {number}")
        return int(await ctx.step.run("sum", lambda: len(passes)))

    async with flowing(store, function, threshold=0.02) as flows:
        run_id = await flows.start(function)
        for number in range(3):
            await flows.holds(run_id, f"suspended ask {number}")
            await flows.parked(run_id)
            await flows.answer(run_id, f"ask {number}")
        assert result_of(await flows.ended(run_id)) == 4


async def test_the_deadline_of_a_run_falls_into_a_wait(store: SqliteStore) -> None:
    @workflow(id="deadline")
    async def function(ctx: WorkflowContext) -> None:
        await ctx.step.wait_for("nap", weeks=1)

    async with flowing(store, function, threshold=0.02) as flows:
        now = new_run().create_time
        run_id = await flows.start(function, create_time=now, deadline=now + SECOND)
        events = await flows.ended(run_id)
    assert events[-1].error.reason == FailureReason.FAILURE_REASON_RUN_TIMEOUT
    assert kinds(events)[1] == "suspended nap"


async def test_a_parked_run_leaves_nothing_in_memory(store: SqliteStore) -> None:
    class Load:
        pass

    loads: list[weakref.ref[Load]] = []

    @workflow(id="memory")
    async def function(ctx: WorkflowContext) -> None:
        load = Load()
        loads.append(weakref.ref(load))
        await asyncio.gather(*(ctx.step.suspend(f"ask {number}") for number in range(3)))

    before = asyncio.all_tasks()
    async with flowing(store, function, threshold=0.02) as flows:
        run_id = await flows.start(function)
        await flows.parked(run_id)
        await until(lambda: gc.collect() >= 0 and loads[0]() is None)
        names = {task.get_name() for task in asyncio.all_tasks() - before}
    assert names <= {"polos-claim", "polos-expire"}


async def test_cleaning_up_at_a_park_begins_nothing(store: SqliteStore) -> None:
    raised: list[BaseException] = []

    @workflow(id="cleans-up")
    async def function(ctx: WorkflowContext) -> str:
        try:
            await ctx.step.suspend("ask")
        except BaseException:
            try:
                await ctx.step.run("refund", lambda: 1)
            except BaseException as error:  # noqa: BLE001 - as bad code does
                raised.append(error)
            raise
        return "done"

    async with flowing(store, function, threshold=0.02) as flows:
        run_id = await flows.start(function)
        await flows.parked(run_id)
        assert len(raised) == 1
        await flows.answer(run_id, "ask")
        events = await flows.ended(run_id)
    assert "refund" not in " ".join(kinds(events))
    assert result_of(events) == "done"


async def test_own_events_and_answers_to_others_are_steps(store: SqliteStore) -> None:
    @workflow(id="tells")
    async def function(ctx: WorkflowContext) -> None:
        await ctx.step.publish_workflow_event("tell", {"at": 1}, "progress")
        await ctx.step.publish_workflow_event("tell again", Form(), "custom")
        await ctx.step.resume("answer", "ask", "run-x", "other", {"yes": True})
        await ctx.step.suspend("end")

    async with flowing(store, function, threshold=0.02) as flows:
        run_id = await flows.start(function)
        await flows.parked(run_id)
        await flows.answer(run_id, "end")
        events = await flows.ended(run_id)
        (resumed,) = flows.resumed
    own = [one.custom for one in events if one.HasField("custom")]
    assert [(one.type, one.data_json, one.step_key) for one in own] == [
        ("progress", '{"at":1}', "tell"),
        ("custom", '{"title":"ok?"}', "tell again"),
    ]
    assert resumed[:3] == ("run-x", "ask", '{"yes":true}')
    assert len(resumed[3]) == 64


async def test_state_is_made_of_the_initial_state(store: SqliteStore) -> None:
    @workflow(id="cart", state_schema=Cart)
    async def function(ctx: WorkflowContext) -> Any:
        ctx.state.items.append("pen")
        ctx.state.count += 1
        return ctx.state

    async with flowing(store, function) as flows:
        events = await flows.run(function, state={"items": ["ink"]})
        assert result_of(events) == {"items": ["ink", "pen"], "count": 1}
        with pytest.raises(InvalidRequest) as refused:
            await flows.start(function, state={"count": "many"})
    assert "initial_state_json" in str(refused.value)


async def test_made_values_are_the_same_each_time(store: SqliteStore) -> None:
    seen: list[list[Any]] = []

    @workflow(id="made")
    async def function(ctx: WorkflowContext) -> None:
        step = ctx.step
        seen.append([await step.uuid("u"), await step.now("n"), await step.random("r")])
        await step.suspend("end")

    async with flowing(store, function, threshold=0.02) as flows:
        run_id = await flows.start(function)
        await flows.parked(run_id)
        await flows.answer(run_id, "end")
        await flows.ended(run_id)
    assert seen[0] == seen[1]
    assert [type(one) for one in seen[0]] == [str, int, float]


async def test_a_sync_workflow_runs_in_a_thread(store: SqliteStore) -> None:
    @workflow(id="sync")
    def function(ctx: WorkflowContext, payload: dict[str, int]) -> int:
        return payload["a"] + 1

    async with flowing(store, function) as flows:
        assert await flows.result(function, {"a": 1}) == 2


async def test_a_sleep_beside_a_wait_is_a_warning_and_begins_anew(store: SqliteStore) -> None:
    passes: list[int] = []

    @workflow(id="sleeps")
    async def function(ctx: WorkflowContext) -> Any:
        passes.append(1)
        asking = asyncio.create_task(ctx.step.suspend("ask"))
        await asyncio.sleep(3600 if len(passes) < 3 else 0)
        return (await asking)["data"]

    with capture_logs() as logs:
        async with flowing(store, function, threshold=0.02) as flows:
            run_id = await flows.start(function)
            await flows.parked(run_id)
            await flows.restart()
            await flows.answer(run_id, "ask", "yes")
            await until(lambda: len(passes) == 2)
            await flows.restart()
            assert result_of(await flows.ended(run_id)) == "yes"
    told = [one["workflow"] for one in logs if one["event"] == "time_begins_anew"]
    assert told == ["sleeps"]


async def test_waits_measure_no_time_of_their_own(store: SqliteStore) -> None:
    @workflow(id="naps")
    async def function(ctx: WorkflowContext) -> None:
        timer = ctx.step.wait_for("nap", hours=1)
        await asyncio.gather(timer, ctx.step.suspend("ask", {}, timeout=3600))

    with capture_logs() as logs:
        async with flowing(store, function, threshold=0.02) as flows:
            await flows.parked(await flows.start(function))
    assert not [one for one in logs if one["event"] == "time_begins_anew"]


async def test_cleaning_up_may_take_a_while(store: SqliteStore) -> None:
    cleaned: list[str] = []

    @workflow(id="takes-a-while")
    async def function(ctx: WorkflowContext) -> None:
        async def ask(key: str) -> None:
            try:
                await ctx.step.suspend(key)
            finally:
                for _ in range(5):
                    await asyncio.sleep(0)
                cleaned.append(key)

        try:
            await asyncio.gather(ask("a"), ask("b"))
        finally:
            for _ in range(5):
                await asyncio.sleep(0)
            cleaned.append("main")

    async with flowing(store, function, threshold=0.02) as flows:
        run_id = await flows.start(function)
        await flows.parked(run_id)
        assert sorted(cleaned) == ["a", "b", "main"]
