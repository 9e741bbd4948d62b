"""What a run ended with, as a wait for its end tells it in the log of the run that waits."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable
from typing import Any, cast

from polos.v1.error_pb2 import FailureReason
from polos.v1.event_pb2 import Event
from polos.v1.run_pb2 import ToolResult
from polos_client.event import dollars, usage_fields
from polos_service.errors import StepError
from polos_service.limits import OUTPUT_LIMIT
from polos_service.runs.attempt import StepOutput
from polos_service.runs.runnable import AGENT
from polos_service.workflows.definition import KIND as WORKFLOW
from polos_service.workflows.functions import MODELS
from polos_service.workflows.results import agent_json, leading, result_in, value_of


def outcome_json(event: Event, tools: Iterable[ToolResult]) -> str:
    """Return the outcome of a run as JSON text: a result of at most OUTPUT_LIMIT bytes, and some.

    Args:
        event: its terminal event.
        tools: the results of its own tools, for an agent.

    """
    told: dict[str, Any] = {"run_id": event.run_id, "workflow_id": event.workflow_id}
    name = event.WhichOneof("payload") or ""
    payload = getattr(event, name)
    told |= {"usage": usage_fields(payload.usage)} if payload.HasField("usage") else {}
    told |= {"cost": dollars(payload.cost)} if payload.HasField("cost") else {}
    result = None
    match name:
        case "workflow_finish":
            result, schema = payload.result_json, payload.result_schema
            told |= {"outcome": "completed", "kind": WORKFLOW}
            told |= {"result_schema": schema} if schema else {}
        case "agent_finish" if not payload.result_step_key:
            ended = [(one.tool_call, one) for one in tools]
            result = agent_json(event.run_id, payload, ended)
            told |= {"outcome": "completed", "kind": AGENT}
        case "agent_finish":
            told |= too_large(event.run_id)
        case "run_cancelled":
            told |= {"outcome": "cancelled"}
        case _:
            told |= {"outcome": "failed", "error": payload.message}
    text = json.dumps(told, ensure_ascii=False, separators=(",", ":"))
    if result is None:
        return text
    if len(result.encode()) > OUTPUT_LIMIT:
        return json.dumps(told | too_large(event.run_id))
    return leading(result, text)


def too_large(run_id: str) -> dict[str, str]:
    """Return how a run is told whose result cannot be handed on."""
    what = f"The result exceeds {OUTPUT_LIMIT} bytes. The events of the run {run_id} have it."
    return {"outcome": "failed", "error": what}


def circle_json(run_id: str) -> str:
    """Return how a run is told that must not wait for a run, because that one waits for it."""
    what = (
        f"The run {run_id} waits for the end of this run, itself or through others, so that none "
        "of them would ever end. Give one of these waits a timeout."
    )
    return json.dumps({"run_id": run_id, "outcome": "failed", "error": what})


def deleted_json(run_id: str) -> str:
    """Return how a run is told that was deleted before its end was read, or never was there."""
    return json.dumps({"run_id": run_id, "outcome": "deleted"})


def value_in(text: str, schema_of: Callable[[str], Any] = lambda _: None) -> Any:
    """Return what a run returned whose outcome this is.

    `schema_of` returns the type of an agent's answers by its id, if it is known.

    Raises:
        StepError: it failed, was cancelled, or is not there; or the class of the result is gone or
            has changed.

    """
    told = json.loads(text)
    run_id = told["run_id"]
    match told["outcome"]:
        case "completed":
            schema = told.get("result_schema")
            private = {MODELS: {"": schema}} if schema else {}
            output = StepOutput(result_json=cast("str", result_in(text)), private=private)
            return value_of(told["kind"], output, schema_of(told["workflow_id"]))
        case "failed":
            raise StepError(FailureReason.FAILURE_REASON_CHILD_FAILED, told["error"])
        case "cancelled":
            reason = FailureReason.FAILURE_REASON_CHILD_CANCELLED
            raise StepError(reason, f"The run {run_id} was cancelled.")
        case _:
            reason = FailureReason.FAILURE_REASON_CHILD_FAILED
            raise StepError(reason, f"There is no run {run_id!r:.80}, or no more.")
