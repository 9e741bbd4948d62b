"""What the commands make of a run with children, and of one child."""

from __future__ import annotations

import re
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from tests.cli.commands import Cli, Ended
from tests.support.family import DEFINITIONS, started
from tests.support.service import Served, serving


@pytest.fixture
async def served(tmp_path: Path) -> AsyncIterator[Served]:
    async with serving(tmp_path, *DEFINITIONS) as one:
        yield one


async def test_the_commands_take_a_child_and_show_the_tree(served: Served) -> None:
    cli = Cli(served.client.address)
    run_id, (child, other) = await started(served)
    shown = (await cli("runs", "show", run_id)).out
    inner = r"inner: writer completed · \d\S* s · \d+ tokens in, 3 out · "
    lines = (
        rf"top running · \d\S* s · \d+ tokens in, 6 out · {run_id}",
        rf"├ c0: asks suspended · waits for ok \(suspend \d+\) · .* · {child}",
        rf"│ └ {inner}{run_id}:\d+",
        rf"└ c1: asks suspended · waits for ok \(suspend \d+\) · .* · {other}",
        rf"  └ {inner}{run_id}:\d+",
    )
    assert re.search("\n".join(lines), shown), shown
    (record,) = (await cli("runs", "show", child, "--json")).objects
    assert (record["run_id"], record["parent_run_id"], record["step_key"]) == (child, run_id, "c0")
    assert [one["agent_id"] for one in record["tree"]] == ["asks", "writer"]
    assert record["tree"][0]["open_waits"][0]["step_key"] == "ok"
    assert await cli("runs", "cancel", child) == Ended(0, f"{child} cancelled\n", "")
    await cli("runs", "resume", other, "ok", "--data", '"yes"')
    tail = await cli("runs", "tail", other)
    assert (tail.code, tail.out) == (0, '{"said":"One two three.","answer":"yes"}\n')
    tail = await cli("runs", "tail", child, "--json")
    assert tail.code == 4, "the code of a run that was cancelled"
    assert tail.objects[-1]["event_type"] == "run_cancelled"
    for command in ("export", "delete"):
        refused = await cli("runs", command, child)
        assert refused.code == 1
        assert "is a child" in refused.err
