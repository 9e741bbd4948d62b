"""Runs at a provider that does its worst: each ends, as itself, and nothing leaks."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from polos import Agent, Deadlines, tool
from tests.failures.scene import KEY, streaming
from tests.support.hostile_behaviours import BEHAVIOURS, KEY_FORMS
from tests.support.hostile_provider import Hostile, hostile_provider
from tests.support.reader import kinds
from tests.support.service import stored

ENDLESS = ("empty-chunks", "empty-fragments")
"""Bounded by 256 MiB: tests/unit/models/test_hostile.py lowers the bound."""

CALLS = ("long-id", "key-id")
"""These call a tool at each model call."""

ALONE = sorted(
    BEHAVIOURS.keys() - {*ENDLESS, *CALLS, "error-drip"} - {f"key-{form}" for form in KEY_FORMS}
)
"""What else is tried with a whole run."""

SILENT = ("half-open", "informational")
"""What only the bound on silence ends."""

BRIEF = Deadlines(first_token=0.2, token_gap=0.2)
"""The bound on silence for those."""

FINE = {"cookies", "drip", "fine", "long-name", "surrogates", "usage"}
"""What answers in the end."""


@pytest.fixture(scope="module")
def hostile() -> Iterator[Hostile]:
    with hostile_provider() as server:
        yield server


@pytest.mark.parametrize("name", ALONE)
async def test_a_run_ends_once_whatever_a_provider_sends(
    tmp_path: Path, hostile: Hostile, pauses: list[float], name: str
) -> None:
    url = hostile.url(name, f"somebody:{KEY}")
    deadlines = BRIEF if name in SILENT else None
    async with streaming(tmp_path, url, deadlines=deadlines) as (served, stream, log):
        assert kinds(log)[-1] == ("agent_finish" if name in FINE else "error")
        assert "tool_call" not in kinds(log) or name == "long-name"  # of a tool that is not there
        assert log[-1].data.get("reason") != "internal"
        frames = stored(served.path, stream.id)
    assert b"somebody" not in frames
    assert KEY.encode() not in frames


@pytest.mark.parametrize("name", CALLS)
async def test_a_tool_called_under_an_id_that_is_replaced_is_recorded(
    tmp_path: Path, hostile: Hostile, name: str
) -> None:
    @tool
    def add(a: int, b: int) -> str:
        return "x" * 300_000

    agent = Agent("helper", "openai", "mock", tools=[add], stop_conditions=[])
    async with streaming(tmp_path, hostile.url(name), agent) as (_, _, log):
        finished = [event.data for event in log if event.event_type == "step_finish"]
        tools = [one for one in finished if one["step_type"] == "tool"]
        asked = [event.data for event in log if event.event_type == "tool_call"]
    assert kinds(log)[-1] == "agent_finish"
    assert len(tools) == len(asked) == 10
    assert all(len(one["data"]["result"]) == 300_000 for one in tools)
    assert all(len(str(one["tool_call"])) < 500 for one in asked)
