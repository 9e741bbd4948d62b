"""The same code against the same log does the same."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Awaitable, Callable
from typing import Any

import pytest
from pydantic import BaseModel, create_model
from structlog.testing import capture_logs

from polos_client.define.context import WorkflowContext
from polos_client.define.scripted import turn
from polos_client.define.workflow import Workflow, workflow
from polos_client.errors import StepExecutionError
from polos_service.agents.runnable import AgentRunnable
from polos_service.models.providers import Providers
from polos_service.models.scripted import Scripted
from polos_service.runs import branch
from polos_service.store.sqlite import SqliteStore
from tests.support.flows import Flows, flowing, kinds, result_of
from tests.support.service import scripted, until


async def replayed(flows: Flows, function: Workflow) -> list[Any]:
    """Run a workflow whose last wait is `end`, park it, and let it go on."""
    run_id = await flows.start(function)
    await flows.parked(run_id)
    await flows.answer(run_id, "end")
    return await flows.ended(run_id)


async def test_twenty_parallel_steps_end_in_any_order(store: SqliteStore) -> None:
    calls: list[str] = []
    order: list[list[str]] = []

    @workflow(id="parallel")
    async def function(ctx: WorkflowContext) -> Any:
        done: list[str] = []

        async def work(key: str) -> str:
            await asyncio.sleep(random.random() / 50)
            calls.append(key)
            return key

        async def step(key: str) -> str:
            found: str = await ctx.step.run(key, work, key)
            done.append(key)
            return found

        keys = [f"step-{number}" for number in range(20)]
        random.shuffle(keys)  # as from a set
        found = await asyncio.gather(*(step(key) for key in keys))
        order.append(done)
        await ctx.step.suspend("end")
        return sorted(found)

    async with flowing(store, function, threshold=0.02) as flows:
        events = await replayed(flows, function)
    assert len(calls) == 20
    assert order[0] == order[1]
    assert result_of(events) == sorted(calls)


Race = Callable[[dict[asyncio.Task[Any], str]], Awaitable[str]]


async def by_wait(tasks: dict[asyncio.Task[Any], str]) -> str:
    done, left = await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
    for one in left:
        one.cancel()
    return "+".join(tasks[one] for one in done)


async def by_group(tasks: dict[asyncio.Task[Any], str]) -> str:
    winner: asyncio.Future[str] = asyncio.get_running_loop().create_future()

    async def watch(task: asyncio.Task[Any], name: str) -> None:
        await task
        if not winner.done():
            winner.set_result(name)

    async with asyncio.TaskGroup() as group:
        watching = [group.create_task(watch(task, name)) for task, name in tasks.items()]
        found = await winner
        for one in watching:
            one.cancel()
    return found


async def by_as_completed(tasks: dict[asyncio.Task[Any], str]) -> str:
    for one in asyncio.as_completed(tasks):
        found: str = await one
        break
    for task in tasks:
        task.cancel()
    return found


@pytest.mark.parametrize("race", [by_wait, by_group, by_as_completed])
@pytest.mark.parametrize("fast", ["a", "b"])
async def test_a_race_has_the_same_winner(store: SqliteStore, race: Race, fast: str) -> None:
    winners: list[str] = []

    @workflow(id="race")
    async def function(ctx: WorkflowContext) -> str:
        async def work(key: str) -> str:
            await asyncio.sleep(0 if key == fast else 0.01)
            return key

        tasks = {asyncio.create_task(ctx.step.run(key, work, key)): key for key in "ab"}
        winners.append(await race(tasks))
        await ctx.step.run(f"after {winners[-1]}", lambda: 1)
        await ctx.step.suspend("end")
        return winners[-1]

    async with flowing(store, function, threshold=0.02) as flows:
        events = await replayed(flows, function)
    assert winners == [fast, fast]
    assert kinds(events).count(f"step_start after {fast} 1") == 1


@pytest.mark.parametrize("form", ["timeout", "wait_for"])
async def test_a_timeout_around_a_step_is_the_same(store: SqliteStore, form: str) -> None:
    calls: list[int] = []
    found: list[str] = []

    @workflow(id="timeout")
    async def function(ctx: WorkflowContext) -> None:
        async def work() -> None:
            calls.append(1)
            await asyncio.Event().wait()

        try:
            if form == "timeout":
                async with asyncio.timeout(0.02):
                    await ctx.step.run("slow", work)
            else:
                await asyncio.wait_for(ctx.step.run("slow", work), 0.02)
        except TimeoutError:
            found.append("late")
        await ctx.step.suspend("end")

    async with flowing(store, function, threshold=0.02) as flows:
        events = await replayed(flows, function)
    assert len(calls) <= 1  # on a slow disk it ends before it begins
    assert found == ["late", "late"]
    assert kinds(events)[1:3] == ["step_start slow 1", "step_failed slow 1"]


async def test_code_that_waits_for_what_was_given_up_is_left_with_a_reason(
    store: SqliteStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(branch, "GIVING_UP", 0.01)
    patient = False

    @workflow(id="patient")
    async def function(ctx: WorkflowContext) -> None:
        async with asyncio.timeout(None if patient else 0.02):
            await ctx.step.run("slow", asyncio.Event().wait)

    with capture_logs() as logs:
        async with flowing(store, function, max_retries=0) as flows:

            @workflow(id="patient")
            async def before(ctx: WorkflowContext) -> None:
                try:
                    async with asyncio.timeout(0.02):
                        await ctx.step.run("slow", asyncio.Event().wait)
                except TimeoutError:
                    await ctx.step.suspend("end")

            async with flowing(store, before, threshold=0.02) as former:
                await flows.stop()
                run_id = await former.start(before)
                await former.parked(run_id)
            patient = True
            flows.begin()
            await flows.answer(run_id, "end")

            async def left() -> None:
                while not any(one["event"] == "run_left" for one in logs):
                    await asyncio.sleep(0.01)

            await asyncio.wait_for(left(), 60)
            assert kinds(await flows.events(run_id))[-1] == "suspended end"
    (warning, *_) = [one for one in logs if one["event"] == "run_left"]
    assert warning["step_key"] == "slow"
    assert "'given up by the code'" in warning["reason"]


async def test_a_step_of_another_kind_leaves_the_run_to_the_code_it_began_with(
    store: SqliteStore,
) -> None:
    asks = True

    @workflow(id="changed")
    async def function(ctx: WorkflowContext) -> str:
        if asks:
            await ctx.step.suspend("ask")
        else:
            await ctx.step.run("ask", lambda: 1)
        return "done"

    with capture_logs() as logs:
        async with flowing(store, function, threshold=0.02) as flows:
            run_id = await flows.start(function)
            await flows.parked(run_id)
            asks = False
            await flows.answer(run_id, "ask")
            while not any(one["event"] == "run_left" for one in logs):
                await asyncio.sleep(0.01)
            asks = True
            assert result_of(await flows.ended(run_id)) == "done"


class Payment(BaseModel):
    cents: int


@workflow(id="pay")
async def pay(ctx: WorkflowContext) -> Payment:
    return Payment(cents=5)


PAYING = scripted(turn('{"cents": 5}'), id="paying", output_schema=Payment)


async def charged(ctx: WorkflowContext, way: str) -> Any:
    match way:
        case "step":
            return await ctx.step.run("charge", lambda: Payment(cents=5))
        case "workflow":
            return await ctx.step.invoke_and_wait("charge", pay)
        case "run":
            handle = await ctx.step.invoke("start", pay)
            return await ctx.step.wait_for_run("charge", handle)
        case _:
            return (await ctx.step.agent_invoke_and_wait("charge", PAYING.with_input("Go"))).result


@pytest.mark.parametrize("way", ["step", "workflow", "agent", "run"])
async def test_a_result_that_the_code_cannot_read_any_more_is_not_a_failure(
    store: SqliteStore, monkeypatch: pytest.MonkeyPatch, way: str
) -> None:
    @workflow(id="saga")
    async def saga(ctx: WorkflowContext) -> str:
        try:
            paid = await charged(ctx, way)
        except StepExecutionError:
            return await ctx.step.run("give back", lambda: "given back")
        await ctx.step.suspend("ship")
        return f"shipped for {paid.cents}"

    newer = create_model("Newer", cents=(int, ...), currency=(str, ...))
    with capture_logs() as logs:
        async with flowing(store, saga, pay, threshold=0.02) as flows:
            models = Providers({"scripted": lambda _: Scripted()})
            flows.add(AgentRunnable(PAYING, models, flows.means))
            run_id = await flows.start(saga)
            await flows.holds(run_id, "suspended ship")
            await flows.parked(run_id)
            with monkeypatch.context() as deployed:
                deployed.setattr("polos_client.typed._named", lambda _: iter([newer]))
                deployed.setattr(PAYING, "output_schema", newer)
                await flows.answer(run_id, "ship")
                await until(lambda: any(one["event"] == "run_left" for one in logs), "it is left")
                assert kinds(await flows.events(run_id))[-1] == "suspended ship"
            assert result_of(await flows.ended(run_id)) == "shipped for 5"
    (left, *_) = [one for one in logs if one["event"] == "run_left"]
    assert left["step_key"] == "charge"
    assert "cannot read any more: " in left["reason"]
    assert "Go back to the code that the run was started with" in left["reason"]


async def test_steps_that_nobody_awaits_end_before_the_run(store: SqliteStore) -> None:
    tasks: list[asyncio.Task[Any]] = []

    @workflow(id="first")
    async def function(ctx: WorkflowContext) -> str:
        calls = [
            ctx.step.run("work", asyncio.Event().wait),
            ctx.step.suspend("ask"),
            ctx.step.wait_for("nap", weeks=1),
        ]
        tasks.extend(asyncio.create_task(call) for call in calls)
        await asyncio.sleep(0.02)
        return "done"

    with capture_logs() as logs:
        async with flowing(store, function) as flows:
            events = await flows.run(function)
            assert await store.open_waits("default", events[0].run_id) == []
    assert sorted(kinds(events)[4:-1]) == [
        "resumed ask cancelled",
        "resumed nap cancelled",
        "step_failed work 1",
    ]
    assert kinds(events)[-1] == "workflow_finish"
    assert all(one.cancelled() for one in tasks)
    (warning,) = [one for one in logs if one["event"] == "steps_not_awaited"]
    assert warning["count"] == 3


async def test_a_function_that_swallows_its_end_cannot_hold_the_run(
    store: SqliteStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("polos_service.runs.leftovers.STOP_PATIENCE", 0.05)
    refused: list[BaseException] = []
    asked_to_stop: list[bool] = []

    @workflow(id="stubborn")
    async def again(ctx: WorkflowContext) -> str:
        async def stubborn() -> None:
            while not asked_to_stop:
                try:
                    await ctx.step.suspend(f"ask {len(refused)}")
                except BaseException as error:  # noqa: BLE001 - as bad code does
                    refused.append(error)

        task = asyncio.create_task(stubborn())
        await asyncio.sleep(0.02)
        return task.get_name()

    async with flowing(store, again) as flows:
        events = await flows.run(again)
        asked_to_stop.append(True)
    assert kinds(events)[-2:] == ["resumed ask 0 cancelled", "workflow_finish"]
    assert len(refused) <= branch.REFUSALS + 2


async def test_recorded_steps_that_the_code_no_longer_asks_for_are_a_warning(
    store: SqliteStore,
) -> None:
    asks = True

    @workflow(id="unasked")
    async def function(ctx: WorkflowContext) -> str:
        if asks:
            await ctx.step.run("old", lambda: 1)
        await ctx.step.suspend("end")
        return "done"

    with capture_logs() as logs:
        async with flowing(store, function, threshold=0.02) as flows:
            run_id = await flows.start(function)
            await flows.parked(run_id)
            asks = False
            await flows.answer(run_id, "end")
            assert result_of(await flows.ended(run_id)) == "done"
    (warning,) = [one for one in logs if one["event"] == "steps_unasked"]
    assert warning["step_keys"] == "old"


async def test_version_follows_what_the_run_has_begun(store: SqliteStore) -> None:
    new = False
    seen: list[int] = []

    @workflow(id="versions")
    async def function(ctx: WorkflowContext) -> int:
        found = await ctx.step.version("change", 2) if new else 0
        seen.append(found)
        await ctx.step.suspend("end")
        return found

    async with flowing(store, function, threshold=0.02) as flows:
        run_id = await flows.start(function)
        await flows.parked(run_id)
        new = True
        assert seen == [0]
        await flows.answer(run_id, "end")
        assert result_of(await flows.ended(run_id)) == 0
        assert result_of(await replayed(flows, function)) == 2
    assert seen == [0, 0, 2, 2]


async def test_the_same_key_twice_is_an_error(store: SqliteStore) -> None:
    @workflow(id="twice")
    async def function(ctx: WorkflowContext) -> None:
        await ctx.step.uuid("a")
        await ctx.step.uuid("a")

    async with flowing(store, function, max_retries=0) as flows:
        events = await flows.run(function)
    assert "The step key 'a' is already used" in events[-1].error.message
