"""A workflow that runs others and agents, as programs for the original SDK define them."""

from pydantic import BaseModel

from polos import Agent, WorkflowContext, max_steps, workflow
from polos.types import AgentResult
from polos.types.types import BatchWorkflowInput


class Review(BaseModel):
    reviewer_id: str
    score: int


class Task(BaseModel):
    reviewer_id: str
    text: str


@workflow(id="review")
async def review(ctx: WorkflowContext, payload: Task) -> Review:
    if payload.reviewer_id == "absent":
        raise ValueError("the reviewer is absent")
    score = await ctx.step.run("score", len, payload.text)
    return Review(reviewer_id=payload.reviewer_id, score=score)


writer = Agent(
    id="writer",
    provider="openai",
    model="gpt-4o-mini",
    system_prompt="You write.",
    stop_conditions=[max_steps(count=3)],
    stream_to_workflow=True,
)


@workflow(id="panel")
async def panel(ctx: WorkflowContext, payload: dict) -> dict:
    draft = await ctx.step.agent_invoke_and_wait("draft", writer.with_input(payload["topic"]))
    first = await ctx.step.invoke_and_wait(
        "first", review, Task(reviewer_id="first", text=draft.result)
    )
    others = await ctx.step.batch_invoke_and_wait(
        "others",
        [
            BatchWorkflowInput(id="review", payload=Task(reviewer_id=name, text="ok"))
            for name in ("ann", "absent")
        ],
    )
    titles = await ctx.step.batch_agent_invoke_and_wait(
        "titles", [writer.with_input("A title"), writer.with_input("A title")]
    )
    return {
        "draft": draft.result,
        "first": first.score,
        "others": [one.result.reviewer_id if one.success else one.error for one in others],
        "titles": [AgentResult.model_validate(one.result).result for one in titles],
        "root": ctx.root_execution_id == ctx.execution_id,
    }
