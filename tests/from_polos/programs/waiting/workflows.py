"""Workflows that ask people, as programs for the original SDK define them."""

from pydantic import BaseModel

from polos import WorkflowContext, workflow


class Expense(BaseModel):
    expense_id: str
    who: str
    amount: float


class Decision(BaseModel):
    approved: bool
    by: str
    remark: str | None = None


class Settled(BaseModel):
    expense_id: str
    status: str
    decision: Decision | None = None


class Application(BaseModel):
    form_id: str
    kind: str = "membership"


class Person(BaseModel):
    name: str
    town: str


@workflow(id="settle-expense")
async def settle(ctx: WorkflowContext, payload: Expense) -> Settled:
    await ctx.step.run("prepare", lambda: {"prepared": True})
    answer = await ctx.step.suspend(
        "decide",
        data={"expense_id": payload.expense_id, "amount": payload.amount, "who": payload.who},
        timeout=86400,
    )
    decision = Decision.model_validate(answer.get("data", {}))
    if not decision.approved:
        return Settled(expense_id=payload.expense_id, status="refused", decision=decision)
    await ctx.step.run("pay", lambda: {"paid": payload.amount})
    return Settled(expense_id=payload.expense_id, status="paid", decision=decision)


@workflow(id="apply")
async def apply(ctx: WorkflowContext, payload: Application) -> dict:
    """Ask in three pages, one after the other."""
    name = await ctx.step.suspend("name", data={"form_id": payload.form_id, "page": 1})
    town = await ctx.step.suspend("town", data={"form_id": payload.form_id, "page": 2})
    agreed = await ctx.step.suspend("agreed", {"form_id": payload.form_id, "page": 3})
    person = Person.model_validate({**name["data"], **town["data"]})
    return {"person": person.model_dump(), "agreed": agreed["data"]["agreed"], "kind": payload.kind}
