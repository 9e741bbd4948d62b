"""A support agent whose refunds a person approves: `polos serve examples.support.app`.

The shop's orders are in this file, its refunds in the SQLite file SHOP_DB.
"""

from __future__ import annotations

import os
import sqlite3
import tempfile
from contextlib import closing
from pathlib import Path
from typing import Annotated

from pydantic import Field

from examples.agents import model
from polos import Agent, WorkflowContext, scripted, tool

SHOP_DB = os.environ.get("SHOP_DB") or Path(tempfile.gettempdir(), "polos-shop.db")

ORDERS = {
    "1207": {"item": "lamp", "cents": 4550, "state": "delivered"},
    "1208": {"item": "can of oil", "cents": 900, "state": "on its way"},
}


@tool
async def find_order(order: str) -> dict[str, object]:
    """Find an order by its number."""
    if order not in ORDERS:
        raise LookupError(f"There is no order {order!r}.")
    return {"order": order, **ORDERS[order]}


@tool(approval="always", editable=True)
def refund(
    ctx: WorkflowContext, order: str, cents: Annotated[int, Field(gt=0, le=50_000)], reason: str
) -> str:
    """Pay the customer of an order some or all of the money back."""
    # After a crash the call may run again. The key is the same then, so the money is paid once.
    with closing(sqlite3.connect(SHOP_DB)) as shop, shop:
        shop.execute("create table if not exists refunds (key primary key, number, cents)")
        row = (ctx.idempotency_key, order, cents)
        shop.execute("insert or ignore into refunds values (?, ?, ?)", row)
    return f"{cents / 100:.2f} EUR are paid back for order {order}: {reason}."


support = Agent(
    "support",
    *model(
        scripted.turn("I look at your order. ", scripted.call("find_order", order="1207")),
        scripted.turn(
            "I ask a colleague about a refund. ",
            scripted.call("refund", order="1207", cents=4550, reason="The lamp arrived broken"),
        ),
        "My colleague has decided, and I have done what they said. We are sorry for the trouble.",
    ),
    description="Answers customers, and refunds what a person approves",
    system_prompt=(
        "You answer the customers of a lamp shop. Look at the order before you refund it. "
        "Tell the customer the amount that was really refunded."
    ),
    tools=[find_order, refund],
)
