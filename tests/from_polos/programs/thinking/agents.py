"""An agent that thinks in steps, as programs for the original SDK define it."""

from pydantic import BaseModel, Field

from polos import Agent


class ThoughtStep(BaseModel):
    number: int
    thought: str = Field(description="What is considered in this step")
    conclusion: str


class Reasoning(BaseModel):
    problem: str
    steps: list[ThoughtStep] = Field(description="The steps in order")
    answer: str
    confidence: float = Field(ge=0.0, le=1.0)


thinking_agent = Agent(
    id="thinking-agent",
    provider="openai",
    model="gpt-4o",
    system_prompt="Think step by step before you answer.",
    output_schema=Reasoning,
)
