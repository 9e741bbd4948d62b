"""Answers what agents ask in one stream of a run; event types tell the waits apart."""

import asyncio

from agents import assistant, desk
from dotenv import load_dotenv
from polos import Polos
from polos.features import events

load_dotenv()


async def suspends(polos, handle):
    async for event in events.stream_workflow(polos, handle.root_workflow_id, handle.id):
        if event.event_type.startswith("suspend_"):
            yield event.event_type[len("suspend_") :], event.data


def approval(data):
    """Approve what is not too much."""
    shown = data["_form"]["context"]
    approved = shown["tool"] == "pay" and shown["input"]["euros"] < 800
    return {"approved": True} if approved else {"approved": False, "feedback": "Too much."}


def answers(data):
    form = data["_form"]
    print(form["title"], "-", form["description"])
    return {field["key"]: input(f"{field['label']}: ") for field in form["fields"]}


async def talk(polos, agent, text):
    handle = await polos.invoke(agent.id, {"input": text, "streaming": True})
    async for step_key, data in suspends(polos, handle):
        if step_key.startswith("pay"):
            answer = approval(data)
        elif step_key.startswith("ask_user"):
            answer = answers(data)
        else:
            raise ValueError(step_key)
        await polos.resume(
            suspend_workflow_id=handle.root_workflow_id,
            suspend_execution_id=handle.id,
            suspend_step_key=step_key,
            data=answer,
            wait_id=data["_metadata"]["wait_id"],
        )
    execution = await polos.get_execution(handle.id)
    print(execution["status"], execution["result"]["result"])


async def main():
    async with Polos(log_file="polos.log") as polos:
        await talk(polos, assistant, "Pay the bills.")
        await talk(polos, desk, "Pay the rent.")


if __name__ == "__main__":
    asyncio.run(main())
