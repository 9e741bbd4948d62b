"""The approval of a tool call by the person who watches or chats, and from elsewhere."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from polos import Agent, scripted, tool
from tests.cli.commands import Cli
from tests.support.service import serving


@tool(description="Refund a customer", approval="always")
async def refund(customer: str, amount: int) -> str:
    return f"refunded {amount} to {customer}"


support = Agent(
    id="support",
    provider="scripted",
    model=scripted.script(scripted.call("refund", customer="Ann", amount=20), "As you say."),
    tools=[refund],
)


@pytest.fixture
async def cli(tmp_path: Path) -> AsyncIterator[Cli]:
    """Give the command, and a service whose agent needs approval."""
    async with serving(tmp_path, support) as served:
        yield Cli(served.client.address)


async def test_a_chat_asks_for_the_approval_of_its_agent(cli: Cli) -> None:
    async with cli.terminal("chat", "support") as terminal:
        await terminal.shows("> ")
        terminal.type("Refund Ann\n")
        await terminal.shows("[y]es or [n]o? ")
        assert "Approve refund?\n  Refund a customer\n  tool: refund\n" in terminal.text
        terminal.type("n\n")
        await terminal.shows("Feedback to the model (Enter: none): ")
        terminal.type("too much\n")
        await terminal.shows("· rejected by anonymous: too much\n")
        await terminal.shows("done ·")
        terminal.type("/quit\n")
        assert await terminal.ended() == 0
    assert "✗ refund · " in terminal.text


async def test_a_run_in_a_pipe_waits_for_an_approval_from_elsewhere(cli: Cli) -> None:
    run = await cli.start("run", "support", "Refund Ann")
    assert run.stderr is not None
    asked = (await run.stderr.readline()).decode()
    assert (
        asked == 'refund/approve · waits for approval: refund({"customer": "Ann", "amount": 20})\n'
    )
    (run_id,) = await cli.run_ids()
    assert (await run.stderr.readline()).decode() == (
        f"Answer with: polos runs approve {run_id} refund/approve (or reject)\n"
    )
    assert (await cli("runs", "approve", run_id)).out == f"{run_id} refund/approve approved\n"
    out, _ = await run.communicate()
    assert (run.returncode, out) == (0, b"As you say.\n")
    (shown,) = (await cli("runs", "show", run_id, "--json")).objects
    assert shown["tool_results"][0]["result"] == "refunded 20 to Ann"
    assert shown["waits"][0]["answer"] == {"approved": True}
