"""Events of waits and of users: their types, and what `_metadata` says of them.

Their `data` is what the user's code or whoever answered has given, so what the service knows
stands in `_metadata`.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from typing import Any

from polos.v1 import event_pb2 as pb
from polos_client.values import enum_name, iso

_OUTCOMES = {"data_json": "answered", "expired": "expired", "cancelled": "cancelled"}
"""How a wait has ended, by the field that says it; the time of a timer has elapsed."""


_UNANSWERED = (pb.WAIT_KIND_TIMER, pb.WAIT_KIND_RUN)
"""The kinds of waits that nobody can answer."""


def wait_kind(value: pb.WaitKind.ValueType) -> str:
    """Return the kind of a wait: "timer", "suspend", "approval" or "run"."""
    return enum_name(pb.WaitKind, "WAIT_KIND_", value)


def _suspended(event: pb.Event) -> dict[str, Any]:
    wait = event.suspended
    told: dict[str, Any] = {
        "step_key": wait.step_key,
        "wait_id": event.sequence,
        "kind": wait_kind(wait.kind),
    }
    if wait.HasField("expire_time"):
        told["expires_at"] = iso(wait.expire_time)
    return told


def _resumed(event: pb.Event) -> dict[str, Any]:
    wait = event.resumed
    outcome = _OUTCOMES.get(wait.WhichOneof("outcome") or "", "elapsed")
    if wait.kind == pb.WAIT_KIND_RUN and outcome == "answered":
        outcome = "ended"
    told = {
        "step_key": wait.step_key,
        "wait_id": wait.wait_id,
        "kind": wait_kind(wait.kind),
        "outcome": outcome,
    }
    if wait.request_id:
        told["request_id"] = wait.request_id
    if wait.principal:
        told["principal"] = wait.principal
    if wait.given_up:
        told["given_up"] = True
    return told


def _custom(event: pb.Event) -> dict[str, Any]:
    return {"step_key": event.custom.step_key, "attempt": event.custom.attempt}


METADATA: Mapping[str, Callable[[pb.Event], dict[str, Any]]] = {
    "suspended": _suspended,
    "resumed": _resumed,
    "custom": _custom,
}
"""Makes what `_metadata` has besides the run, by the name of the payload."""


SUSPEND, RESUME = PREFIXES = ("suspend_", "resume_")
"""What the types of waits and of their ends begin with."""


_APPROVAL = re.compile(r"approve_(?P<key>.+/approve)@(?P<id>[1-9][0-9]*)", re.ASCII | re.DOTALL)
"""The name of an approval."""


def wait_named(name: str) -> tuple[str, int | None]:
    """Return the key, and the id if it has one, of the wait that the type of an event names."""
    approval = _APPROVAL.fullmatch(name)
    return (approval["key"], int(approval["id"])) if approval else (name, None)


def _named_after(kind: str, prefix: str) -> Callable[[pb.Event], str]:
    """Return what names an event after its wait, if somebody can answer it.

    A wait is named by its key. An approval's name begins with `approve_` and the tool, as in the
    original SDK, and ends with its id, because an answer says which call was shown.
    """

    def name(event: pb.Event) -> str:
        wait = getattr(event, kind)
        if wait.kind in _UNANSWERED:
            return kind
        if wait.kind != pb.WAIT_KIND_APPROVAL:
            return f"{prefix}{wait.step_key}"
        wait_id = event.sequence if kind == "suspended" else wait.wait_id
        return f"{prefix}approve_{wait.step_key}@{wait_id}"

    return name


TYPES: Mapping[str, Callable[[pb.Event], str]] = {
    "suspended": _named_after("suspended", SUSPEND),
    "resumed": _named_after("resumed", RESUME),
    "custom": lambda event: event.custom.type or "custom",
}
"""Makes an event's type where the name of its payload does not tell it."""
