"""An answer to a wait: what it says, which wait it is for, and what it is refused with."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from polos.v1.event_pb2 import Event, Resumed
from polos.v1.run_pb2 import Wait
from polos_client.errors import (
    AlreadyAnswered,
    AmbiguousWait,
    InvalidRequest,
    WaitExpired,
    WaitNotOpen,
)
from polos_client.wire import root_of
from polos_service.runs.answers import Answer

LISTED = 200
"""Characters of the waits that the error of an ambiguous answer lists."""

HAS_ENDED = "The run has ended."
"""Why a wait is not open any more."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Reply:
    """An answer to a wait, as a caller gives it.

    Attributes:
        run_id: the root run, or the child that waits.
        step_key: the wait's key; empty if `wait_id` names the wait.
        wait_id: the wait's id; 0 if its key names it.
        data_json: the answer as JSON text.
        data: the same as a value.
        request_id: tells a repeated answer; empty if there is none.
        workflow_id: what the root run, or the one that waits, must execute; empty: anything.

    """

    run_id: str
    step_key: str
    wait_id: int
    data_json: str
    data: Any
    request_id: str
    workflow_id: str = ""

    @property
    def root(self) -> str:
        """The root run."""
        return root_of(self.run_id)

    def names(self, wait: Wait) -> bool:
        """Return whether it is for this wait, of a run that it names by itself or by its root."""
        if self.wait_id and self.wait_id != wait.wait_id:
            return False
        if self.step_key and self.step_key != wait.step_key:
            return False
        return self.run_id in (self.root, wait.run_id)


def require_executed(reply: Reply, *workflow_ids: str) -> None:
    """Refuse an answer to a run of another agent or workflow than it names.

    Raises:
        InvalidRequest: neither the root run nor the one that waits executes what it names.

    """
    if reply.workflow_id and reply.workflow_id not in workflow_ids:
        executed = " and ".join(repr(one) for one in sorted({*workflow_ids} - {""}))
        what = f"is {reply.workflow_id!r:.80}, but run {reply.run_id} executes {executed}"
        raise InvalidRequest({"workflow_id": what})


def opened(waits: Sequence[Wait]) -> str:
    """Return in a sentence which waits are open: the first of them, if they are many."""
    if not waits:
        return "No wait of the run is open."
    names: list[str] = []
    for one in waits:
        names.append(f"{one.step_key!r:.80} (wait_id {one.wait_id})")
        if sum(map(len, names)) > LISTED:
            break
    more = len(waits) - len(names)
    return f"Open: {', '.join(names)}{f' and {more} more' if more else ''}."


def require_own(reply: Reply, answer: Answer, said: Answer, wait: Wait | None) -> None:
    """Return if it is the caller's own answer that counts.

    Raises:
        AlreadyAnswered, WaitExpired, WaitNotOpen: another was first.

    """
    if said == answer:
        return
    if said.ending == "expired":
        raise expired(reply, wait)
    if said.ending == "cancelled":
        raise not_open(reply, "The run no longer waits for it.")
    raise AlreadyAnswered(
        f"The wait {name_of(reply, wait)} of run {reply.run_id} has an answer.",
        run_id=reply.run_id,
        step_key=wait.step_key if wait else reply.step_key,
    )


def wrong_approval(data: Any) -> str:
    """Return what is wrong with the answer to an approval; empty if nothing is."""
    if not isinstance(data, dict):
        return 'is not a JSON object, such as {"approved": true}'
    unknown = data.keys() - {"approved", "feedback", "arguments"}
    if unknown:
        return f"has the unknown member {min(unknown)!r:.80}"
    if not isinstance(data.get("approved"), bool):
        return "does not say whether it is approved: `approved` must be true or false"
    if not isinstance(data.get("feedback", ""), str):
        return "has a `feedback` that is not text"
    if "arguments" in data and not (data["approved"] and isinstance(data["arguments"], dict)):
        return "may have `arguments`, an object, only where `approved` is true"
    return ""


def wait_of(event: Event) -> Wait:
    """Return the wait that an event begins."""
    told = event.suspended
    return Wait(
        run_id=event.run_id,
        step_key=told.step_key,
        wait_id=event.sequence,
        kind=told.kind,
        data_json=told.data_json,
        create_time=event.create_time,
        expire_time=told.expire_time if told.HasField("expire_time") else None,
        workflow_id=event.workflow_id,
    )


def answer_of(resumed: Resumed) -> Answer:
    """Return the answer that ended a wait, or what else did."""
    kind = resumed.WhichOneof("outcome")
    if kind != "data_json":
        return Answer(ending="cancelled" if kind == "cancelled" else "expired")
    return Answer(
        data_json=resumed.data_json, request_id=resumed.request_id, principal=resumed.principal
    )


def name_of(reply: Reply, wait: Wait | None) -> str:
    """Return how a message names a wait."""
    return repr(wait.step_key if wait else reply.step_key)


def not_open(reply: Reply, why: str) -> WaitNotOpen:
    """Return the error of an answer to a wait that is not open."""
    return WaitNotOpen(why, run_id=reply.run_id, step_key=reply.step_key)


def expired(reply: Reply, wait: Wait | None) -> WaitExpired:
    """Return the error of an answer that comes too late."""
    when = f" at {wait.expire_time.ToJsonString()}" if wait is not None else ""
    return WaitExpired(
        f"The wait {name_of(reply, wait)} of run {reply.run_id} expired{when}.",
        run_id=reply.run_id,
        step_key=wait.step_key if wait else reply.step_key,
    )


def ambiguous(reply: Reply, found: Sequence[Wait]) -> AmbiguousWait:
    """Return the error of an answer that several waits could take."""
    lines: list[str] = []
    for one in found:
        lines.append(f"{one.wait_id} {one.run_id}")
        if sum(map(len, lines)) > LISTED:
            break
    return AmbiguousWait(
        f"{len(found)} open waits of run {reply.run_id} have the key {reply.step_key!r}. Name one "
        f"by its wait_id, for example {found[0].wait_id} of run {found[0].run_id}.",
        run_id=reply.run_id,
        step_key=reply.step_key,
        waits="\n".join(lines),
    )
