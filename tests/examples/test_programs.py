"""The longer examples: each with a service of its own, which is killed where that is the point."""

from __future__ import annotations

import asyncio
import re
import sqlite3
from collections import Counter
from contextlib import closing
from pathlib import Path

import pytest

from examples.nightly.start import show, start
from examples.support.app import ORDERS
from polos import Polos, PolosClient, events
from tests.support.process import PATIENCE, POLOS, ServiceProcess, environment
from tests.support.program import ROOT, line_of, printed, program


async def command(address: str, *arguments: str) -> str:
    """Run the command `polos` to its good end; return what it printed."""
    process = await asyncio.create_subprocess_exec(
        POLOS,
        *arguments,
        env=environment(POLOS_ADDRESS=address),
        stdin=asyncio.subprocess.DEVNULL,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.STDOUT,
    )
    output, _ = await asyncio.wait_for(process.communicate(), PATIENCE)
    assert process.returncode == 0, output.decode()
    return output.decode()


async def rest(process: asyncio.subprocess.Process) -> str:
    """Return what a program still prints until its good end."""
    output, _ = await asyncio.wait_for(process.communicate(), PATIENCE)
    assert process.returncode == 0, output.decode()
    return output.decode()


async def test_refund_waits_through_a_kill_and_is_paid_once_as_changed(tmp_path: Path) -> None:
    shop = tmp_path / "shop.db"
    app, store = "examples.support.app", tmp_path / "runs.db"
    async with (
        ServiceProcess(app, store, cwd=ROOT, SHOP_DB=str(shop)) as service,
        program("examples.support.ask", address=service.address) as customer,
    ):
        run_id = (await line_of(customer, "[polos runs approve ")).strip("[]").split()[-1]
        await service.kill()
        await service.start()
        changed = ("--arguments", '{"cents": 1500}')
        await command(service.address, "runs", "approve", run_id, *changed, "--yes")
        found = {"order": "1207", **ORDERS["1207"]}
        assert (await rest(customer)).splitlines()[-2:] == [
            f"find_order completed: {found}",
            "refund completed: 15.00 EUR are paid back for order 1207: The lamp arrived broken.",
        ]
    with closing(sqlite3.connect(shop)) as opened:
        paid = opened.execute("select key, number, cents from refunds").fetchall()
    assert paid == [(f"{run_id}/refund", "1207", 1500)]


async def test_research_merges_the_sources_of_agents_that_it_labels(tmp_path: Path) -> None:
    async with ServiceProcess("examples.research.app", tmp_path / "runs.db", cwd=ROOT) as service:
        text = await printed("examples.research.ask", address=service.address)
    report = "Wood fires [1] gave way to towers of stone [2], lenses [3] and valves [4]."
    watched, _, told = text.partition("\n\n")
    assert sorted(watched.splitlines()[1:-1]) == sorted(
        [
            ' history | search {"words": "Alexandria tower"}',
            '  optics | search {"words": "lens light"}',
            ' economy | search {"words": "gas lamp"}',
            " history | found Pharos, Eddystone",
            "  optics | found Fresnel",
            " economy | found Dalén, Fresnel",
        ]
    )
    assert watched.splitlines()[-1] == f"  editor | {report}"
    assert told.splitlines() == [
        report, "[1] Pharos", "[2] Eddystone", "[3] Fresnel", "[4] Dalén"
    ]  # fmt: skip


async def test_batch_goes_on_after_a_kill_and_pays_for_no_document_twice(tmp_path: Path) -> None:
    async with (
        ServiceProcess("examples.nightly.app", tmp_path / "runs.db", cwd=ROOT) as service,
        program("examples.nightly.start", "2026-05-02", address=service.address) as watching,
    ):
        run_id = (await line_of(watching, "run ")).split()[-1]
        await line_of(watching, "4 of 12")
        await service.kill()
        await service.start()
        lines = (await rest(watching)).splitlines()
        async with PolosClient(service.address) as client:
            assert (await start(client, "2026-05-02", 10_000)).id == run_id
            log = [one async for one in events.stream_workflow(client, workflow_run_id=run_id)]
    assert lines[:3] == ["8 of 12", "12 of 12", "invoice-1: 100.00 to Lamp & Oil, 2026-05-02"]
    assert [line.split(":")[0] for line in lines[8:-1]] == [
        *("complaint-2", "complaint-6", "complaint-10"),
        *("scan-4 FAILED", "scan-8 FAILED", "scan-12 FAILED"),
    ]
    assert lines[-1] == "750 tokens, no known price"  # 12 documents, and 3 that were asked again
    calls = Counter(
        one.data["_metadata"]["execution_id"]
        for one in log
        if one.event_type == "step_finish" and one.data["step_key"].startswith("llm:")
    )
    assert sum(calls.values()) == 15


async def test_batch_stops_paying_when_its_budget_is_spent(
    capsys: pytest.CaptureFixture[str],
) -> None:
    async with Polos() as polos:
        handle = await start(polos, "2026-05-03", tokens=240)
        async for _ in events.stream_workflow(polos, workflow_run_id=handle.id):
            pass
        show(await handle.get(polos))
    text = capsys.readouterr().out
    failed = re.findall(r"^(\S+) FAILED: .*its budget is 240", text, re.MULTILINE)
    assert len(failed) == 8, text
    assert text.splitlines()[-1] == "250 tokens, no known price"


@pytest.mark.parametrize("name", ["support", "research", "nightly"])
def test_programs_are_listed(name: str) -> None:
    assert f"]({name}/README.md)" in (ROOT / "examples" / "README.md").read_text()
