"""What a tool knows of the run that calls it."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any


@dataclass(frozen=True, kw_only=True, slots=True)
class WorkflowContext:
    """The step in which a tool runs.

    Attributes:
        workflow_id: id of the agent or workflow.
        execution_id: id of its run.
        session_id: the session the run was started in; None if none was given.
        user_id: the user it was started for; None if none was given.
        step_key: the step's key, unique in the run.
        attempt: which attempt of the step this is, from 1; a crash of the service begins
            another.
        idempotency_key: the same for each attempt of the step, and for no other step:
            pass it to what must not happen twice.
        initial_state: what the run was started with, as JSON values.

    """

    workflow_id: str
    execution_id: str
    session_id: str | None = None
    user_id: str | None = None
    step_key: str
    attempt: int = 1
    idempotency_key: str
    initial_state: dict[str, Any] = field(default_factory=dict)
