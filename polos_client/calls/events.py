"""Reads the events of any run."""

from __future__ import annotations

from collections.abc import AsyncGenerator
from typing import TYPE_CHECKING, Any

from polos_client.errors import InvalidRequest
from polos_client.event import Event
from polos_client.unbuilt import refuse

if TYPE_CHECKING:
    from polos_client.calls.connection import Connection

_MAX_SEQUENCE = 2**63 - 1
"""The largest cursor that the protocol can carry."""


def stream_workflow(
    client: Connection,
    workflow_id: str | None = None,
    workflow_run_id: str | None = None,
    last_sequence_id: int | None = None,
    last_timestamp: Any = None,
) -> AsyncGenerator[Event, None]:
    """Return a run's events, until its terminal event; each once, over lost connections.

    Args:
        client: where the service is.
        workflow_id: the agent of the run, for the topic of the events. None: the service says it.
        workflow_run_id: the run. Required.
        last_sequence_id: the cursor to begin after; default: the start.
        last_timestamp: not built yet.

    Raises:
        DefinitionError: `last_timestamp` was given.
        InvalidRequest: no run is named, or the cursor is not a whole number from 0 to 2^63 - 1.
        CallError: the service refused: there is no such run, for example.
        ConnectionLost: the service could not be reached, or broke its protocol.

    """
    refuse("events.stream_workflow", {"last_timestamp": last_timestamp})
    if not workflow_run_id:
        given = f" ({workflow_id!r} was given as workflow_id)" if workflow_id else ""
        raise InvalidRequest(
            {"workflow_run_id": f"is missing{given}; pass workflow_run_id=handle.id"}
        )
    after = 0 if last_sequence_id is None else last_sequence_id
    if type(after) is not int:
        raise InvalidRequest({"last_sequence_id": f"must be a whole number, not {after!r:.80}"})
    if after < 0:
        raise InvalidRequest({"last_sequence_id": f"is {after}; it cannot be negative"})
    if after > _MAX_SEQUENCE:
        raise InvalidRequest({"last_sequence_id": f"is {after}; no run has that many events"})
    from polos_client.calls import follow  # noqa: PLC0415 - grpc loads only when read
    from polos_client.calls.connection import checked_client, checked_id  # noqa: PLC0415

    run_id = checked_id(workflow_run_id)
    return follow.events(checked_client(client), run_id, workflow_id, after=after)
