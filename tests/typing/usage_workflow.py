"""Defining workflows, running them and answering what they ask, as users write it."""

from __future__ import annotations

from collections.abc import AsyncGenerator
from datetime import datetime
from typing import Any, assert_type

from pydantic import BaseModel

from polos import (
    AlreadyAnswered,
    AmbiguousWait,
    CallError,
    ExecutionHandle,
    Polos,
    PolosClient,
    PolosError,
    StepExecutionError,
    Wait,
    WaitExpired,
    WaitNotOpen,
    Workflow,
    WorkflowContext,
    WorkflowState,
    get_all_workflows,
    get_workflow,
    workflow,
)
from polos.core.workflow import Workflow as SameWorkflow


class Order(BaseModel):
    item: str


class Cart(WorkflowState):
    count: int = 0


def charge(amount: int) -> dict[str, int]:
    return {"charged": amount}


@workflow
async def plain(ctx: WorkflowContext) -> None:
    """Do nothing."""


@workflow("by-position", "Told.")
def in_a_thread(ctx: WorkflowContext, payload: dict[str, Any]) -> int:
    return len(payload)


@workflow(id="order", description="Orders", state_schema=Cart, version="2")
async def order(ctx: WorkflowContext, payload: Order | None = None) -> Order:
    assert_type(ctx.execution_id, str)
    assert_type(ctx.retry_count, int)
    assert_type(ctx.created_at, datetime | None)
    assert_type(ctx.to_dict(), dict[str, Any])
    try:
        await ctx.step.run("charge", charge, 3, max_retries=1, base_delay=0.5, timeout=10)
    except StepExecutionError as error:
        assert_type(error.reason, str)
    await ctx.step.wait_for("rest", seconds=1, days=2)
    answer = await ctx.step.suspend("ask", {"question": "Go on?"}, timeout=60)
    assert_type(answer, dict[str, Any])
    await ctx.step.suspend("more", Order(item="tea"))
    assert_type(await ctx.step.uuid("id"), str)
    assert_type(await ctx.step.now("now"), int)
    assert_type(await ctx.step.random("random"), float)
    assert_type(await ctx.step.version("change", 2), int)
    await ctx.step.publish_workflow_event("told", {"a": 1}, event_type="mine")
    with ctx.step.trace("part", {"a": 1}):
        ctx.state.count += 1
    return Order(item="tea")


assert_type(plain, Workflow)
assert_type(order, SameWorkflow)
assert_type(order.id, str)
assert_type(order.version, str)
assert_type(get_workflow("order"), Workflow | None)
assert_type(get_all_workflows(), dict[str, Workflow])

workflow(id="wrong", state_schema=Order)  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
workflow(colour="red")  # type: ignore[call-overload]  # pyright: ignore[reportCallIssue]
plain(None)  # type: ignore[operator]  # pyright: ignore[reportCallIssue]


async def run(client: PolosClient) -> None:
    assert_type(await order.run(client, Order(item="tea"), timeout=5, request_id="r"), Any)
    await order.run(client, {"item": "tea"}, None, None, "session", "user", 60, Cart())
    handle = await order.invoke(client, Order(item="tea"), run_timeout_seconds=5)
    assert_type(handle, ExecutionHandle)
    assert_type(await client.invoke("order", Order(item="tea")), ExecutionHandle)
    await client.invoke("agent", {"input": "Hello", "streaming": True})
    await order.run("here")  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]


async def answer(client: PolosClient, handle: ExecutionHandle) -> None:
    assert_type(client.list_waits(), AsyncGenerator[Wait, None])
    async for wait in client.list_waits(workflow_id="order", limit=10):
        assert_type(wait.run_id, str)
        assert_type(wait.step_key, str)
        assert_type(wait.wait_id, int)
        assert_type(wait.kind, str)
        assert_type(wait.data, dict[str, Any])
        assert_type(wait.created_at, datetime)
        assert_type(wait.expires_at, datetime | None)
        wait.wait_id = 1  # type: ignore[misc]  # pyright: ignore[reportAttributeAccessIssue]
        await client.resume(wait.workflow_id, wait.run_id, wait_id=wait.wait_id, data={"a": 1})
    await client.resume("order", handle.id, "ask", Order(item="tea"), request_id="r")
    await client.resume(
        suspend_workflow_id="order", suspend_execution_id="r", suspend_step_key="ask", data=1
    )
    try:
        await handle.resume(client, "ask", {"yes": True})
        await handle.resume(client, wait_id=7, data={"approved": True})
    except (AlreadyAnswered, AmbiguousWait, WaitExpired, WaitNotOpen) as error:
        refused: CallError = error
        base: PolosError = refused
        assert_type(base.args, tuple[Any, ...])


async def in_one_process() -> None:
    async with Polos([order, plain]) as polos:
        await run(polos)
