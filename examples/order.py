"""An order that waits for a person; the service runs in this process, so no other is needed."""

from __future__ import annotations

import asyncio

from pydantic import BaseModel

from polos import Polos, WorkflowContext, events, workflow


class Order(BaseModel):
    """What is ordered."""

    item: str
    cents: int


def charge(order: Order) -> str:
    """Charge the customer."""
    return f"paid {order.cents} for {order.item}"


@workflow(id="order")
async def order_workflow(ctx: WorkflowContext, order: Order) -> str:
    """Charge the customer, once a person has approved the order."""
    answer = await ctx.step.suspend("approve", {"_form": {"title": f"Sell {order.item}?"}})
    if not answer["data"]["ok"]:
        return "rejected"
    paid = await ctx.step.run("charge", charge, order)
    await ctx.step.wait_for("pack", seconds=0.1)
    return f"{paid}, shipped"


async def main() -> None:
    """Start an order, approve it as a person would, and follow it to its end."""
    async with Polos([order_workflow]) as polos:
        handle = await order_workflow.invoke(polos, Order(item="tea", cents=900))
        async for event in events.stream_workflow(polos, workflow_run_id=handle.id):
            print(event.event_type)
            if event.event_type == "suspend_approve":
                print(f"? {event.data['_form']['title']}")
                await handle.resume(polos, "approve", {"ok": True})
        print((await handle.get(polos))["result"])


if __name__ == "__main__":
    asyncio.run(main())
