"""ExecutionHandle: a run that was started, to look after it later."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

from pydantic import BaseModel

from polos.v1.run_pb2 import Run
from polos_client.calls import record, waiting
from polos_client.calls.connection import Connection
from polos_client.calls.start import Start
from polos_client.values import iso
from polos_client.wire import root_of


class ExecutionHandle(BaseModel):
    """A run that was started. An id alone also makes a handle.

    Attributes:
        id: the run.
        workflow_id: the agent or workflow that runs.
        created_at: when it was accepted, ISO 8601 in UTC.
        parent_execution_id: the run whose step started it; None if a caller did.
        root_workflow_id: the agent or workflow of the root run; the same if it has its own log.
        root_execution_id: the root run, whose log has its events; the same if it has its own log.
        session_id: the session it was started in; None if none was given.
        user_id: the user that the run is for; None if none was given.
        step_key: the step of the parent that started it; None if a caller did.

    """

    id: str
    workflow_id: str | None = None
    created_at: str | None = None
    parent_execution_id: str | None = None
    root_workflow_id: str | None = None
    root_execution_id: str | None = None
    session_id: str | None = None
    user_id: str | None = None
    step_key: str | None = None

    @classmethod
    def of(cls, run: Run) -> ExecutionHandle:
        """Return the handle of a run, a root run or a child."""
        return cls(
            id=run.run_id,
            workflow_id=run.workflow_id,
            created_at=iso(run.create_time),
            parent_execution_id=run.parent_run_id or None,
            step_key=run.parent_step_key or None,
            root_workflow_id=run.root_workflow_id or run.workflow_id,
            root_execution_id=root_of(run.run_id),
            session_id=run.session_id if run.HasField("session_id") else None,
            user_id=run.user_id if run.HasField("user_id") else None,
        )

    @classmethod
    def of_start(cls, start: Start, run_id: str) -> ExecutionHandle:
        """Return the handle of a run that was accepted now, by the clock of this machine."""
        return cls(
            id=run_id,
            workflow_id=start.workflow_id,
            created_at=datetime.now(UTC).isoformat(),
            root_workflow_id=start.workflow_id,
            root_execution_id=run_id,
            session_id=start.session_id,
            user_id=start.user_id,
        )

    def to_dict(self) -> dict[str, Any]:
        """Return the attributes; None where one has no value."""
        return self.model_dump()

    async def get(self, client: Connection) -> dict[str, Any]:
        """Return the state of the run; a key without a value is None.

        Returns:
            `status` ("queued", "running", "waiting", "completed", "failed" or "cancelled"),
            `result` (the AgentResult, or what the workflow returned; None unless completed),
            `error` (the message; None unless failed), `created_at` and `completed_at` (ISO 8601
            in UTC), `parent_execution_id`, `root_workflow_id`, `root_execution_id`,
            `output_schema_name`, `step_key`, `spent` (the `Usage` that the run and its children
            have spent; None until the run has ended) and `spent_cost` (US dollars; None if
            unknown). A run with an open wait that can be answered is "waiting".

        Raises:
            RunNotFound: the run does not exist, or no longer exists.
            CallError: the service refused.
            ConnectionLost: it could not be reached.

        """
        return await record.standing(client, self.id)

    async def resume(
        self,
        client: Connection,
        step_key: str | None = None,
        data: Any = None,
        *,
        wait_id: int | None = None,
        request_id: str | None = None,
    ) -> None:
        """Answer a wait of the run: see `PolosClient.resume`."""
        await waiting.resume(
            client, self.id, step_key, data, wait_id=wait_id, request_id=request_id
        )

    async def cancel(self, client: Connection) -> bool:
        """Cancel the run; False if it had already ended otherwise.

        Raises:
            RunNotFound: the run does not exist, or no longer exists.
            CallError: the service refused.
            ConnectionLost: it could not be reached.

        """
        return await record.cancel(client, self.id)
