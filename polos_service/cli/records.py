"""A run's record as programs and people read it."""

from __future__ import annotations

import json
import re
from datetime import UTC, datetime, timedelta
from enum import Enum
from typing import TYPE_CHECKING, Any

import typer

from polos_service.cli.output import brief
from polos_service.cli.table import flat

if TYPE_CHECKING:
    from google.protobuf.timestamp_pb2 import Timestamp

    from polos.v1.run_pb2 import Run, RunState, ToolResult
    from polos_service.cli.history import History

INPUT = 60
"""Characters of an input that a list shows at most."""

_UNITS = {"s": "seconds", "m": "minutes", "h": "hours", "d": "days"}
_LENGTH = re.compile(r"(\d{1,6})([smhd])")


class State(Enum):
    """Where a run stands, as `polos.v1.RunState` names it."""

    QUEUED = "queued"
    RUNNING = "running"
    SUSPENDED = "suspended"
    COMPLETED = "completed"
    FAILED = "failed"
    CANCELLED = "cancelled"

    @property
    def on_wire(self) -> RunState.ValueType:
        """The enum's value in messages."""
        from polos.v1.run_pb2 import RunState  # noqa: PLC0415 - protobuf: `--help` needs none

        return RunState.Value(f"RUN_STATE_{self.name}")


STATES = ", ".join(state.value for state in State)
"""The names of all states."""


def state_of(run: Run) -> str:
    """Return where the run stands; "unknown" if a later version of the service says it."""
    return state_name(run.state)


def state_name(value: RunState.ValueType) -> str:
    """Return the name of a state; "unknown" if a later version of the service says it."""
    names = {state.on_wire: state.value for state in State}
    return names.get(value, "unknown")


def as_dict(run: Run) -> dict[str, Any]:
    """Return the record; what has no value is absent."""
    record = {
        "run_id": run.run_id,
        "parent_run_id": run.parent_run_id or None,
        "step_key": run.parent_step_key or None,
        "agent_id": run.workflow_id,
        "state": state_of(run),
        "session_id": run.session_id if run.HasField("session_id") else None,
        "user_id": run.user_id if run.HasField("user_id") else None,
        "streaming": run.streaming,
        "created_at": iso(run.create_time),
        "started_at": iso(run.start_time) if run.HasField("start_time") else None,
        "finished_at": iso(run.finish_time) if run.HasField("finish_time") else None,
        "latest_sequence": run.latest_sequence,
        "blocked_reason": run.blocked_reason if run.HasField("blocked_reason") else None,
        "input_preview": run.input.preview or None,
    }
    return {name: value for name, value in record.items() if value is not None}


def full_dict(run: Run, history: History) -> dict[str, Any]:
    """Return the record with what happened in the run, and how it ended."""
    from polos_client.calls.record import input_of  # noqa: PLC0415 - likewise
    from polos_client.event import Event  # noqa: PLC0415 - protobuf: `--help` needs none

    record = as_dict(run)
    if (given := input_of(run)) is not None:
        record["input"] = given
    if run.HasField("outcome"):
        outcome = Event(run.outcome)
        record["outcome"] = {"event_type": outcome.event_type, **outcome.data}
    record["tool_results"] = [tool_result(one) for one in run.tool_results]
    if run.tool_results_omitted:
        record["tool_results_omitted"] = run.tool_results_omitted
    if run.early_answers:
        record["early_answers"] = list(run.early_answers)
    return record | history.as_dict()


def tool_result(result: ToolResult) -> dict[str, Any]:
    """Return how a tool's call ended."""
    from polos_client.event import parsed  # noqa: PLC0415 - protobuf: `--help` needs none

    call = {
        "tool_name": result.tool_call.name,
        "step_key": result.step_key,
        "input": parsed(result.tool_call.arguments_json or "{}"),
    }
    if result.HasField("failure"):
        return {**call, "error": result.failure.message}
    return {**call, "result": parsed(result.result_json)}


