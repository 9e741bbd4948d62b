"""What a run of a workflow is started with, pinned: a resumed run uses this."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import BaseModel

from polos.v1.event_pb2 import WorkflowStart
from polos_client.define.workflow import Workflow
from polos_service.runs.pinned import unpinned
from polos_service.runs.runnable import RunRequest
from polos_service.runs.spending import TreeBudget

KIND: Literal["workflow"] = "workflow"
"""The kind of a workflow's definition."""

VERSION: Literal[2] = 2
"""The newest version of its format: a further one where earlier code would read it wrongly.

Version 2 has a budget, which earlier code would exceed.
"""

WITHOUT_BUDGET: Literal[1] = 1
"""The version of a definition without a budget."""


class Definition(BaseModel):
    """A run's definition. Private: it is stored beside the log; only the payload is served.

    Attributes:
        payload_json: the payload as the caller sent it; None if there was none.
        code_version: the version of the code that the run was started with.
        budget: what the model calls of the run's children may use; None: any.

    """

    kind: Literal["workflow"] = KIND
    v: Literal[1, 2] = WITHOUT_BUDGET
    workflow_id: str
    code_version: str
    payload_json: str | None
    initial_state: dict[str, Any]
    session_id: str | None
    user_id: str | None
    budget: TreeBudget | None = None

    @classmethod
    def pin(cls, workflow: Workflow, request: RunRequest) -> Definition:
        """Return the definition of a run of this workflow as it is now."""
        return cls(
            v=VERSION if request.budget else WITHOUT_BUDGET,
            workflow_id=workflow.id,
            code_version=workflow.version,
            payload_json=request.payload_json,
            initial_state=dict(request.initial_state),
            session_id=request.session_id,
            user_id=request.user_id,
            budget=request.budget,
        )

    @classmethod
    def unpin(cls, pinned: bytes) -> Definition:
        """Return the definition that was stored, by this version or an earlier one.

        Raises:
            Unable: it is of another kind, or a newer version.
            ValueError: it is damaged.

        """
        return cls.model_validate(unpinned(pinned, KIND, VERSION))

    def started(self) -> WorkflowStart:
        """Return the payload of the event that a run begins with."""
        return WorkflowStart(payload_json=self.payload_json, code_version=self.code_version)
