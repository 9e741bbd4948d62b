"""Workflows with state, as programs for the original SDK define and run them."""

import asyncio
from datetime import datetime
from typing import Any, Literal

from dotenv import load_dotenv
from pydantic import BaseModel, Field

from polos import Polos, WorkflowContext, WorkflowState, workflow

load_dotenv()


class Tally(WorkflowState):
    count: int = 0
    changed: str | None = None


class Basket(WorkflowState):
    items: list[dict[str, Any]] = Field(default_factory=list)
    total: float = 0.0


class Change(BaseModel):
    action: Literal["up", "down", "reset"] = "up"
    amount: int = 1


class Item(BaseModel):
    id: str
    price: float
    quantity: int = 1


class Put(BaseModel):
    item: Item | None = None
    remove: str | None = None


class Counted(BaseModel):
    before: int
    count: int
    changed: str


@workflow(id="count", state_schema=Tally)
async def count(ctx: WorkflowContext, payload: Change) -> Counted:
    before = ctx.state.count
    if payload.action == "reset":
        ctx.state.count = 0
    else:
        ctx.state.count += payload.amount if payload.action == "up" else -payload.amount
    ctx.state.changed = datetime(2026, 1, 2).isoformat()  # noqa: DTZ001
    await ctx.step.run("save", lambda: ctx.state.count)
    return Counted(before=before, count=ctx.state.count, changed=ctx.state.changed)


@workflow(id="basket", state_schema=Basket)
async def basket(ctx: WorkflowContext, payload: Put) -> Basket:
    if payload.item:
        ctx.state.items.append(payload.item.model_dump())
        ctx.state.total += payload.item.price * payload.item.quantity
    if payload.remove:
        ctx.state.items = [one for one in ctx.state.items if one["id"] != payload.remove]
    return Basket(items=ctx.state.items, total=ctx.state.total)


@workflow(id="stateless")
async def stateless(ctx: WorkflowContext) -> bool:
    return ctx.state is None


async def main():
    async with Polos(log_file="polos.log") as polos:
        print("fresh:", await count.run(polos, Change(amount=5)))
        print("model:", await count.run(polos, Change(), initial_state=Tally(count=41)))
        print("dict:", await count.run(polos, Change(action="down"), initial_state={"count": 1}))
        print("again:", (await count.run(polos, Change())).before)

        first = await basket.run(polos, Put(item=Item(id="tea", price=2.5, quantity=2)))
        print("basket:", first.total, first.items)
        second = await basket.run(polos, Put(remove="tea"), initial_state=first)
        print("emptied:", second.items)

        print("stateless:", await stateless.run(polos))


asyncio.run(main())
