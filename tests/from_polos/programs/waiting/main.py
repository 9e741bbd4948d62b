"""Starts workflows, sees what they ask in their streams, and answers what stands on stdin."""

import asyncio

from dotenv import load_dotenv
from workflows import Application, Expense, settle

from polos import Polos
from polos.features import events

load_dotenv()


async def ended(polos, handle):
    """Poll, as programs do."""
    while (execution := await polos.get_execution(handle.id))["status"] not in [
        "completed",
        "failed",
    ]:
        await asyncio.sleep(0.05)
    return execution


async def expense(polos):
    handle = await settle.invoke(polos, Expense(expense_id="e1", who="ann", amount=12.5))
    async for event in events.stream_workflow(polos, handle.root_workflow_id, handle.id):
        if event.event_type.startswith("suspend_"):
            print(event.event_type, event.data.get("who"), f"{event.data.get('amount', 0):.2f}")
            break
    print("status:", (await handle.get(polos))["status"])
    answer = {"approved": input("Approve? ") == "y", "by": input("Who are you? ")}
    await polos.resume(
        suspend_workflow_id=handle.root_workflow_id,
        suspend_execution_id=handle.id,
        suspend_step_key="decide",
        data=answer,
    )
    execution = await ended(polos, handle)
    print(execution["status"], execution["result"]["status"], execution["result"]["decision"])


async def application(polos):
    handle = await polos.invoke("apply", Application(form_id="f1"))
    for key in ("name", "town", "agreed"):
        async for event in events.stream_workflow(polos, handle.root_workflow_id, handle.id):
            if event.event_type.startswith("suspend_"):
                print("page of", event.data.get("form_id"))
                break
        value = input(f"{key}? ")
        data = {key: value == "y" if key == "agreed" else value}
        await polos.resume("apply", handle.id, key, data)
    print((await ended(polos, handle))["result"])
    async for event in events.stream_workflow(polos, "apply", handle.id):
        if event.event_type.startswith(("suspend_", "resume_")):
            print(event.event_type, {k: v for k, v in event.data.items() if k != "_metadata"})


async def main():
    async with Polos(log_file="polos.log") as polos:
        await expense(polos)
        await application(polos)


asyncio.run(main())
