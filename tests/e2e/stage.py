"""An app for the tests of the whole service: one agent over HTTP, with tools that leave traces.

Each tool appends a line to the file in NOTES, `attempt idempotency_key`. Those that wait do so
in their first attempt only, until the process is killed.
"""

from __future__ import annotations

from pathlib import Path

from polos import Agent
from tests.support.mock_provider import MockProvider
from tests.support.process import ServiceProcess, until

APP = """
import asyncio
import os
import threading
from pathlib import Path

from polos import Agent, WorkflowContext, tool


def note(ctx: WorkflowContext) -> None:
    with Path(os.environ["NOTES"]).open("a") as notes:
        notes.write(f"{ctx.attempt} {ctx.idempotency_key}\\n")


@tool(description="Note something")
async def jot(ctx: WorkflowContext, text: str) -> str:
    note(ctx)
    return text.upper()


@tool(description="Note something, and at first never return")
async def wait(ctx: WorkflowContext) -> str:
    note(ctx)
    if ctx.attempt == 1:
        await asyncio.Event().wait()
    return "waited"


@tool(description="The same, in a thread")
def block(ctx: WorkflowContext) -> str:
    note(ctx)
    if ctx.attempt == 1:
        threading.Event().wait()
    return "blocked"


@tool(description="Note something, and never give in")
async def resist(ctx: WorkflowContext) -> str:
    note(ctx)
    while True:
        try:
            await asyncio.Event().wait()
        except asyncio.CancelledError:
            note(ctx)


assistant = Agent(
    id="assistant",
    provider="openai",
    model=os.environ.get("MODEL_NAME", "mock"),
    provider_base_url=os.environ["MODEL_URL"] or None,
    provider_llm_api=os.environ.get("MODEL_API"),
    system_prompt="You are precise.",
    tools=[jot, wait, block, resist],
)
"""

ASSISTANT = Agent(id="assistant", provider="openai", model="mock")
"""The agent as a caller defines it: its id is what counts."""


CLAIM_TIMEOUT = "3"
"""Seconds for which a process on NATS waits for the one that was killed."""

WITHOUT_AGENT = """
from polos import Agent

other = Agent(id="other", provider="openai", model="mock")
"""
"""An app that lacks the agent."""


def service(
    folder: Path, provider: MockProvider, store: str | None = None, **env: str
) -> ServiceProcess:
    """Return the app's service, its notes in `folder`, its model at `provider`.

    Its store is the one at this address, or else a file in `folder`.
    """
    app = folder / "app.py"
    app.write_text(APP)
    variables = {
        "MODEL_URL": provider.url,
        "NOTES": str(folder / "notes"),
        "POLOS_CLAIM_TIMEOUT": CLAIM_TIMEOUT,
        **env,
    }
    return ServiceProcess(app, store or folder / "runs.db", **variables)


def lose_agent(folder: Path) -> None:
    """Let the processes that start from now on lack the agent."""
    (folder / "app.py").write_text(WITHOUT_AGENT)


def notes(folder: Path) -> list[str]:
    """Return the lines that the tools have noted."""
    file = folder / "notes"
    return file.read_text().splitlines() if file.exists() else []


async def noted(folder: Path, number: int = 1) -> None:
    """Wait until the tools have noted so many lines."""
    await until(lambda: len(notes(folder)) >= number, f"{number} notes")
