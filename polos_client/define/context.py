"""What a tool or a workflow knows of its run."""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import datetime
from typing import TYPE_CHECKING, Any, NoReturn

from polos_client.define.steps import NO_STEPS, Steps
from polos_client.unbuilt import CONTEXT, NotBuiltAttributeError


@dataclass(frozen=True, kw_only=True, slots=True)
class WorkflowContext:
    """The run of a workflow, or the step of an agent's run in which a tool runs.

    Attributes:
        workflow_id: id of the agent or workflow.
        execution_id: id of its run.
        session_id: the session the run was started in; None if none was given.
        user_id: the user it was started for; None if none was given.
        step_key: the step's key, unique in the run; empty in a workflow.
        attempt: the number of the attempt of the step, from 1; a crash of the service starts
            another one. In a workflow, how often its function has started over, plus 1.
        idempotency_key: the same for all attempts of the step, and unique to the step: pass it to
            anything that must not happen twice. In a workflow, the run's id.
        initial_state: what the run was started with, as JSON values.
        step: the durable steps; in a tool, those of a child that begins with the first of them.
        state: the workflow's state; None without a `state_schema`, and in tools.
        root_execution_id: the run whose log has the events of this run; usually this run itself.
        root_workflow_id: the agent or workflow that the root run executes.
        parent_execution_id: the run whose step started this one; None if a caller did.
        retry_count: how often the workflow's function has started over.
        created_at: when the run was created, in UTC; None in tools.
        workflow_type: `workflow`, or `tool`.

    """

    workflow_id: str
    execution_id: str
    session_id: str | None = None
    user_id: str | None = None
    step_key: str = ""
    attempt: int = 1
    idempotency_key: str
    initial_state: dict[str, Any] = field(default_factory=dict)
    step: Steps = field(default=NO_STEPS, repr=False)
    state: Any = None
    parent_execution_id: str | None = None
    retry_count: int = 0
    created_at: datetime | None = None
    workflow_type: str = "tool"
    root_execution_id: str = ""
    root_workflow_id: str = ""

    def __post_init__(self) -> None:
        """Take the run for a root run if nothing else was said."""
        if not self.root_execution_id:
            object.__setattr__(self, "root_execution_id", self.execution_id)
            object.__setattr__(self, "root_workflow_id", self.workflow_id)

    def to_dict(self) -> dict[str, Any]:
        """Return the attributes of the run as JSON values; None if one has no value."""
        return {
            "workflow_id": self.workflow_id,
            "execution_id": self.execution_id,
            "root_workflow_id": self.root_workflow_id,
            "root_execution_id": self.root_execution_id,
            "parent_execution_id": self.parent_execution_id,
            "session_id": self.session_id,
            "user_id": self.user_id,
            "step_key": self.step_key,
            "attempt": self.attempt,
            "retry_count": self.retry_count,
            "created_at": self.created_at.isoformat() if self.created_at else None,
            "workflow_type": self.workflow_type,
        }

    if not TYPE_CHECKING:  # checkers refuse these names by themselves

        def __getattr__(self, name: str) -> NoReturn:
            if name in CONTEXT:
                raise NotBuiltAttributeError(f"ctx.{name} is not built yet in this version")
            raise AttributeError(f"a WorkflowContext has no attribute {name!r}")
