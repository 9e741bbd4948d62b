"""What happened in a run besides model calls and tools: steps, waits, events, retries."""

from __future__ import annotations

from contextlib import aclosing
from datetime import UTC
from typing import TYPE_CHECKING, Any

from polos_service.cli.output import brief, kind_of
from polos_service.cli.records import span
from polos_service.cli.waits import as_dict as wait_dict
from polos_service.cli.waits import asks, ending_of, local, wait_of

if TYPE_CHECKING:
    from polos.v1.run_pb2 import Run, Wait
    from polos_client.calls.client import PolosClient
    from polos_client.event import Event

AGENT_STEPS = ("llm", "tool")
"""The types of steps that a run's record tells by itself."""


async def history_of(client: PolosClient, run: Run) -> History:
    """Return what happened in a run until its record was made, from its log."""
    from polos_client.calls.events import stream_workflow  # noqa: PLC0415 - slow for `--help`

    history = History()
    if run.latest_sequence:
        async with aclosing(stream_workflow(client, workflow_run_id=run.run_id)) as events:
            async for event in events:
                history.add(event)
                if event.sequence_id >= run.latest_sequence:
                    break
    return history


class History:
    """The fold of a run's log; what its children did is not in it.

    Attributes:
        steps: the steps of a workflow, as they began.
        waits: all waits, timers too, as they began.
        events: the events of a user's own types that are not void.
        retries: how often a workflow's function started over.
        lines: the same for a person, by the sequence at which each began.

    """

    def __init__(self) -> None:
        """Begin before the first event."""
        self.steps: dict[str, dict[str, Any]] = {}
        self.waits: dict[int, dict[str, Any]] = {}
        self.events: list[dict[str, Any]] = []
        self.retries: list[dict[str, Any]] = []
        self.lines: dict[int, str] = {}
        self._began: dict[int, Wait] = {}

    def add(self, event: Event) -> None:
        """Take the next event of the log."""
        if not event.is_own:
            return
        match kind_of(event):
            case "step_start":
                self._start(event)
            case "step_retry":
                self._retry(event)
            case "step_finish":
                self._finish(event)
            case "suspended":
                self._suspend(event)
            case "resumed":
                self._resume(event)
            case "custom":
                self._tell(event)
            case "workflow_retry":
                self._start_over(event)

    def as_dict(self) -> dict[str, Any]:
        """Return it for a program; what did not happen is absent."""
        found = {
            "steps": list(self.steps.values()),
            "waits": list(self.waits.values()),
            "events": self.events,
            "workflow_retries": self.retries,
        }
        return {name: entries for name, entries in found.items() if entries}

    def _start(self, event: Event) -> None:
        start = event.proto.step_start
        if start.step_type in AGENT_STEPS:
            return
        self.steps[start.step_key] = {
            "sequence": event.sequence_id,
            "step_key": start.step_key,
            "step_type": start.step_type,
            "attempt": 1,
            "started_at": event.created_at.isoformat(),
        }
        if start.step_type != "event":  # which tells itself
            self.lines[event.sequence_id] = f"step {start.step_key}: not finished"

    def _retry(self, event: Event) -> None:
        retry = event.proto.step_retry
        if step := self.steps.get(retry.step_key):
            step["attempt"] = retry.attempt
            told = f"step {retry.step_key}: attempt {retry.attempt}, after: {retry.message}"
            self.lines[step["sequence"]] = told
        void = [one for one in self.events if one["step_key"] == retry.step_key]
        for one in void:
            self.events.remove(one)
            del self.lines[one["sequence"]]

    def _finish(self, event: Event) -> None:
        from polos_client.event import parsed  # noqa: PLC0415 - protobuf: `--help` needs none

        finish = event.proto.step_finish
        step = self.steps.get(finish.step_key)
        if step is None:
            return
        step["finished_at"] = event.created_at.isoformat()
        if finish.HasField("failure"):
            step["error"], told = finish.failure.message, f"failed: {finish.failure.message}"
        else:
            step["result"], told = parsed(finish.result_json), brief(finish.result_json)
        if step["sequence"] in self.lines:
            tries = f" (attempt {step['attempt']})" if step["attempt"] > 1 else ""
            self.lines[step["sequence"]] = f"step {finish.step_key}{tries} -> {told}"

    def _suspend(self, event: Event) -> None:
        wait = self._began[event.sequence_id] = wait_of(event.proto)
        self.waits[wait.wait_id] = wait_dict(wait)
        since = local(event.proto.create_time)
        self.lines[wait.wait_id] = f"wait {wait.wait_id} {asks(wait)} · since {since}"

    def _resume(self, event: Event) -> None:
        from polos_client.event import parsed  # noqa: PLC0415 - protobuf: `--help` needs none

        resumed = event.proto.resumed
        wait = self._began[resumed.wait_id]
        told = self.waits[resumed.wait_id]
        outcome = resumed.WhichOneof("outcome") or "elapsed"
        told["ended_at"] = event.created_at.isoformat()
        told["outcome"] = "answered" if outcome == "data_json" else outcome
        if outcome == "data_json":
            told["answer"] = parsed(resumed.data_json)
            told["principal"] = resumed.principal
        took = span(event.created_at - wait.create_time.ToDatetime(tzinfo=UTC))
        what = asks(wait, until=False)
        self.lines[wait.wait_id] = f"wait {wait.wait_id} {what} · {ending_of(resumed)} after {took}"

    def _tell(self, event: Event) -> None:
        from polos_client.event import parsed  # noqa: PLC0415 - protobuf: `--help` needs none

        custom = event.proto.custom
        self.events.append(
            {
                "sequence": event.sequence_id,
                "event_type": custom.type,
                "data": parsed(custom.data_json),
                "step_key": custom.step_key,
                "created_at": event.created_at.isoformat(),
            }
        )
        self.lines[event.sequence_id] = f"event {custom.type} {brief(custom.data_json)}"

    def _start_over(self, event: Event) -> None:
        retry = event.proto.workflow_retry
        self.retries.append(
            {
                "sequence": event.sequence_id,
                "attempt": retry.attempt,
                "error": retry.message,
                "created_at": event.created_at.isoformat(),
            }
        )
        told = f"the workflow starts over, attempt {retry.attempt}: {retry.message}"
        self.lines[event.sequence_id] = told
