"""What a step of a workflow or a tool runs or starts: an agent or a workflow, with its input."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from polos_client.errors import StepExecutionError
from polos_service.workflows.arguments import check_seconds


@dataclass(frozen=True, slots=True)
class Invocation:
    """One agent or workflow to run.

    Attributes:
        target_id: its id.
        payload: what it is given: JSON values or a model.
        initial_state: its initial state; None: empty.
        timeout: seconds that it may take; None: its own deadline.

    """

    target_id: str
    payload: Any
    initial_state: Any = None
    timeout: float | None = None


def checked_invocation(
    key: str, target: Any, payload: Any, initial_state: Any, timeout: Any
) -> Invocation:
    """Return what the step `key` runs; `target` is an Agent, a Workflow, or the id of one.

    Raises:
        StepExecutionError: the target is something else, or the timeout is out of bounds.

    """
    target_id = target if isinstance(target, str) else getattr(target, "id", None)
    if not isinstance(target_id, str) or not target_id:
        raise StepExecutionError(
            f"{target!r:.80} of {key!r} must be a workflow, an agent, or the id of one."
        )
    check_seconds(key, "run_timeout_seconds", timeout)
    return Invocation(target_id, payload, initial_state, timeout)
