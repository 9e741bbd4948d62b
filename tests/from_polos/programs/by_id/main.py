import asyncio

from dotenv import load_dotenv
from polos import Agent, Polos
from polos.features import events
from polos.types import AgentResult

load_dotenv()

storyteller = Agent("storyteller", "openai", "gpt-4o-mini", system_prompt="Tell a story.")


async def main():
    async with Polos(log_file="polos.log") as polos:
        handle = await polos.invoke(
            "storyteller", {"input": "Tell me one.", "streaming": True}, session_id="evening"
        )
        while (execution := await polos.get_execution(handle.id))["status"] not in [
            "completed",
            "failed",
        ]:
            await asyncio.sleep(0.05)
        print("execution:", execution["status"], execution["session_id"])
        print("result:", AgentResult.model_validate(execution["result"]).result)
        print("cancelled:", await polos.cancel_execution(handle.id), await handle.cancel(polos))

        forms = [
            events.stream_workflow(polos, handle.root_workflow_id, handle.id),
            events.stream_workflow(
                client=polos, workflow_id="storyteller", workflow_run_id=handle.id
            ),
            events.stream_workflow(polos, "storyteller", handle.id, 3, None),
        ]
        for form in forms:
            print("events:", [event.event_type async for event in form])
        try:
            await polos.get_execution(handle)
        except Exception as error:  # noqa: BLE001 - as programs do
            print(error)


asyncio.run(main())
