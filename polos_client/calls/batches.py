"""Several runs started by one call, from outside of runs."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from polos_client.calls import running
from polos_client.calls.handle import ExecutionHandle
from polos_client.calls.start import Start, warn_of_session
from polos_client.define.children import AgentRunConfig, BatchWorkflowInput
from polos_client.define.inside import require_outside
from polos_client.errors import InvalidRequest

if TYPE_CHECKING:
    from polos_client.calls.client import PolosClient


async def batch_invoke(
    client: PolosClient,
    workflows: Sequence[BatchWorkflowInput],
    session_id: str | None = None,
    user_id: str | None = None,
) -> list[ExecutionHandle]:
    """Start runs of agents and workflows: see `PolosClient.batch_invoke`.

    Raises:
        RuntimeError: it is called inside a run.

    """
    require_outside("batch_invoke", "ctx.step.batch_invoke")
    return await client.batch_invoke(workflows, session_id, user_id)


async def batch_agent_invoke(
    client: PolosClient, configs: Sequence[AgentRunConfig]
) -> list[ExecutionHandle]:
    """Start runs of agents, one after the other, and return their handles in order.

    If one is refused, its error is raised; those before it go on.

    Args:
        client: where the service is.
        configs: agents with their inputs: `agent.with_input(...)`.

    Raises:
        InvalidRequest: an entry is of another type, and nothing was started; or an argument
            cannot be used.
        CallError: the service refused a start.
        ConnectionLost: the service could not be reached.
        RuntimeError: it is called inside a run.

    """
    require_outside("batch_agent_invoke", "ctx.step.batch_agent_invoke")
    for config in checked("configs", AgentRunConfig, configs):
        running.prepare(client, config.agent)
    return [await _agent(client, config) for config in configs]


async def invoke_all(
    client: PolosClient,
    workflows: Sequence[BatchWorkflowInput],
    session_id: str | None,
    user_id: str | None,
) -> list[ExecutionHandle]:
    """Start runs: see `PolosClient.batch_invoke`."""
    starts = [
        Start(
            workflow_id=one.id,
            initial_state=one.initial_state,
            session_id=session_id,
            user_id=user_id,
            run_timeout_seconds=one.run_timeout_seconds,
        )
        for one in checked("workflows", BatchWorkflowInput, workflows)
    ]
    return [
        await running.invoke_by_id(client, start, one.payload)
        for start, one in zip(starts, workflows, strict=True)
    ]


async def _agent(client: PolosClient, config: AgentRunConfig) -> ExecutionHandle:
    warn_of_session(config.session_id, stacklevel=4)
    start = Start(
        workflow_id=config.agent.id,
        input=config.input,
        initial_state=config.initial_state,
        session_id=config.session_id,
        user_id=config.user_id,
        run_timeout_seconds=config.run_timeout_seconds,
        provider_options=config.provider_kwargs,
    )
    return await running.invoke(client, start, streaming=config.streaming)


def checked(name: str, kind: type[Any], entries: Sequence[Any]) -> Sequence[Any]:
    """Return the entries of a batch.

    Raises:
        InvalidRequest: one is of another type.

    """
    for number, one in enumerate(entries):
        if not isinstance(one, kind):
            told = f"must be a {kind.__name__}, not {type(one).__name__}"
            raise InvalidRequest({f"{name}[{number}]": told})
    return entries
