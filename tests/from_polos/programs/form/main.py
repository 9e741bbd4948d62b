"""A workflow that shows a form, and the person who fills it in; read to its end as a stream."""

import asyncio

from dotenv import load_dotenv
from pydantic import BaseModel

from polos import Polos, StepExecutionError, WorkflowContext, events, workflow

load_dotenv()


class Holiday(BaseModel):
    who: str
    days: int


FORM = {
    "_form": {
        "title": "A holiday",
        "description": "May they go?",
        "fields": [
            {"name": "granted", "type": "boolean", "label": "Granted", "required": True},
            {"name": "note", "type": "textarea", "label": "Note", "default": ""},
            {
                "name": "cover",
                "type": "select",
                "label": "Cover",
                "options": [{"label": "Ann", "value": "ann"}, {"label": "Bob", "value": "bob"}],
            },
        ],
        "context": {"team": "post"},
    },
    "_source": "holiday",
}


@workflow(id="holiday")
async def holiday(ctx: WorkflowContext, payload: Holiday) -> dict:
    shown = {**FORM, "who": payload.who, "days": payload.days}
    answer = await ctx.step.suspend("grant", shown, timeout=3600)
    await ctx.step.publish_workflow_event("noted", {"who": payload.who}, event_type="noted")
    return {"who": payload.who, **answer["data"]}


@workflow(id="nobody")
async def nobody(ctx: WorkflowContext) -> str:
    try:
        await ctx.step.suspend("grant", FORM, timeout=0.1)
    except StepExecutionError:
        return "nobody answered"
    return "answered"


async def person(polos, asked):
    """Fill in the form, as a page does."""
    event = await asked
    fields = {one["name"]: one for one in event.data["_form"]["fields"]}
    data = {"granted": True, "note": "Have fun.", "cover": fields["cover"]["options"][1]["value"]}
    await polos.resume("holiday", event.data["_metadata"]["execution_id"], "grant", data)


async def main():
    async with Polos(log_file="polos.log") as polos:
        handle = await polos.invoke("holiday", {"who": "eve", "days": 3})
        asked = asyncio.get_running_loop().create_future()
        filling = asyncio.create_task(person(polos, asked))
        async for event in events.stream_workflow(polos, handle.workflow_id, handle.id):
            print(event.event_type)
            if event.event_type.startswith("suspend_"):
                print(event.data["_form"]["title"], event.data["who"], event.data["days"])
                asked.set_result(event)
        await filling
        print((await polos.get_execution(handle.id))["result"])
        print(await nobody.run(polos))


asyncio.run(main())
