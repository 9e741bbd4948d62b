"""Research by parallel agents, whose sources are merged: `polos serve examples.research.app`."""

from __future__ import annotations

import json

from pydantic import BaseModel

from examples.agents import model
from polos import Agent, BatchStepResult, WorkflowContext, scripted, tool, workflow

LIBRARY = {
    "Pharos": "The lighthouse of Alexandria was about 100 m high and burned wood.",
    "Eddystone": "Smeaton's tower of 1759 has stones that lock into each other.",
    "Fresnel": "Fresnel's lens of 1823 sends the light of one lamp over 30 km.",
    "Dalén": "Dalén's valve of 1907 puts the lamp out by day and saves nine tenths of the gas.",
}


class Claim(BaseModel):
    """What one source says."""

    text: str
    source: str


class Findings(BaseModel):
    """What a researcher has found."""

    claims: list[Claim]


class Question(BaseModel):
    """What is to be found out."""

    text: str


class Report(BaseModel):
    """The answer.

    Attributes:
        text: it, with the numbers of its sources, from 1.
        sources: each source once, in that order.
        missing: researchers that failed.

    """

    text: str
    sources: list[str]
    missing: list[str]


@tool
async def search(words: str) -> dict[str, str]:
    """Search the library; returns texts by the names of their sources."""
    wanted = words.lower().split()
    hits = {k: v for k, v in LIBRARY.items() if any(one in f"{k} {v}".lower() for one in wanted)}
    return hits or LIBRARY


def researcher(name: str, words: str, claims: dict[str, str]) -> Agent:
    """Return an agent that researches one side of a question."""
    found = Findings(claims=[Claim(text=text, source=key) for key, text in claims.items()])
    return Agent(
        name,
        *model(
            scripted.turn(scripted.call("search", words=words)),
            found.model_dump_json(),
        ),
        system_prompt=f"Research the {name} only. Search first. Claim only what a source says.",
        tools=[search],
        output_schema=Findings,
    )


history = researcher(
    "history", "Alexandria tower", {"Pharos": "They burned wood.", "Eddystone": "Stones lock."}
)
optics = researcher("optics", "lens light", {"Fresnel": "A lens carries the light 30 km."})
economy = researcher(
    "economy", "gas lamp", {"Dalén": "A valve saves gas.", "Fresnel": "One lamp is enough."}
)
RESEARCHERS = (history, optics, economy)

editor = Agent(
    "editor",
    *model("Wood fires [1] gave way to towers of stone [2], lenses [3] and valves [4]."),
    system_prompt="Answer the question in two sentences from the claims. Keep the numbers as [1].",
)


@workflow(id="research")
async def research(ctx: WorkflowContext, question: Question) -> Report:
    """Let all researchers work at once, and an editor write from what they have found."""
    ended = await ctx.step.batch_agent_invoke_and_wait(
        "researchers", [one.with_input(question.text, streaming=True) for one in RESEARCHERS]
    )
    claims = merged(ended)
    sources = list(dict.fromkeys(one.source for one in claims))
    material = [{"claim": one.text, "source": sources.index(one.source) + 1} for one in claims]
    written = await ctx.step.agent_invoke_and_wait(
        "editor",
        editor.with_input(
            json.dumps({"question": question.text, "claims": material}), streaming=True
        ),
    )
    missing = [one.workflow_id for one in ended if not one.success]
    return Report(text=written.result, sources=sources, missing=missing)


def merged(ended: list[BatchStepResult]) -> list[Claim]:
    """Return all claims whose source exists: models make some up."""
    return [
        claim
        for one in ended
        if one.success
        for claim in one.result.result.claims
        if claim.source in LIBRARY
    ]
