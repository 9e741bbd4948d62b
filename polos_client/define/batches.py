"""Several runs started by one call, from outside of runs."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from polos_client.define.children import AgentRunConfig, BatchWorkflowInput
from polos_client.define.inside import require_outside
from polos_client.errors import InvalidRequest

if TYPE_CHECKING:
    from polos_client.calls.client import PolosClient
    from polos_client.calls.handle import ExecutionHandle


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
    from polos_client.calls import running  # noqa: PLC0415 - grpc loads only where something runs

    require_outside("batch_agent_invoke", "ctx.step.batch_agent_invoke")
    for number, config in enumerate(configs):
        if not isinstance(config, AgentRunConfig):
            told = f"must be an AgentRunConfig, not {type(config).__name__}"
            raise InvalidRequest({f"configs[{number}]": told})
        running.prepare(client, config.agent)
    return [await _start(client, config) for config in configs]


async def _start(client: PolosClient, config: AgentRunConfig) -> ExecutionHandle:
    from polos_client.calls import running  # noqa: PLC0415
    from polos_client.calls.start import Start, warn_of_session  # noqa: PLC0415

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
