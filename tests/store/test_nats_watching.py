"""Runs in NATS that end while their holder dies: those who wait for them are told all the same."""

from __future__ import annotations

import asyncio
from functools import partial
from typing import Any, NoReturn

import pytest

from polos_client.define.children import BatchWorkflowInput
from polos_client.define.context import WorkflowContext
from polos_client.define.workflow import workflow
from polos_client.errors import StoreUnavailable
from polos_service.store import Command, RunQuery, end_of
from polos_service.store.nats import NatsStore, watching
from tests.support.flows import Flows, result_of
from tests.support.service import until
from tests.support.stores import COMPLETED, claimed, first_claim, frame, new_run, soon


async def dies(*_: object) -> NoReturn:
    raise StoreUnavailable("The process ended here.")


async def test_an_end_that_was_not_told_is_told_by_whoever_finds_the_item(
    one: NatsStore, other: NatsStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = new_run(workflow_id="target")
    await one.create(run)
    target = await soon(first_claim(one, ["target"]))
    held = await claimed(other)
    assert await other.watch("default", target.run_id, held.run_id)
    monkeypatch.setattr(one._watchers, "finish", dies)
    await one.append(target, frame(1, outcome=COMPLETED))
    await one.close()
    claiming = asyncio.ensure_future(other.claim(["target"], 1))
    assert list(await soon(other.commands(held, 0))) == [end_of(target.run_id, held.run_id)]

    async def recorded() -> bool:
        return (await other.get("default", target.run_id)).finish_time is not None

    await until(recorded, "the record to tell the end")
    claiming.cancel()


async def test_an_end_beside_the_look_at_it_is_told(
    one: NatsStore, other: NatsStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    target = await claimed(one)
    held = await claimed(other)
    put = other._jetstream.put_value

    async def slow(*args: object, **more: object) -> int:
        """Let the run end just before it is noted who waits for it."""
        await one.append(target, frame(1, outcome=COMPLETED))
        return await put(*args, **more)  # type: ignore[arg-type]

    monkeypatch.setattr(other._jetstream, "put_value", slow)
    assert not await other.watch("default", target.run_id, held.run_id)
    assert await one._jetstream.subjects("KV_POLOS_WATCHERS", "$KV.POLOS_WATCHERS.>") == []


async def test_watchers_are_told_concurrently_up_to_a_bound(
    one: NatsStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(watching, "AT_ONCE", 3)
    target = await claimed(one)
    roots = [(await claimed(one)).run_id for _ in range(7)]
    for root in roots:
        assert await one.watch("default", target.run_id, root)
    order, begun, most = one._watchers._order, 0, 0
    full, goes_on = asyncio.Event(), asyncio.Event()

    async def held(project: str, root: str, command: Command) -> None:
        nonlocal begun, most
        begun += 1
        most = max(most, begun)
        if begun == 3:
            full.set()
        await goes_on.wait()
        await order(project, root, command)
        begun -= 1

    monkeypatch.setattr(one._watchers, "_order", held)
    ending = asyncio.ensure_future(one.append(target, frame(1, outcome=COMPLETED)))
    await soon(full.wait())
    assert (await one.get("default", target.run_id)).state == COMPLETED  # readers do not wait
    goes_on.set()
    await soon(ending)
    assert most == 3
    for root in roots:
        assert list(await one.inbox("default", root)) == [end_of(target.run_id, root)]


async def test_watchers_that_a_failure_left_untold_are_told_by_whoever_finds_the_item(
    one: NatsStore, other: NatsStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = new_run(workflow_id="target")
    await one.create(run)
    target = await soon(first_claim(one, ["target"]))
    roots = [(await claimed(other)).run_id for _ in range(5)]
    for root in roots:
        assert await other.watch("default", target.run_id, root)
    order = one._watchers._order

    async def fails(project: str, root: str, command: Command) -> None:
        if root in roots[1:3]:
            await dies()
        await order(project, root, command)

    monkeypatch.setattr(one._watchers, "_order", fails)
    await one.append(target, frame(1, outcome=COMPLETED))
    told = [len(await other.inbox("default", root)) for root in roots]
    assert told == [1, 0, 0, 1, 1]
    assert len(await one._jetstream.subjects("KV_POLOS_WATCHERS", "$KV.POLOS_WATCHERS.>")) == 2
    await one.close()
    claiming = asyncio.ensure_future(other.claim(["target"], 1))
    for root in roots:
        await until(partial(has_inbox, other, root), "all to be told")
        assert list(await other.inbox("default", root)) == [end_of(target.run_id, root)]
    claiming.cancel()


async def has_inbox(store: NatsStore, root: str) -> bool:
    return bool(await store.inbox("default", root))


@workflow(id="asks")
async def asks(ctx: WorkflowContext) -> Any:
    return (await ctx.step.suspend("on"))["data"]


@workflow(id="parent")
async def parent(ctx: WorkflowContext) -> Any:
    handles = await ctx.step.batch_invoke("go", [BatchWorkflowInput(id="asks")] * 3)
    waits = [ctx.step.wait_for_run(f"end-{at}", one) for at, one in enumerate(handles)]
    return await asyncio.gather(*waits)


async def test_runs_wait_for_each_other_across_replicas(one: NatsStore, other: NatsStore) -> None:
    both = [Flows(store, parent, asks, threshold=0.05) for store in (one, other)]
    for flows in both:
        flows.begin()
    run_id = await both[0].start(parent)
    for at in range(3):
        await both[1].holds(run_id, f"suspended end-{at}")
    await both[1].parked(run_id)
    started = await other.list("default", RunQuery(limit=9, parent_root=run_id))
    assert {run.parent.step_key for run in started if run.parent} == {f"go/{at}" for at in range(3)}
    for number, child in enumerate(reversed(started)):
        await both[0].holds(child.run_id, "suspended on")
        await both[number % 2].answer(child.run_id, "on", number)
    assert result_of(await both[0].ended(run_id)) == [0, 1, 2]
    for flows in both:
        await flows.stop()
