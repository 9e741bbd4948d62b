"""Workflows without a server: an executor on the real store."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

from polos.v1.event_pb2 import Event
from polos.v1.run_pb2 import RunState
from polos_client.deadlines import Deadlines
from polos_client.define.workflow import Workflow
from polos_client.errors import AgentNotFound
from polos_service.caller import ANONYMOUS
from polos_service.runs.answers import Answer
from polos_service.runs.clock import Clock, SystemClock
from polos_service.runs.context import RunContext
from polos_service.runs.executor import Executor
from polos_service.runs.journal import ENDS
from polos_service.runs.runnable import Runnable, RunRequest
from polos_service.runs.spending import TreeBudget
from polos_service.service import OtherRuns
from polos_service.store import CANCEL, Command, NewRun, RunStore
from polos_service.workflows.means import Means
from polos_service.workflows.runnable import WorkflowRunnable
from tests.support.service import until
from tests.support.stores import all_events, events_of, new_run

Resumed = tuple[str, str, str, str]
"""The run, key and JSON text of an answer, and its request id."""


class Flows:
    """An executor that runs workflows.

    Attributes:
        store: where their runs are.
        resumed: what they answered.
        means: what their code works with.

    """

    def __init__(
        self,
        store: RunStore,
        *workflows: Workflow,
        threshold: float = 60.0,
        max_retries: int = 2,
        clock: Clock | None = None,
        limit: int = 10,
    ) -> None:
        self.store = store
        self._others = OtherRuns(store)
        self.room = self._others.room
        self.resumed: list[Resumed] = []
        self._clock = clock or SystemClock()
        self._threshold = threshold
        self._limit = limit
        self.means = Means(self._clock, self._resume, self._find, self)
        self._runnables: dict[str, Runnable] = {
            one.id: WorkflowRunnable(one, self.means, max_retries) for one in workflows
        }
        self._executor: Executor | None = None

    def add(self, runnable: Runnable) -> None:
        """Load what the workflows may start."""
        self._runnables[runnable.id] = runnable

    async def create(self, run: NewRun) -> str:
        """Store a run that a workflow starts."""
        return await self._others.create(run)

    async def refusal(self, project: str, run_id: str, root: str) -> str:
        """Return why a run must not be waited for."""
        return await self._others.refusal(project, run_id, root)

    async def outcome(self, project: str, run_id: str) -> str:
        """Return what a run has ended with."""
        return await self._others.outcome(project, run_id)

    def _find(self, runnable_id: str, project: str) -> Runnable:
        del project
        if runnable_id not in self._runnables:
            raise AgentNotFound(f"There is no {runnable_id!r}.", agent_id=runnable_id, known="")
        return self._runnables[runnable_id]

    def begin(self) -> None:
        """Take up runs."""
        self._executor = Executor(
            self.store, self._runnables, self._clock, self._limit, threshold=self._threshold
        )
        self._executor.start()

    async def stop(self) -> None:
        """Stop in the middle of what runs, as if the process ended."""
        if self._executor is not None:
            await self._executor.stop(0)
            self._executor = None

    async def restart(self) -> None:
        """End the process, and begin another one."""
        await self.stop()
        self.begin()

    async def start(
        self,
        workflow: Workflow,
        payload: Any = None,
        state: Any = None,
        budget: TreeBudget | None = None,
        **fields: Any,
    ) -> str:
        """Start a run and return its id."""
        request = RunRequest(
            caller=ANONYMOUS,
            runnable_id=workflow.id,
            payload=None,
            payload_json=None if payload is None else json.dumps(payload),
            digest=b"",
            size=0,
            model_options={},
            initial_state=state or {},
            deadlines=Deadlines(),
            budget=budget,
        )
        pinned = self._runnables[workflow.id].pin(request)
        return await self.store.create(
            new_run(workflow_id=workflow.id, definition=pinned, **fields)
        )

    async def run(
        self,
        workflow: Workflow,
        payload: Any = None,
        state: Any = None,
        budget: TreeBudget | None = None,
    ) -> list[Event]:
        """Run a workflow, and return the events."""
        return await self.ended(await self.start(workflow, payload, state, budget))

    async def result(self, workflow: Workflow, payload: Any = None) -> Any:
        """Run a workflow, and return what it returned, as it stands in the log."""
        return result_of(await self.run(workflow, payload))

    async def ended(self, run_id: str) -> list[Event]:
        """Wait for the end of a run, and return its events."""
        return await all_events(self.store, run_id)

    async def events(self, run_id: str) -> list[Event]:
        """Return the events that a run has now."""
        return await events_of(self.store, run_id)

    async def parked(self, run_id: str) -> None:
        """Wait until a run is suspended."""

        async def suspended() -> bool:
            state = (await self.store.get("default", run_id)).state
            return state == RunState.RUN_STATE_SUSPENDED

        await until(suspended, "the run to be suspended")

    async def holds(self, run_id: str, kind: str) -> None:
        """Wait until a run has an event of a kind, as `kind` names it."""

        async def has() -> bool:
            return kind in kinds(await self.events(run_id))

        await until(has, kind)

    async def answer(
        self, run_id: str, key: str, data: Any = None, *, child: str | None = None
    ) -> None:
        """Answer a wait of a root run, or of a child of it."""
        answer = Answer(data_json=json.dumps(data), request_id="r-1", principal="ann")
        await self.store.command("default", run_id, answer.to(child or run_id, key))

    async def cancel(self, run_id: str) -> None:
        """Order a run's end."""
        cancel = Command(id=CANCEL, kind=CANCEL, run_id=run_id)
        await self.store.command("default", run_id, cancel)

    async def _resume(  # noqa: PLR0917 - a port of workflows
        self,
        run: RunContext,
        run_id: str,
        step_key: str,
        data_json: str,
        request_id: str,
        workflow_id: str,
    ) -> object:
        del run, workflow_id
        self.resumed.append((run_id, step_key, data_json, request_id))
        return None


