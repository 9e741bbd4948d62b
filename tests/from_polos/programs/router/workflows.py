"""A desk that routes requests to agents, in a workflow, in a tool and as tools."""

from pydantic import BaseModel

from polos import Agent, WorkflowContext, max_steps, tool, workflow
from polos.types import AgentResult


class Request(BaseModel):
    text: str


class Verdict(BaseModel):
    accepted: bool
    words: int


def agent(name: str, prompt: str, **options) -> Agent:
    return Agent(
        id=name,
        provider="openai",
        model="gpt-4o-mini",
        system_prompt=prompt,
        stop_conditions=[max_steps(count=5)],
        **options,
    )


classifier = agent("classifier", "Say which desk it is for: sales or support.")
sales = agent("sales-desk", "You sell.", stream_to_workflow=True)
support = agent("support-desk", "You help.", stream_to_workflow=True)
tone = agent("tone-reviewer", "You judge the tone.")
facts = agent("fact-reviewer", "You judge the facts.")


@workflow(id="judge")
async def judge(ctx: WorkflowContext, payload: Request) -> Verdict:
    words = await ctx.step.run("count", len, payload.text.split())
    return Verdict(accepted=words > 2, words=words)


@workflow(id="route")
async def route(ctx: WorkflowContext, payload: Request) -> dict:
    kind = await ctx.step.agent_invoke_and_wait("classify", classifier.with_input(payload.text))
    desk = sales if kind.result == "sales" else support
    draft = await ctx.step.agent_invoke_and_wait(
        "answer", desk.with_input(f"Answer this: {payload.text}", streaming=True)
    )
    reviews = await ctx.step.batch_agent_invoke_and_wait(
        "reviews", [one.with_input(draft.result) for one in (tone, facts)]
    )
    verdict = await ctx.step.invoke_and_wait("judge", judge, Request(text=draft.result))
    return {
        "desk": desk.id,
        "answer": draft.result,
        "reviews": [AgentResult.model_validate(one.result).result for one in reviews],
        "words": verdict.words,
    }


@tool(description="Answers a customer's request.")
async def answer_customer(ctx: WorkflowContext, payload: Request) -> str:
    draft = await ctx.step.agent_invoke_and_wait("draft", support.with_input(payload.text))
    verdict = await ctx.step.invoke_and_wait("judge", judge, {"text": draft.result})
    return f"{draft.result} ({verdict.words} words)"


coordinator = agent("coordinator", "You coordinate.", tools=[answer_customer, sales])
