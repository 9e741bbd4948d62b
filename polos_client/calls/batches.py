"""Several runs started by one call."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Protocol

from polos_client.calls import running
from polos_client.calls.connection import Connection
from polos_client.calls.handle import ExecutionHandle
from polos_client.calls.start import Start
from polos_client.errors import InvalidRequest


class Entry(Protocol):
    """One entry of a batch: `BatchWorkflowInput` is one."""

    id: str
    payload: Any
    initial_state: Any
    run_timeout_seconds: float | None


async def invoke_all(
    client: Connection,
    workflows: Sequence[Entry],
    session_id: str | None,
    user_id: str | None,
) -> list[ExecutionHandle]:
    """Start runs: see `PolosClient.batch_invoke`."""
    starts = []
    for number, one in enumerate(workflows):
        if not all(hasattr(one, name) for name in Entry.__annotations__):
            told = f"must be a BatchWorkflowInput, not {type(one).__name__}"
            raise InvalidRequest({f"workflows[{number}]": told})
        start = Start(
            workflow_id=one.id,
            initial_state=one.initial_state,
            session_id=session_id,
            user_id=user_id,
            run_timeout_seconds=one.run_timeout_seconds,
        )
        starts.append((start, one.payload))
    return [await running.invoke_by_id(client, start, payload) for start, payload in starts]
