"""How a run stands, as the keys that programs read."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from polos.v1.event_pb2 import WorkflowFinish
from polos.v1.run_pb2 import Run, RunState
from polos_client.calls.connection import Connection
from polos_client.calls.follow import fold
from polos_client.calls.states import ENDED_OTHERWISE, STATUSES
from polos_client.errors import ResultMismatch
from polos_client.event import dollars, parsed, usage_fields
from polos_client.fold import conclude, tool_result
from polos_client.result import AgentResult, Usage
from polos_client.typed import answered, typed
from polos_client.values import iso
from polos_client.wire import root_of

UNKNOWN = (
    *("deployment_id", "assigned_to_worker", "retry_count", "queue_name"),
    *("concurrency_key", "batch_id", "cancelled_by", "run_timeout_seconds"),
)
"""Documented keys of a record that this service does not tell."""


async def standing(connection: Connection, run_id: str) -> dict[str, Any]:
    """Return how a run stands: see `ExecutionHandle.get`."""
    run = await connection.get_run(run_id)
    if _is_finished_workflow(run):
        finish = run.outcome.workflow_finish
        result, schema = _typed(finish), finish.result_schema or None
    else:
        result = await _result(connection, run, _readable)
        schema = result.result_schema if result else None
    return {
        **_common(run),
        "result": result,
        "root_workflow_id": run.root_workflow_id or run.workflow_id,
        "output_schema_name": schema,
        "spent": _spent(run),
    }


async def execution(connection: Connection, run_id: str) -> dict[str, Any]:
    """Return a run's record as JSON values: see `PolosClient.get_execution`."""
    run = await connection.get_run(run_id, include_input=True)
    if _is_finished_workflow(run):
        finish = run.outcome.workflow_finish
        value, schema = parsed(finish.result_json), finish.result_schema or None
    else:
        result = await _result(connection, run, lambda text, _: parsed(text))
        value = result.model_dump(mode="json") if result else None
        schema = result.result_schema if result else None
    cancelled = run.state == RunState.RUN_STATE_CANCELLED
    return {
        "id": run.run_id,
        "workflow_id": run.workflow_id,
        **_common(run),
        "payload": _payload(run),
        "result": value,
        "output_schema_name": schema,
        "spent": spent.model_dump() if (spent := _spent(run)) else None,
        "started_at": iso(run.start_time) if run.HasField("start_time") else None,
        "cancelled_at": iso(run.finish_time) if cancelled else None,
        "session_id": run.session_id if run.HasField("session_id") else None,
        "user_id": run.user_id if run.HasField("user_id") else None,
        **dict.fromkeys(UNKNOWN),
    }


def input_of(run: Run) -> Any:
    """Return what a run was started with as JSON values; None if the record does not have it."""
    match run.input.WhichOneof("given"):
        case "text":
            return run.input.text
        case "messages_json":
            return parsed(run.input.messages_json)
        case "payload_json":
            return parsed(run.input.payload_json)
    return None


async def cancel(connection: Connection, run_id: str) -> bool:
    """Cancel a run; False if it had ended otherwise before."""
    return (await connection.cancel_run(run_id)).state not in ENDED_OTHERWISE


def _common(run: Run) -> dict[str, Any]:
    return {
        "status": _status(run),
        "error": run.outcome.error.message if run.outcome.HasField("error") else None,
        "created_at": iso(run.create_time),
        "completed_at": iso(run.finish_time) if run.HasField("finish_time") else None,
        "parent_execution_id": run.parent_run_id or None,
        "root_execution_id": root_of(run.run_id),
        "step_key": run.parent_step_key or None,
        "spent_cost": dollars(run.spent_cost) if run.HasField("spent_cost") else None,
    }


def _payload(run: Run) -> Any:
    """Return what `PolosClient.invoke` starts such a run with."""
    given = input_of(run)
    if given is None or run.input.HasField("payload_json"):
        return given
    return {"input": given, "streaming": run.streaming}


def _spent(run: Run) -> Usage | None:
    return Usage(**usage_fields(run.spent)) if run.HasField("spent") else None


def _status(run: Run) -> str:
    """Return the name of the run's state; a run that somebody can answer is waiting."""
    if run.open_waits and run.state == RunState.RUN_STATE_RUNNING:
        return STATUSES[RunState.RUN_STATE_SUSPENDED]
    return STATUSES.get(run.state, "unknown")


def _is_finished_workflow(run: Run) -> bool:
    return run.outcome.HasField("workflow_finish")


def _typed(finish: WorkflowFinish) -> Any:
    try:
        return typed(finish.result_json, finish.result_schema)
    except ResultMismatch:  # the class is another one here
        return parsed(finish.result_json)


def _readable(text: str, schema: str) -> Any:
    """Return what the JSON text of an answer stands for; JSON values if its class is not here."""
    try:
        return answered(text, schema)
    except ResultMismatch:
        return parsed(text)


async def _result(
    connection: Connection, run: Run, read: Callable[[str, str], Any]
) -> AgentResult | None:
    if run.state != RunState.RUN_STATE_COMPLETED or not run.outcome.HasField("agent_finish"):
        return None
    # A Run carries up to 1 MiB of tool results, and a result only as long as a response may be.
    if run.tool_results_omitted or run.outcome.agent_finish.result_step_key:
        return (await fold(connection, run.run_id)).conclude(read)
    results = [tool_result(one.tool_call, one) for one in run.tool_results]
    return conclude(run.outcome, results, read=read)
