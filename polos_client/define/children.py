"""What a workflow's code starts, and what batches start: agents with their input, and entries."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

from pydantic import BaseModel


class Defined(Protocol):
    """An Agent or a Workflow."""

    @property
    def id(self) -> str:
        """Its id."""
        ...


@dataclass(frozen=True, slots=True)
class AgentRunConfig:
    """An agent with an input, for `ctx.step` and batches; `Agent.with_input` makes it.

    Attributes:
        agent: the agent.
        input: the user's message, or a conversation.
        initial_state: what the agent's tools find in their context.
        streaming: whether the run's stream has the agent's text and tool calls as they are
            generated.
        run_timeout_seconds: how long the agent may take, from 0.001 s to 100 years; None: its own
            deadline.
        provider_kwargs: model parameters of this run.
        session_id: groups runs, if no run starts it; inside a run, the session of that run applies.
        user_id: the user that the run is for, likewise.

    """

    agent: Defined
    input: str | Sequence[Mapping[str, Any]]
    initial_state: Mapping[str, Any] | BaseModel | None = None
    streaming: bool = False
    run_timeout_seconds: float | None = None
    provider_kwargs: Mapping[str, Any] = field(default_factory=dict)
    session_id: str | None = None
    user_id: str | None = None


class BatchWorkflowInput(BaseModel):
    """One entry of a batch.

    Attributes:
        id: the agent or workflow.
        payload: its payload: JSON values or a model; for an agent
            `{"input": ..., "streaming": False, "provider_kwargs": {...}}`.
        initial_state: its state; None: empty.
        run_timeout_seconds: how long it may take, from 0.001 s to 100 years; None: its own
            deadline.

    """

    id: str
    payload: Any = None
    initial_state: Any = None
    run_timeout_seconds: float | None = None


class BatchStepResult(BaseModel):
    """How one entry of a batch ended.

    Attributes:
        workflow_id: the agent or workflow.
        success: whether it ended with a result.
        result: what a workflow returned, or the `AgentResult` of an agent; None if it failed.
        error: why it failed, in a sentence; None if it did not.

    """

    workflow_id: str
    success: bool
    result: Any = None
    error: str | None = None
