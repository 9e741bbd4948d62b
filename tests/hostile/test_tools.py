"""Tools that attack the service: their own run ends, and everybody else is served."""

from __future__ import annotations

import signal
from pathlib import Path

import pytest

from polos import Agent, Deadlines, PolosClient
from tests.support import hostile_tools
from tests.support.process import ServiceProcess
from tests.support.reader import Events, assert_whole

APP = Path(hostile_tools.__file__)

TOOL_LIMIT = 1.0
"""Seconds that a tool may take: those that would never end are ended by it."""


@pytest.mark.parametrize("tool", [tool.id for tool in hostile_tools.TOOLS])
async def test_a_tool_harms_nothing_but_its_own_run(tmp_path: Path, tool: str) -> None:
    hostile = Agent(id=tool, provider="scripted", model="-")
    # A run that kept its slot would leave none for the bystander.
    async with (
        ServiceProcess(APP, tmp_path / "runs.db", POLOS_MAX_RUNS="1", POLOS_GRACE="1") as service,
        PolosClient(service.address) as client,
    ):
        stream = await hostile.stream(
            client, "Go.", deadlines=Deadlines(tool_call=TOOL_LIMIT, run=1000)
        )
        async with Events(stream.events) as events:
            log = await events.all()
        assert_whole(log)
        assert log[-1].event_type == "agent_finish"
        result = await hostile_tools.bystander.run(client, "And I?")
        assert result.result == "Served."
        service.send(signal.SIGTERM)
        assert await service.ended() == 0, service.output
