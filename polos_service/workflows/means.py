"""What the code of a run works with besides its own run: time, other runs, what is loaded."""

from __future__ import annotations

from dataclasses import dataclass

from polos_service.runs.clock import Clock
from polos_service.runs.context import RunContext
from polos_service.workflows.children import Children, Find
from polos_service.workflows.independent import Independent, Others
from polos_service.workflows.steps import Resume, WorkflowSteps


@dataclass(frozen=True, slots=True)
class Means:
    """The means of all runs of a service.

    Attributes:
        clock: the time.
        resume: answers a wait of another run.
        find: finds what code starts.
        others: the runs with logs of their own that code starts and waits for.

    """

    clock: Clock
    resume: Resume
    find: Find
    others: Others

    def children(self, ctx: RunContext, session_id: str | None, user_id: str | None) -> Children:
        """Return what begins the children of a run, for this session and user."""
        return Children(ctx.once(), self.find, session_id, user_id)

    def steps(self, ctx: RunContext, session_id: str | None, user_id: str | None) -> WorkflowSteps:
        """Return `ctx.step` of a run; what it starts is for this session and user."""
        children = self.children(ctx, session_id, user_id)
        independent = Independent(ctx.once(), self.clock, children, self.others)
        return WorkflowSteps(ctx, self.clock, self.resume, children, independent)
