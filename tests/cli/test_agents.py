"""`polos agents` and `polos health`: what is served, and whether."""

from __future__ import annotations

import signal
from pathlib import Path

from tests.cli.commands import Cli, Ended, write_app
from tests.support.process import ServiceProcess


async def test_list_has_a_line_with_tabs_for_each_agent(cli: Cli) -> None:
    lines = (await cli("agents", "list")).out.splitlines()
    assert [line.split("\t")[0] for line in lines] == [
        *("fails", "gated", "retries", "short", "slow", "steers", "sums", "waits"),
    ]
    assert lines[6] == "sums\tscripted\tscript\tadd, broken\tAdds numbers"


async def test_show_tells_the_tools_and_their_parameters(cli: Cli) -> None:
    (shown,) = (await cli("agents", "show", "sums", "--json")).objects
    assert shown["stop_conditions"] == ["max_steps"]
    assert [tool["name"] for tool in shown["tools"]] == ["add", "broken"]
    assert shown["tools"][0]["parameters"]["required"] == ["a", "b"]
    text = (await cli("agents", "show", "sums")).out
    assert "tool add: Add two numbers\n  a (integer)\n  b (integer)\n" in text


async def test_json_lists_an_agent_a_line(cli: Cli) -> None:
    agents = (await cli("agents", "list", "--json")).objects
    assert [agent["agent_id"] for agent in agents if agent["tools"]] == ["gated", "sums"]


async def test_an_unknown_agent_is_refused_with_the_known_ones(cli: Cli) -> None:
    ended = await cli("agents", "show", "nobody")
    assert (ended.code, ended.out) == (1, "")
    assert ended.err.startswith(
        "Error: There is no agent or workflow 'nobody'. Loaded: fails, gated, "
    )


async def test_health_of_a_service_that_serves(cli: Cli) -> None:
    assert await cli("health") == Ended(0, "SERVING\n", "")


async def test_health_of_a_service_that_stops(tmp_path: Path) -> None:
    store = tmp_path / "runs.db"
    # It waits for the run until it is killed, however long the commands take to start.
    async with ServiceProcess(write_app(tmp_path), store, POLOS_GRACE="86400") as service:
        cli = Cli(service.address)
        run = await cli.start("run", "waits", "Go.", "--json")
        assert run.stdout is not None
        await run.stdout.readline()
        service.send(signal.SIGTERM)
        await service.said("Stopping")
        assert await cli("health") == Ended(1, "NOT_SERVING\n", "")
        run.kill()
        await run.communicate()
