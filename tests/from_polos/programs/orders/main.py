"""Processes orders. Those that need a person's approval get it from another program."""

import asyncio
import os
import sys

from dotenv import load_dotenv
from workflows import Order, process_order

from polos import Polos
from polos.features import events

load_dotenv()


async def approve(polos, data, answer):
    """Run `approve_order.py`, as a person would."""
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "approve_order.py"),
        *(data["workflow"], data["execution"], "approve_order", answer),
        env={**os.environ, "POLOS_API_URL": f"http://{polos.address}"},
    )
    assert await process.wait() == 0


async def process(polos, order, answer):
    handle = await polos.invoke("process-order", order)
    async for event in events.stream_workflow(polos, "process-order", handle.id):
        if event.event_type.startswith("suspend_"):
            print(order.order_id, "waits:", event.data["order_id"])
            await approve(polos, event.data, answer)
    done = await handle.get(polos)
    print(done["status"], done["result"])


async def main():
    async with Polos(log_file="polos.log") as polos:
        await process(polos, Order(order_id="o-1", amount=20), "no")
        await process(polos, Order(order_id="o-2", amount=900), "yes")
        await process(polos, Order(order_id="o-3", amount=20_000), "yes")
        result = await process_order.run(polos, Order(order_id="o-4", amount=5))
        print(result.status, result.charge_id)


if __name__ == "__main__":
    asyncio.run(main())
