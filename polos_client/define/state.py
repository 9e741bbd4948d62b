"""WorkflowState: what a workflow's code keeps in `ctx.state`."""

from __future__ import annotations

from pydantic import BaseModel, ConfigDict


class WorkflowState(BaseModel):
    """The base of a workflow's state: `class Cart(WorkflowState): items: list[str] = []`.

    `ctx.state` is made of the start's `initial_state` each time that the code runs, so change it
    between steps, not in functions of steps: those do not run again.
    """

    model_config = ConfigDict(validate_assignment=True)
