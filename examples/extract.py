"""Extract typed data from a text: it grows while it is written, and ends as a pydantic model.

It needs no other service, and no API key: a script plays the model, and gets one field wrong.
"""

from __future__ import annotations

import asyncio
from datetime import date
from decimal import Decimal

from pydantic import BaseModel, Field

from examples.agents import model, typed
from polos import Agent, Polos

TEXT = "Invoice 7 of 2 May 2026 from Lamp & Oil: two lamps at 45.50 each, one can of oil at 9.00."


class Line(BaseModel):
    """A line of an invoice."""

    item: str
    count: int = Field(ge=1)
    price: Decimal = Field(description="The price of one")


class Invoice(BaseModel):
    """An invoice."""

    seller: str
    day: date
    lines: list[Line]


WRONG = """{"seller": "Lamp & Oil", "day": "2 May", "lines": []}"""
RIGHT = """{"seller": "Lamp & Oil", "day": "2026-05-02", "lines": [
  {"item": "lamp", "count": 2, "price": 45.50}, {"item": "oil", "count": 1, "price": 9.00}]}"""

extractor = Agent(
    "extractor",
    *model(typed(WRONG), typed(RIGHT)),
    system_prompt="Extract the invoice from the text.",
    output_schema=Invoice,
)


async def main() -> None:
    """Extract an invoice, and add it up."""
    async with Polos() as client:
        stream = await extractor.stream(client, TEXT)
        async for draft in stream.partial:  # as far as it is written
            print(draft)
        result = await stream.result()
    invoice: Invoice = result.result
    for line in invoice.lines:
        print(f"{line.count} x {line.item} at {line.price}")
    print(f"{invoice.seller}, {invoice.day}: {sum(one.count * one.price for one in invoice.lines)}")
    print(f"{result.result_schema} after {result.total_steps} model calls")


if __name__ == "__main__":
    asyncio.run(main())
