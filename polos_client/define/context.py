"""What a tool knows of the run that calls it."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, NoReturn

from polos_client.unbuilt import CONTEXT, NotBuiltAttributeError


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

    if not TYPE_CHECKING:  # checkers refuse these names by themselves

        def __getattr__(self, name: str) -> NoReturn:
            if name in CONTEXT:
                raise NotBuiltAttributeError(f"ctx.{name} is not built yet in this version")
            raise AttributeError(f"a WorkflowContext has no attribute {name!r}")
