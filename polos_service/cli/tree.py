"""The tree of a run and the runs below it: who works, who waits for what, and what it costs."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

from polos_service.cli.output import brief
from polos_service.cli.records import iso, span, state_name
from polos_service.cli.waits import kind_name, local

if TYPE_CHECKING:
    from google.protobuf.timestamp_pb2 import Timestamp

    from polos.v1.run_pb2 import OpenWait, RunNode, RunTree

SHOWN = 5
"""Steps, and waits, of a run that its line names at most."""


def tree_dicts(tree: RunTree) -> list[dict[str, Any]]:
    """Return the runs for a program; what has no value is absent."""
    return [node_dict(node) for node in tree.nodes]


def node_dict(node: RunNode) -> dict[str, Any]:
    """Return a run of a tree for a program."""
    from polos_client.event import dollars, usage_fields  # noqa: PLC0415 - slow for `--help`

    found: dict[str, Any] = {
        "run_id": node.run_id,
        "parent_run_id": node.parent_run_id,
        "step_key": node.parent_step_key,
        "agent_id": node.workflow_id,
        "kind": node.kind,
        "state": state_name(node.state),
        "created_at": iso(node.create_time),
        "finished_at": iso(node.finish_time) if node.HasField("finish_time") else None,
        "usage": usage_fields(node.usage) if node.HasField("usage") else None,
        "cost": dollars(node.cost) if node.HasField("cost") else None,
        "error": node.error,
        "open_steps": [
            {"step_key": one.step_key, "step_type": one.step_type, "since": iso(one.start_time)}
            for one in node.open_steps
        ],
        "open_waits": [
            {
                "step_key": one.step_key,
                "wait_id": one.wait_id,
                "kind": kind_name(one.kind),
                "since": iso(one.create_time),
            }
            for one in node.open_waits
        ],
    }
    return {name: value for name, value in found.items() if value not in (None, "", [])}


def tree_lines(tree: RunTree, now: datetime) -> list[str]:
    """Return a line for each run, indented below its parent; nothing for a run that is alone."""
    if len(tree.nodes) < 2:  # noqa: PLR2004 - none at all: the service is older
        return []
    root = tree.nodes[0]
    by_parent: dict[str, list[RunNode]] = {}
    for node in tree.nodes[1:]:
        by_parent.setdefault(node.parent_run_id, []).append(node)
    lines: list[str] = []
    left = [(root, "", "")]
    while left:  # as many generations as there may be
        node, before, indent = left.pop()
        lines.append(before + line_of(node, now))
        below = by_parent.get(node.run_id, [])
        for child in reversed(below):
            last = child is below[-1]
            left.append(
                (child, indent + ("└ " if last else "├ "), indent + ("  " if last else "│ "))
            )
    if tree.omitted:
        lines.append(f"and {tree.omitted} more: `polos runs show` with the id of a child has them")
    return lines


def line_of(node: RunNode, now: datetime) -> str:
    """Return what is told of a run: its step, what it does or waits for, and what it costs."""
    from polos_client.event import dollars  # noqa: PLC0415 - protobuf: `--help` needs none

    step = f"{node.parent_step_key}: " if node.parent_step_key else ""
    ended = node.HasField("finish_time")
    since = moment(node.create_time)
    parts = [f"{step}{node.workflow_id} {state_name(node.state)}", *doing(node)]
    parts.append(span((moment(node.finish_time) if ended else now) - since))
    if node.HasField("usage"):
        usage = node.usage
        parts.append(f"{usage.input_tokens} tokens in, {usage.output_tokens} out")
    if node.HasField("cost"):
        parts.append(f"${dollars(node.cost):.6f}")
    if node.error:
        parts.append(brief(node.error))
    return " · ".join([*parts, node.run_id])


def doing(node: RunNode) -> list[str]:
    """Return what a run works at and waits for, as far as that is not told by a run below it."""
    steps = [one.step_key for one in node.open_steps if one.step_type not in ("agent", "workflow")]
    found = [f"works at {listed(steps)}"] if steps else []
    if node.open_waits:
        found.append(f"waits for {listed([awaited(one) for one in node.open_waits])}")
    return found


def awaited(wait: OpenWait) -> str:
    """Return what a run waits for: the time, or the answer with its key and id."""
    if kind_name(wait.kind) == "timer":
        return f"{wait.step_key} until {local(wait.expire_time)}"
    return f"{wait.step_key} ({kind_name(wait.kind)} {wait.wait_id})"


def listed(names: list[str]) -> str:
    """Return the first names, and how many more there are."""
    more = [f"{len(names) - SHOWN} more"] if len(names) > SHOWN else []
    return ", ".join([*names[:SHOWN], *more])


def moment(time: Timestamp) -> datetime:
    """Return a time in UTC."""
    return time.ToDatetime(tzinfo=UTC)
