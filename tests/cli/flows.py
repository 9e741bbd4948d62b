"""Workflows and an approval, served to the commands under test."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from google.protobuf.message import Message
from pydantic import BaseModel

from polos.v1.event_pb2 import WaitKind, WorkflowFinish, WorkflowStart
from polos.v1.run_service_pb2 import CreateRunRequest, ResumeRunRequest
from polos_client.define.context import WorkflowContext
from polos_client.define.workflow import workflow
from polos_service.runs.context import RunContext
from polos_service.runs.runnable import RunRequest
from tests.cli.commands import Cli
from tests.support.service import Served, serving
from tests.support.service import until as until_

FIELDS = [
    {"key": "name", "type": "text", "label": "Your name", "required": True},
    {"name": "count", "type": "number", "default": 3},
    {"key": "ok", "type": "boolean", "label": "All right?", "required": True},
    {
        "key": "colour",
        "type": "select",
        "options": [{"label": "Red", "value": "r"}, {"label": "Blue", "value": "b"}],
    },
    {"key": "note", "type": "textarea", "description": "What else?"},
]
"""A field of each type."""


class Order(BaseModel):
    item: str
    count: int = 1


@workflow
async def greet(ctx: WorkflowContext) -> Any:
    """Return a greeting, without a payload."""
    return await ctx.step.run("say", lambda: "Hello")


@workflow
async def order(ctx: WorkflowContext, payload: Order) -> dict[str, Any]:
    """Have steps of all kinds, and wait for an answer in the middle."""
    tries: list[int] = []

    def charge() -> dict[str, int]:
        tries.append(1)
        if len(tries) == 1:
            raise ValueError("the bank is closed")
        return {"charged": payload.count * 3}

    charged = await ctx.step.run("charge", charge, base_delay=0.01)
    await ctx.step.publish_workflow_event("tell", charged, "progress")
    answer = await ctx.step.suspend(
        "ship", {"total": 6, "_form": {"title": f"Ship {payload.item}?"}}
    )
    await ctx.step.wait_for("nap", seconds=0.01)
    return {"answer": answer["data"]}


@workflow
async def form(ctx: WorkflowContext) -> Any:
    """Wait for a form to be filled in."""
    shown = {
        "_form": {
            "title": "Tell me",
            "description": "Two\nlines \u202e",
            "fields": FIELDS,
            "context": {"source": "test"},
        }
    }
    return (await ctx.step.suspend("fill", shown))["data"]


@workflow
async def two(ctx: WorkflowContext) -> Any:
    """Wait for two answers, one after the other."""
    first = await ctx.step.suspend("first", {"question": "one?"})
    second = await ctx.step.suspend("second", {"question": "two?"})
    return [first["data"], second["data"]]


@workflow
async def brief(ctx: WorkflowContext) -> Any:
    """Wait for an answer, and not for long."""
    return await ctx.step.suspend("soon", timeout=0.05)


SHOWN = (
    '{"_form": {"title": "Approve pay?", "context": {"tool": "pay", "input": {"amount": 100}}}, '
    '"_source": "tool_approval", "_tool": "pay"}'
)
"""What an approval shows, as the loop of an agent tells it."""


@dataclass(frozen=True)
class Pay:
    """A run that waits for the approval of `pay`, and returns the answer."""

    id: str
    kind: str = "workflow"
    timeout: float | None = None
    work_limit: float | None = None

    def pin(self, request: RunRequest) -> bytes:
        return b"{}"

    def other_version(self, pinned: bytes) -> str | None:
        return None

    async def first(self, pinned: bytes) -> Message:
        return WorkflowStart()

    async def run(self, ctx: RunContext, pinned: bytes) -> Message:
        ctx.start(WorkflowStart())
        told = await ctx.wait("pay/approve", WaitKind.WAIT_KIND_APPROVAL, data_json=SHOWN)
        return WorkflowFinish(result_json=told.data_json)


@dataclass(frozen=True)
class Flows:
    """A service with workflows, and the command that calls it."""

    served: Served
    cli: Cli

    async def start(self, workflow_id: str, payload: str | None = None) -> str:
        """Start a run, and return its id."""
        request = CreateRunRequest(agent_id=workflow_id, payload_json=payload)
        return (await self.served.runs.CreateRun(request)).run.run_id

    async def waits(self, run_id: str, key: str) -> None:
        """Wait until the run waits for an answer with this key."""

        async def holds() -> bool:
            run = await self.served.client.get_run(run_id)
            return any(one.step_key == key for one in run.open_waits)

        await until_(holds, f"{run_id} waits for {key}")

    async def answer(self, run_id: str, key: str, data_json: str) -> None:
        """Answer a wait, from elsewhere."""
        request = ResumeRunRequest(
            run_id=run_id, step_key=key, data_json=data_json, request_id=f"answer to {key}"
        )
        await self.served.runs.ResumeRun(request)

    async def started(self) -> str:
        """Wait until a run is there, and return the id of the newest."""
        found: list[str] = []

        async def holds() -> bool:
            found[:] = [one.run_id async for one in self.served.client.list_runs(limit=1)]
            return bool(found)

        await until_(holds, "a run")
        return found[0]

    async def result(self, run_id: str) -> Any:
        """Wait until a run has completed, and return what it returned."""
        (*_, last) = await self.served.events(run_id)
        return json.loads(last.workflow_finish.result_json)


@asynccontextmanager
async def flows_in(folder: Path) -> AsyncIterator[Flows]:
    """Serve the workflows."""
    async with serving(folder, greet, order, form, two, brief) as served:
        served.service.catalog.add(Pay("pay"))
        yield Flows(served, Cli(served.client.address))
