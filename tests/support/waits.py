"""Workflows that wait, and what tests do with their waits."""

from __future__ import annotations

import json
from typing import Any

import pytest

from polos.v1 import run_service_pb2 as pb
from polos.v1.event_pb2 import Event
from polos.v1.run_pb2 import Run, RunState, Wait
from polos_client.define.context import WorkflowContext
from polos_client.define.workflow import workflow
from polos_service import server
from polos_service.runs.executor import Executor
from tests.support.access import Header
from tests.support.service import Served, until

NOBODY: Header = ()
"""The metadata of a caller of a service that asks for no credentials."""


@workflow(id="asking")
async def asking(ctx: WorkflowContext, payload: dict[str, Any]) -> Any:
    """Wait for answers, one after the other; each of the payload's waits is `key: timeout`."""
    answers = {}
    for key, timeout in payload.items():
        try:
            answers[key] = (await ctx.step.suspend(key, {"key": key}, timeout=timeout))["data"]
        except Exception as error:  # noqa: BLE001 - whatever ended it
            answers[key] = str(error)
    return answers


@workflow(id="napping")
async def napping(ctx: WorkflowContext) -> None:
    """Wait for an hour."""
    await ctx.step.wait_for("nap", hours=1)


async def ask(served: Served, who: Header = NOBODY, **waits: float | None) -> str:
    """Start a run that waits for these answers, with these timeouts; return its id."""
    create = pb.CreateRunRequest(agent_id="asking", payload_json=json.dumps(waits))
    return (await served.runs.CreateRun(create, metadata=who)).run.run_id


async def begun(served: Served, run_id: str, key: str, who: Header = NOBODY) -> Event:
    """Return the event with which a wait has begun, as soon as a reader sees it."""
    request = pb.StreamWorkflowRequest(workflow_run_id=run_id)
    stream = served.runs.StreamWorkflow(request, metadata=who)
    try:
        async for response in stream:
            for event in response.events:
                if event.HasField("suspended") and event.suspended.step_key == key:
                    return event
    finally:
        stream.cancel()
    raise AssertionError(f"run {run_id} ended without the wait {key}")


async def answer(
    served: Served, run_id: str, key: str = "", who: Header = NOBODY, **fields: Any
) -> pb.ResumeRunResponse:
    """Answer a wait."""
    values: dict[str, Any] = {"run_id": run_id, "step_key": key, "data_json": '"yes"', **fields}
    return await served.runs.ResumeRun(pb.ResumeRunRequest(**values), metadata=who)


async def run_of(served: Served, run_id: str, who: Header = NOBODY) -> Run:
    """Return a run with its open waits."""
    return (await served.runs.GetRun(pb.GetRunRequest(run_id=run_id), metadata=who)).run


async def listed(served: Served, who: Header = NOBODY, **fields: Any) -> list[Wait]:
    """Return all open waits of a project, page by page."""
    found: list[Wait] = []
    token = ""
    while True:
        request = pb.ListWaitsRequest(**fields, page_token=token)
        page = await served.runs.ListWaits(request, metadata=who)
        found += page.waits
        token = page.next_page_token
        if not token:
            return found


async def opened(served: Served, count: int, who: Header = NOBODY) -> list[Wait]:
    """Return the open waits of a project, as soon as there are so many."""
    found: list[Wait] = []

    async def there() -> bool:
        found[:] = await listed(served, who, page_size=1000)
        return len(found) == count

    await until(there, f"{count} waits are open")
    return found


def park_soon(monkeypatch: pytest.MonkeyPatch, threshold: float = 0.02) -> None:
    """Let services that start from now on suspend runs after so many seconds."""

    def make(*values: Any, **options: Any) -> Executor:
        return Executor(*values, **{**options, "threshold": threshold})

    monkeypatch.setattr(server, "Executor", make)


async def parked(served: Served, run_id: str, who: Header = NOBODY) -> None:
    """Wait until a run is suspended."""

    async def suspended() -> bool:
        return (await run_of(served, run_id, who)).state == RunState.RUN_STATE_SUSPENDED

    await until(suspended, "the run is suspended")
