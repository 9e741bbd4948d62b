"""Starts inside runs that wait for room in the queue on NATS."""

from __future__ import annotations

import asyncio

import pytest

from polos_client.define.context import WorkflowContext
from polos_client.define.workflow import workflow
from polos_service.runs import activity
from polos_service.runs.frame import SECOND
from polos_service.store.nats import NatsStore
from polos_service.workflows import independent
from tests.support.flows import flowing, result_of
from tests.support.nats import CLAIM_TIMEOUT, NatsServer
from tests.support.stores import first_claim, new_run, soon


@workflow(id="echo")
async def echo(ctx: WorkflowContext) -> str:
    return ctx.execution_id


@pytest.mark.parametrize("threshold", [60.0, 0.05], ids=["held", "parked"])
async def test_starts_that_wait_are_made_as_soon_as_there_is_room(
    nats_server: NatsServer, monkeypatch: pytest.MonkeyPatch, threshold: float
) -> None:
    for name in ("FIRST_PAUSE", "LONGEST_PAUSE"):
        monkeypatch.setattr(independent, name, 3600.0)
    monkeypatch.setattr(activity, "LEAST_PAUSE", 3600 * SECOND)
    gate = asyncio.Event()

    @workflow(id="parent")
    async def parent(ctx: WorkflowContext) -> str:
        await ctx.step.run("gate", gate.wait)
        return (await ctx.step.invoke("go", echo)).id

    store = await NatsStore.open(nats_server.address(), claim_timeout=CLAIM_TIMEOUT, max_queued=1)
    async with flowing(store, parent, echo, threshold=threshold) as flows:
        run_ids = []
        for _ in range(2):
            run_ids.append(await flows.start(parent))
            await flows.holds(run_ids[-1], "step_start gate 1")
        await store.create(new_run(workflow_id="blocker"))
        gate.set()
        for run_id in run_ids:
            await flows.holds(run_id, "step_start go 1")
            if threshold < 1:
                await flows.parked(run_id)
        await soon(first_claim(store, {"blocker"}))
        for run_id in run_ids:
            started = result_of(await flows.ended(run_id))
            assert result_of(await flows.ended(started)) == started
    await store.close()
