"""Open waits, and how they are answered."""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

from polos.v1 import run_pb2
from polos.v1 import run_service_pb2 as rpc
from polos.v1.run_service_pb2_grpc import RunServiceStub
from polos_client.calls.connection import Connection, checked_id
from polos_client.calls.start import payload_json, request_id_or_new
from polos_client.errors import InvalidRequest
from polos_client.event import as_object
from polos_client.waits import wait_kind, wait_named


@dataclass(frozen=True, kw_only=True, slots=True)
class Wait:
    """A wait of a run that is open, and that somebody can answer.

    Attributes:
        run_id: the run that waits.
        workflow_id: the agent or workflow that it executes.
        step_key: the wait's key, unique in the run.
        wait_id: the sequence of the event with which the wait began, unique in the run's log.
        kind: "suspend" or "approval".
        data: what the run shows to whoever answers.
        created_at: when the wait began, in UTC.
        expires_at: when it fails for want of an answer, in UTC; None: never.

    """

    run_id: str
    workflow_id: str
    step_key: str
    wait_id: int
    kind: str
    data: dict[str, Any] = field(default_factory=dict)
    created_at: datetime
    expires_at: datetime | None = None

    @classmethod
    def of(cls, wait: run_pb2.Wait) -> Wait:
        """Return the wait that a message describes."""
        expires = wait.HasField("expire_time")
        return cls(
            run_id=wait.run_id,
            workflow_id=wait.workflow_id,
            step_key=wait.step_key,
            wait_id=wait.wait_id,
            kind=wait_kind(wait.kind),
            data=as_object(wait.data_json),
            created_at=wait.create_time.ToDatetime(tzinfo=UTC),
            expires_at=wait.expire_time.ToDatetime(tzinfo=UTC) if expires else None,
        )


MAX_ID = 2**63 - 1
"""The largest id of a wait that can be sent."""


def is_unicode(text: str) -> bool:
    """Return whether a text can be sent: it has no half of a surrogate pair."""
    return not any("\ud800" <= one <= "\udfff" for one in text)


async def resume(
    connection: Connection,
    run_id: str,
    step_key: str | None,
    data: Any,
    *,
    wait_id: int | None,
    request_id: str | None,
    workflow_id: str = "",
) -> None:
    """Answer a wait: see `PolosClient.resume`."""
    if isinstance(step_key, str):
        step_key, named = wait_named(step_key)
        wait_id = named if wait_id is None else wait_id
    wrong: dict[str, str] = {}
    if not isinstance(workflow_id, str):
        wrong["workflow_id"] = f"must be a text, not {workflow_id!r:.80}"
    if not isinstance(step_key, str | None):
        wrong["step_key"] = f"must be a text, not {step_key!r:.80}"
    elif not is_unicode(step_key or ""):
        wrong["step_key"] = f"is not valid Unicode text: {step_key!r:.80}"
    if wait_id is not None and not (type(wait_id) is int and wait_id > 0):
        wrong["wait_id"] = f"must be a whole number above 0, not {wait_id!r:.80}"
    elif wait_id is not None and wait_id > MAX_ID:
        wrong["wait_id"] = f"is {wait_id}; at most {MAX_ID} can be sent"
    if not step_key and wait_id is None:
        wrong["step_key"] = "is missing: name the wait by its key, or by wait_id"
    if wrong:
        raise InvalidRequest(wrong)
    request = rpc.ResumeRunRequest(
        run_id=checked_id(run_id),
        step_key=step_key or "",
        wait_id=wait_id or 0,
        data_json=payload_json("data", data),
        request_id=request_id_or_new(request_id),
        workflow_id=workflow_id,
    )
    await connection.call(lambda channel: RunServiceStub(channel).ResumeRun, request)
