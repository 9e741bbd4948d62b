"""ExecutionHandle: a run that was started, to look after it later."""

from __future__ import annotations

from datetime import UTC
from typing import TYPE_CHECKING, Any

from google.protobuf.timestamp_pb2 import Timestamp
from pydantic import BaseModel

from polos.v1.run_pb2 import Run, RunState
from polos_client.errors import RunError
from polos_client.fold import conclude, tool_result
from polos_client.result import AgentResult, Usage

if TYPE_CHECKING:
    from polos_client.calls.client import PolosClient

ENDED_OTHERWISE = (RunState.RUN_STATE_COMPLETED, RunState.RUN_STATE_FAILED)
"""The states of a run that has ended, but was not cancelled."""


class ExecutionHandle(BaseModel):
    """A run that was started.

    Attributes:
        id: the run.
        workflow_id: the agent that runs.
        root_workflow_id: the agent of the run that started it; the same at a root run.
        root_execution_id: the run that started it; the same at a root run.
        created_at: when it was accepted, ISO 8601 in UTC.
        session_id: the session it was started in; None if none was given.

    """

    id: str
    workflow_id: str
    root_workflow_id: str
    root_execution_id: str
    created_at: str
    session_id: str | None = None

    @classmethod
    def of(cls, run: Run) -> ExecutionHandle:
        """Return the handle of a run."""
        return cls(
            id=run.run_id,
            workflow_id=run.workflow_id,
            root_workflow_id=run.workflow_id,
            root_execution_id=run.run_id,
            created_at=_iso(run.create_time),
            session_id=run.session_id if run.HasField("session_id") else None,
        )

    async def get(self, client: PolosClient) -> dict[str, Any]:
        """Return how the run stands: see `standing`."""
        return await standing(client, self.id)

    async def cancel(self, client: PolosClient) -> bool:
        """Cancel the run; False if it had ended otherwise before.

        Raises:
            RunNotFound: there is no such run any more.
            CallError: the service refused.
            ConnectionLost: it could not be reached.

        """
        return await cancel(client, self.id)


async def standing(client: PolosClient, run_id: str) -> dict[str, Any]:
    """Return how a run stands.

    Returns:
        `status` ("queued", "running", "suspended", "completed", "failed" or "cancelled"),
        `result` (the AgentResult as a dict; None unless completed), `error` (the message;
        None unless failed), `created_at` and `completed_at` (ISO 8601 in UTC; None until
        it has ended), `root_workflow_id` and `root_execution_id`.

    Raises:
        RunNotFound: there is no such run any more.
        CallError: the service refused.
        ConnectionLost: it could not be reached.

    """
    run = await client.get_run(run_id)
    ended = run.HasField("finish_time")
    return {
        "status": RunState.Name(run.state).removeprefix("RUN_STATE_").lower(),
        "result": await _result(client, run),
        "error": run.outcome.error.message if run.outcome.HasField("error") else None,
        "created_at": _iso(run.create_time),
        "completed_at": _iso(run.finish_time) if ended else None,
        "root_workflow_id": run.workflow_id,
        "root_execution_id": run.run_id,
    }


async def cancel(client: PolosClient, run_id: str) -> bool:
    """Cancel a run; False if it had ended otherwise before."""
    return (await client.cancel_run(run_id)).state not in ENDED_OTHERWISE


async def _result(client: PolosClient, run: Run) -> dict[str, Any] | None:
    if run.state != RunState.RUN_STATE_COMPLETED:
        return None
    if run.tool_results_omitted:
        return (await _from_log(client, run.run_id)).model_dump()
    results = [tool_result(one.tool_call, one) for one in run.tool_results]
    try:
        return conclude(run.outcome, results, text="", usage=Usage()).model_dump()
    except RunError:
        return None  # it ended well, in a way that a later version of the service added


async def _from_log(client: PolosClient, run_id: str) -> AgentResult:
    """Return the result with all tool results: a Run carries no more than 1 MiB of them."""
    from polos_client.calls.follow import fold  # noqa: PLC0415 - follow needs the client, too

    return (await fold(client, run_id)).result()


def _iso(time: Timestamp) -> str:
    return time.ToDatetime(tzinfo=UTC).isoformat()