def row_of(run: Run, now: datetime) -> list[str]:
    """Return the run as a table's row, as `COLUMNS` of `polos runs list` names the cells."""
    created = run.create_time.ToDatetime(tzinfo=UTC)
    ended = run.finish_time.ToDatetime(tzinfo=UTC) if run.HasField("finish_time") else None
    took = span(ended - created) if ended else ""
    state, age = state_of(run), span(now - created)
    given = brief(run.input.preview, INPUT)
    return [
        *(run.run_id, run.workflow_id, state, age, took),
        *(run.session_id, given, run.blocked_reason),
    ]


def described(record: dict[str, Any], history: History) -> str:
    """Return what `full_dict` made, to be read."""
    outcome = record.get("outcome", {})
    apart = {"outcome", "tool_results", "input", *history.as_dict()}
    now = datetime.now(UTC)
    facts = [(name, fact(name, record[name], now)) for name in record if name not in apart]
    facts += [(name, fact(name, outcome[name], now)) for name in outcome if name[0] != "_"]
    lines = [f"{name.replace('_', ' '):<16} {value}" for name, value in facts]
    happened = [history.lines[sequence] for sequence in sorted(history.lines)]
    return "\n".join([*lines, *map(told, record["tool_results"]), *happened])


def fact(name: str, value: Any, now: datetime) -> str:
    """Return a value of the record or the outcome, with its age or its unit."""
    match name:
        case "created_at" | "started_at" | "finished_at":
            return f"{value} ({span(now - datetime.fromisoformat(value))} ago)"
        case "duration":
            return f"{value:.2f} s"
        case "cost" | "spent_cost":
            return f"${value:.6f}"
        case "usage" | "spent":
            return f"{value['input_tokens']} tokens in, {value['output_tokens']} out"
        case "input_preview":
            return flat(value)
    return text_of(value)


def text_of(value: Any) -> str:
    """Return a value of the outcome: of a result its text alone, the rest stands beside it."""
    if isinstance(value, dict) and "result" in value:
        value = value["result"]
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)


def told(result: dict[str, Any]) -> str:
    """Return a tool's call on a line."""
    ended = f"failed: {result['error']}" if "error" in result else text_of(result["result"])
    arguments = json.dumps(result["input"], ensure_ascii=False)
    return f"tool {result['step_key']}({arguments}) -> {ended}"


def state_named(text: str) -> State:
    """Return the state that `--state` names."""
    try:
        return State(text)
    except ValueError:
        raise typer.BadParameter(f"{text!r} is not one of {STATES}") from None


def states(incomplete: str) -> list[str]:
    """Return the names of states that the shell may complete to."""
    return [state.value for state in State if state.value.startswith(incomplete)]


def past_time(text: str) -> datetime:
    """Return the time that `--since` or `--before` names, in UTC; one without a zone is local."""
    try:
        if match := _LENGTH.fullmatch(text):
            return datetime.now(UTC) - timedelta(**{_UNITS[match[2]]: int(match[1])})
        return datetime.fromisoformat(text).astimezone(UTC)
    except (ValueError, OverflowError):
        raise typer.BadParameter(
            f"{text!r} is neither an age like 90s, 15m, 2h or 7d nor a time like 2026-01-31T12:00"
        ) from None


def expiry_time(text: str) -> datetime:
    """Return the time that `--expires` names, in UTC; one without a zone is local."""
    try:
        if match := _LENGTH.fullmatch(text):
            return datetime.now(UTC) + timedelta(**{_UNITS[match[2]]: int(match[1])})
        return datetime.fromisoformat(text).astimezone(UTC)
    except (ValueError, OverflowError):
        raise typer.BadParameter(
            f"{text!r} is neither a length of time like 12h or 90d nor a time like 2027-01-31T12:00"
        ) from None


def span(time: timedelta) -> str:
    """Return a length of time in the unit that fits it; seconds with tenths: `2.5 s`, `3 h`."""
    seconds = max(time.total_seconds(), 0.0)
    for unit, length in (("d", 86_400), ("h", 3_600), ("min", 60)):
        if seconds >= 2 * length:
            return f"{seconds / length:.0f} {unit}"
    return f"{seconds:.1f} s"


def iso(time: Timestamp) -> str:
    """Return a time as ISO 8601 in UTC."""
    return time.ToDatetime(tzinfo=UTC).isoformat()
