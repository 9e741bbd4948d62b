"""Event: the one projection of protobuf to the documented keys."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from typing import Any

from google.protobuf.duration_pb2 import Duration

from polos.v1 import event_pb2 as pb
from polos.v1.error_pb2 import FailureReason
from polos_client.values import enum_name, iso
from polos_client.waits import METADATA, PREFIXES, TYPES
from polos_client.wire import CHILD_MARK, root_of


class Event:
    """One entry in a run's log.

    Attributes:
        proto: the protobuf message itself, `polos.v1.Event`.

    """

    __slots__ = ("_data", "_run_id", "_workflow_id", "proto")

    def __init__(
        self,
        proto: pb.Event,
        run_id: str | None = None,
        workflow_id: str | None = None,
    ) -> None:
        """Wrap `proto`, read from the log of this run (None: the event is the run's own)."""
        self.proto = proto
        self._run_id = run_id or proto.run_id
        self._workflow_id = workflow_id or proto.workflow_id
        self._data: dict[str, Any] | None = None

    def __repr__(self) -> str:
        return f"<Event {self.id} {self.event_type}>"

    @property
    def id(self) -> str:
        """The root run's id and the sequence, joined by a colon; unique within a service."""
        return f"{root_of(self._run_id)}{CHILD_MARK}{self.proto.sequence}"

    @property
    def sequence_id(self) -> int:
        """Position in the root run's log, from 1; the cursor to resume from."""
        return self.proto.sequence

    @property
    def run_id(self) -> str:
        """The run that it belongs to: the run that was read, or one below it."""
        return self.proto.run_id

    @property
    def topic(self) -> str:
        """The log that was read: `workflow/{workflow_id}/{run_id}` of the root run or the child."""
        return f"workflow/{self._workflow_id}/{self._run_id}"

    @property
    def is_own(self) -> bool:
        """Whether it is of the run that was read, rather than of a run below it."""
        return self.proto.run_id == self._run_id

    @property
    def event_type(self) -> str:
        """The event's type; "unknown" if a later version of the service added it.

        A wait for an answer is `suspend_KEY`, its end is `resume_KEY`, and a user's own event has
        its own type.
        """
        kind = self.proto.WhichOneof("payload") or "unknown"
        return TYPES[kind](self.proto) if kind in TYPES else kind

    @property
    def created_at(self) -> datetime:
        """When the event happened, in UTC, according to the service's clock."""
        return self.proto.create_time.ToDatetime(tzinfo=UTC)

    @property
    def data(self) -> dict[str, Any]:
        """The documented keys of its type, and `_metadata`. Keys without a value are absent."""
        if self._data is None:
            self._data = _project(self.proto)
        return self._data


def is_reserved(event_type: str) -> bool:
    """Return whether a type is one of the service's own, which no event of a user may have."""
    return event_type in _RESERVED or event_type.startswith(PREFIXES)


def parsed(text: str) -> Any:
    """Return the value of a JSON text; the text itself where it is not valid JSON."""
    try:
        return json.loads(text)
    except (ValueError, RecursionError):
        return text


def seconds(duration: Duration) -> float:
    """Return a duration in seconds."""
    return duration.seconds + duration.nanos / 1e9


def dollars(cost: pb.Cost) -> float:
    """Return a cost in US dollars."""
    return cost.usd_micros / 1e6


def usage_fields(usage: pb.Usage) -> dict[str, int]:
    """Return the token counts that are known, by the names of `Usage`."""
    counts = {
        "input_tokens": usage.input_tokens,
        "output_tokens": usage.output_tokens,
        "total_tokens": usage.total_tokens,
    }
    if usage.HasField("cache_read_input_tokens"):
        counts["cache_read_input_tokens"] = usage.cache_read_input_tokens
    if usage.HasField("cache_creation_input_tokens"):
        counts["cache_creation_input_tokens"] = usage.cache_creation_input_tokens
    if usage.HasField("reasoning_tokens"):
        counts["reasoning_tokens"] = usage.reasoning_tokens
    return counts


def failure_reason(value: FailureReason.ValueType) -> str:
    """Return the reason in lower case without its prefix."""
    return enum_name(FailureReason, "FAILURE_REASON_", value)


def finish_reason(value: pb.FinishReason.ValueType) -> str | None:
    """Return the reason in lower case without its prefix; None where it was not told."""
    return enum_name(pb.FinishReason, "FINISH_REASON_", value) if value else None


def result_fields(event: pb.Event) -> dict[str, Any]:
    """Return what an `agent_finish` event tells, by the names of `AgentResult`.

    A text that exceeds the event is not in it: `result_step_key` names the model call then.
    """
    finish = event.agent_finish
    value = parsed(finish.result) if finish.result_is_json else finish.result
    result = (
        {"result_step_key": finish.result_step_key} if finish.result_step_key else {"result": value}
    )
    fields = {"agent_run_id": event.run_id, **result, **_totals(finish)}
    if reason := finish_reason(finish.finish_reason):
        fields["finish_reason"] = reason
    if finish.stop_condition:
        fields["stop_condition"] = finish.stop_condition
    if finish.result_schema:
        fields["result_schema"] = finish.result_schema
    return fields


def as_object(text: str) -> dict[str, Any]:
    """Return the members of a JSON object as text; any other value as the member `value`."""
    value = parsed(text) if text else {}
    return value if isinstance(value, dict) else {"value": value}


def _project(proto: pb.Event) -> dict[str, Any]:
    kind = proto.WhichOneof("payload") or ""
    project = _PROJECTIONS.get(kind)
    data = project(proto) if project else {}
    metadata = {"execution_id": proto.run_id, "workflow_id": proto.workflow_id}
    data["_metadata"] = metadata | METADATA[kind](proto) if kind in METADATA else metadata
    return data


def _text_delta(event: pb.Event) -> dict[str, Any]:
    delta = event.text_delta
    return {"content": delta.content, **_position(delta), "step": delta.step}


def _reasoning_delta(event: pb.Event) -> dict[str, Any]:
    delta = event.reasoning_delta
    return {"content": delta.content, **_position(delta), "step": delta.step}


def _tool_call_delta(event: pb.Event) -> dict[str, Any]:
    delta = event.tool_call_delta
    return {"content": delta.content, **_position(delta), "step": delta.step, "call": delta.call}


def _tool_call(event: pb.Event) -> dict[str, Any]:
    asked = event.tool_call
    data = _call(asked.tool_call, with_arguments=True)
    return {**data, **_position(asked), "step": asked.step}


def _step_start(event: pb.Event) -> dict[str, Any]:
    step = event.step_start
    data = {**_position(step), "step_type": step.step_type}
    if step.HasField("tool_call"):
        data |= _call(step.tool_call, with_arguments=True)
    return data


def _step_finish(event: pb.Event) -> dict[str, Any]:
    step = event.step_finish
    data = {**_position(step), "step_type": step.step_type, **_outcome(step), **_spent(step)}
    if reason := finish_reason(step.finish_reason):
        data["finish_reason"] = reason
    if step.HasField("tool_call"):
        data |= _call(step.tool_call, with_arguments=False)
    if step.started_run_id:
        data["started_run_id"] = step.started_run_id
    if step.result_schema:
        data["result_schema"] = step.result_schema
    if step.HasField("invalid_output"):
        data["invalid_output"] = _invalid_output(step.invalid_output)
    return data


def _invalid_output(invalid: pb.InvalidOutput) -> dict[str, Any]:
    violations = [{"path": one.path, "rule": one.rule} for one in invalid.violations]
    return {"violations": violations, "violations_omitted": invalid.violations_omitted}


def _outcome(step: pb.StepFinish) -> dict[str, Any]:
    kind = step.WhichOneof("outcome")
    if kind == "failure":
        return _failure(step.failure)
    if kind == "long_answer":
        long = step.long_answer
        return {"long_answer": {"text_bytes": long.text_bytes, "tool_calls": long.tool_calls}}
    return {"data": {"result": parsed(step.result_json)}} if step.result_json else {}


def _step_retry(event: pb.Event) -> dict[str, Any]:
    retry = event.step_retry
    data = {
        **_position(retry),
        "reason": failure_reason(retry.reason),
        "error": retry.message,
    }
    if retry.HasField("start_time"):
        data["start_time"] = iso(retry.start_time)
    return data | _spent(retry)


def _agent_start(event: pb.Event) -> dict[str, Any]:
    start = event.agent_start
    data: dict[str, Any] = {
        "agent_id": start.agent_id,
        "provider": start.provider,
        "model": start.model,
        "tools": list(start.tools),
        "stop_conditions": list(start.stop_conditions),
        "streaming": start.streaming,
    }
    if start.HasField("temperature"):
        data["temperature"] = start.temperature
    if start.HasField("max_output_tokens"):
        data["max_output_tokens"] = start.max_output_tokens
    if start.output_schema_name:
        data["output_schema_name"] = start.output_schema_name
    return data


def _agent_finish(event: pb.Event) -> dict[str, Any]:
    return {**_totals(event.agent_finish), "result": result_fields(event)}


def _workflow_start(event: pb.Event) -> dict[str, Any]:
    start = event.workflow_start
    data = {"payload": parsed(start.payload_json)} if start.HasField("payload_json") else {}
    return {**data, "code_version": start.code_version} if start.code_version else data


def _workflow_finish(event: pb.Event) -> dict[str, Any]:
    finish = event.workflow_finish
    data = {"result": parsed(finish.result_json), **_spent(finish)}
    return {**data, "result_schema": finish.result_schema} if finish.result_schema else data


def _workflow_retry(event: pb.Event) -> dict[str, Any]:
    retry = event.workflow_retry
    return {"attempt": retry.attempt, "error": retry.message}


def _suspended(event: pb.Event) -> dict[str, Any]:
    return as_object(event.suspended.data_json)


def _resumed(event: pb.Event) -> dict[str, Any]:
    return as_object(event.resumed.data_json)


def _custom(event: pb.Event) -> dict[str, Any]:
    return as_object(event.custom.data_json)


def _error(event: pb.Event) -> dict[str, Any]:
    error = event.error
    data = {**_failure(error), **_totals(error)}
    if error.error_id:
        data["error_id"] = error.error_id
    if error.provider_request_id:
        data["provider_request_id"] = error.provider_request_id
    return data


def _run_cancelled(event: pb.Event) -> dict[str, Any]:
    return _totals(event.run_cancelled)


def _position(
    payload: pb.TextDelta
    | pb.ReasoningDelta
    | pb.ToolCallDelta
    | pb.ToolCallRequested
    | pb.StepStart
    | pb.StepFinish
    | pb.StepRetry,
) -> dict[str, Any]:
    return {"step_key": payload.step_key, "attempt": payload.attempt}


def _failure(failure: pb.StepFailure | pb.Error) -> dict[str, Any]:
    return {
        "error": failure.message,
        "reason": failure_reason(failure.reason),
        "retryable": failure.retryable,
    }


def _call(call: pb.ToolCall, *, with_arguments: bool) -> dict[str, Any]:
    """Return a call under every spelling that the documentation uses."""
    function: dict[str, Any] = {"name": call.name, "tool_name": call.name}
    if call.HasField("long_arguments"):
        where = call.long_arguments
        function["long_arguments"] = {"step_key": where.step_key, "call": where.call}
    elif with_arguments:
        function["arguments"] = call.arguments_json
    return {
        "tool_name": call.name,
        "tool_call": {
            "id": call.id,
            "call_id": call.id,
            "type": "function",
            "function": function,
        },
    }


def _totals(payload: pb.AgentFinish | pb.Error | pb.RunCancelled) -> dict[str, Any]:
    return {"total_steps": payload.total_steps, **_spent(payload)}


def _spent(payload: Any) -> dict[str, Any]:
    """Return tokens, money and time, as far as the payload has and knows them."""
    fields = payload.DESCRIPTOR.fields_by_name
    spent: dict[str, Any] = {}
    for name in ("usage", "spent"):
        if name in fields and payload.HasField(name):
            spent[name] = usage_fields(getattr(payload, name))
    for name in ("cost", "spent_cost"):
        if name in fields and payload.HasField(name):
            spent[name] = dollars(getattr(payload, name))
    if "duration" in fields and payload.HasField("duration"):
        spent["duration"] = seconds(payload.duration)
    return spent


_PROJECTIONS: Mapping[str, Callable[[pb.Event], dict[str, Any]]] = {
    "text_delta": _text_delta,
    "reasoning_delta": _reasoning_delta,
    "tool_call_delta": _tool_call_delta,
    "tool_call": _tool_call,
    "step_start": _step_start,
    "step_finish": _step_finish,
    "step_retry": _step_retry,
    "agent_start": _agent_start,
    "agent_finish": _agent_finish,
    "workflow_start": _workflow_start,
    "workflow_finish": _workflow_finish,
    "workflow_retry": _workflow_retry,
    "suspended": _suspended,
    "resumed": _resumed,
    "custom": _custom,
    "error": _error,
    "run_cancelled": _run_cancelled,
}
"""Makes the documented keys of a kind of event, by the name of its payload."""

_RESERVED = (_PROJECTIONS.keys() - {"custom"}) | {"unknown"}
"""Types of the service's events, besides those that begin with one of PREFIXES."""
