"""Whether code is that of a run: it starts other runs as steps of its own."""

from __future__ import annotations

from contextvars import ContextVar

inside_run: ContextVar[bool] = ContextVar("polos_inside_run", default=False)
"""Whether the code that runs here is that of a run: of a workflow, of a step, or of a tool."""


def require_outside(what: str, instead: str) -> None:
    """Refuse a start in the code of a run.

    Args:
        what: what is called, as it is written: "agent.run".
        instead: what the code of a run calls: "ctx.step.agent_invoke_and_wait".

    Raises:
        RuntimeError: it is called there.

    """
    if inside_run.get():
        raise RuntimeError(
            f"{what} cannot be called inside a run, whose code may run again: it would start "
            f"another run each time. Use {instead}."
        )
