"""An order: an agent looks at it, a person approves it if it is suspicious, then it is charged."""

from typing import Literal

from pydantic import BaseModel

from polos import Agent, StepExecutionError, WorkflowContext, max_steps, tool, workflow


class Order(BaseModel):
    order_id: str
    amount: float
    country: str = "NO"


class Assessment(BaseModel):
    risk: Literal["low", "high"]
    why: str


class Charge(BaseModel):
    charge_id: str
    amount: float


class Result(BaseModel):
    order_id: str
    status: str
    charge_id: str | None = None
    by: str | None = None


@tool(id="look_up_customer", description="Says what is known of the customer of an order.")
async def look_up(ctx: WorkflowContext, order_id: str) -> dict:
    orders = await ctx.step.run("count", count_orders, order_id=order_id)
    return {"order_id": order_id, "orders": orders}


def count_orders(order_id: str) -> int:
    return len(order_id)


assessor = Agent(
    id="assessor",
    provider="openai",
    model="gpt-4o-mini",
    system_prompt="Say how risky the order is, and why.",
    tools=[look_up],
    output_schema=Assessment,
    stop_conditions=[max_steps(count=5)],
)


async def charge(order_id: str, amount: float) -> Charge:
    if amount > 10_000:
        raise ValueError("the card was declined")
    return Charge(charge_id=f"ch-{order_id}", amount=amount)


@workflow(id="process-order")
async def process_order(ctx: WorkflowContext, payload: Order) -> Result:
    found = await ctx.step.agent_invoke_and_wait(
        "assess", assessor.with_input(f"Assess the order {payload.order_id}: {payload.amount}.")
    )
    by = None
    if found.result.risk == "high":
        answer = await ctx.step.suspend(
            "approve_order",
            data={
                "order_id": payload.order_id,
                "workflow": ctx.root_workflow_id,
                "execution": ctx.root_execution_id,
            },
            timeout=3600,
        )
        decision = answer.get("data", {})
        by = decision.get("by")
        if not decision.get("approved"):
            return Result(order_id=payload.order_id, status="rejected", by=by)
    try:
        paid = await ctx.step.run(
            "charge",
            charge,
            order_id=payload.order_id,
            amount=payload.amount,
            max_retries=1,
            base_delay=0.01,
        )
    except StepExecutionError:
        return Result(order_id=payload.order_id, status="not paid", by=by)
    return Result(order_id=payload.order_id, status="paid", charge_id=paid.charge_id, by=by)