@asynccontextmanager
async def flowing(store: RunStore, *workflows: Workflow, **options: Any) -> AsyncIterator[Flows]:
    """Give an executor of workflows that runs."""
    flows = Flows(store, *workflows, **options)
    flows.begin()
    try:
        yield flows
    finally:
        await flows.stop()


def result_of(events: list[Event]) -> Any:
    """Return what a run's workflow returned."""
    assert events[-1].HasField("workflow_finish"), events[-1]
    return json.loads(events[-1].workflow_finish.result_json)


def kinds(events: list[Event]) -> list[str]:
    """Return what happened, without the first and last event's details: `step_start a/1`."""
    return [kind(event) for event in events]


def kind(event: Event) -> str:
    """Return what an event tells: its type, key, and attempt or ending."""
    name = event.WhichOneof("payload") or ""
    payload = getattr(event, name)
    key = getattr(payload, "step_key", "")
    told: list[str] = [name, key] if key else [name]
    if name == "step_finish" and payload.HasField("failure"):
        told[0] = "step_failed"
    if name == "resumed":
        outcome = payload.WhichOneof("outcome")
        told.append({None: "due", "data_json": "answered"}.get(outcome, str(outcome)))
    elif hasattr(payload, "attempt"):
        told.append(str(payload.attempt))
    return " ".join(told)


def of_workflow(events: list[Event], workflow_id: str) -> list[Event]:
    """Return the events of the runs of a workflow."""
    return [one for one in events if one.workflow_id == workflow_id]


def after_end(events: list[Event]) -> list[str]:
    """Return what children did after their ends."""
    ended: set[str] = set()
    late = []
    for event in events:
        if event.run_id in ended:
            late.append(kinds([event])[0])
        if event.WhichOneof("payload") in ENDS:
            ended.add(event.run_id)
    return late


def unended(events: list[Event]) -> set[str]:
    """Return the runs that have begun and not ended."""
    begun = {one.run_id for one in events if one.HasField("workflow_start")}
    return begun - {one.run_id for one in events if one.WhichOneof("payload") in ENDS}
