"""Start tonight's batch, or watch it if it runs: `python -m examples.nightly.start -h`."""

from __future__ import annotations

import argparse
import asyncio
from datetime import UTC, datetime
from typing import Any

from examples.nightly.app import Document, Kind, Night, Report, nightly
from polos import Budget, ExecutionHandle, PolosClient, events

TEXTS: dict[Kind, str] = {
    "invoice": "Lamp & Oil, 2 May 2026: two lamps at 45.50, one can of oil at 9.00. Total 100.00.",
    "complaint": "My lamp arrived broken, and I need it tonight!",
    "scan": "L?mp &nbsp; 0.1 ~~ ### tot",
}


def documents() -> list[Document]:
    """Return the documents of the day; a real program reads them from a folder or a database."""
    kinds: tuple[Kind, ...] = ("invoice", "complaint", "invoice", "scan") * 3
    return [Document(id=f"{k}-{n}", kind=k, text=TEXTS[k]) for n, k in enumerate(kinds, 1)]


async def start(client: PolosClient, day: str, tokens: int) -> ExecutionHandle:
    """Start the batch of a day; if it has been started, return the run that there is."""
    return await nightly.invoke(
        client,
        Night(documents=documents()),
        budget=Budget(tokens=tokens),
        request_id=f"nightly/{day}",
    )


async def main() -> None:
    """Start, show the progress, and print what was read and what it cost."""
    command = argparse.ArgumentParser(description=__doc__)
    command.add_argument("day", nargs="?", default=datetime.now(UTC).date().isoformat())
    command.add_argument("--tokens", type=int, default=10_000, help="the budget")
    options = command.parse_args()
    client = PolosClient(reconnect_timeout=600)
    handle = await start(client, options.day, options.tokens)
    print(f"run {handle.id}", flush=True)
    async for event in events.stream_workflow(client, workflow_run_id=handle.id):
        if event.event_type == "progress":
            print(f"{event.data['done']} of {event.data['of']}", flush=True)
    show(await handle.get(client))


def show(ended: dict[str, Any]) -> None:
    """Print the report of a run that has ended, and what it spent."""
    report = ended["result"]
    if not isinstance(report, Report):  # the run failed or was cancelled
        raise SystemExit(f"The batch is {ended['status']}: {ended['error']}")
    for name, invoice in report.invoices.items():
        print(f"{name}: {invoice.total} to {invoice.seller}, {invoice.day}")
    for name, complaint in report.complaints.items():
        print(f"{name}: {complaint.about}{', urgent' if complaint.urgent else ''}")
    for name, why in report.failed.items():
        print(f"{name} FAILED: {why}")
    spent, cost = ended["spent"], ended["spent_cost"]
    print(f"{spent.total_tokens} tokens, {'no known price' if cost is None else f'${cost:.4f}'}")


if __name__ == "__main__":
    asyncio.run(main())
