"""The page of all events: their fields, and how the Python client presents them."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

from google.protobuf.descriptor import Descriptor, EnumDescriptor, FieldDescriptor
from google.protobuf.message import Message

from polos.v1 import error_pb2
from polos.v1 import event_pb2 as pb
from polos_client.event import Event
from scripts.docs_source import NOTE, attributes, coded, enum, properties, table

TIME = "2026-01-31T09:30:00.250Z"
"""The time in the examples."""

JSON_TYPES = {
    "int64": 'int64; in JSON a string, `"7"`',
    "google.protobuf.Timestamp": f'Timestamp; in JSON `"{TIME}"`',
    "google.protobuf.Duration": 'Duration; in JSON `"1.250s"`',
}
SAMPLES: dict[str, Any] = {
    "Custom.step_key": "progress",
    "Resumed.data_json": '{"approved": true}',
    "Resumed.kind": pb.WAIT_KIND_SUSPEND,
    "Resumed.step_key": "confirm",
    "Suspended.kind": pb.WAIT_KIND_SUSPEND,
    "Suspended.step_key": "confirm",
    "WorkflowRetry.attempt": 2,
    "Error.reason": error_pb2.FAILURE_REASON_MODEL_UNAVAILABLE,
    "StepRetry.attempt": 2,
    "StepRetry.reason": error_pb2.FAILURE_REASON_MODEL_CUT_SHORT,
    "StepRetry.step_key": "llm:1",
    "ReasoningDelta.content": "The city is ",
    "ReasoningDelta.step_key": "llm:1",
    "TextDelta.step_key": "llm:1",
    "ToolCallDelta.content": '{"city": "To',
    "ToolCallDelta.step_key": "llm:1",
    "ToolCallRequested.step_key": "llm:1",
    "agent_id": "weather",
    "arguments_json": '{"city": "Tokyo"}',
    "call": 0,
    "code_version": "2026-01",
    "content": "It is ",
    "data_json": '{"amount": 100}',
    "duration": 1.25,
    "error_id": "8c6d...",
    "id": "call_1",
    "input_tokens": 57,
    "max_output_tokens": 500,
    "message": "What happened.",
    "model": "gpt-4o-mini",
    "name": "get_weather",
    "output_tokens": 12,
    "output_schema_name": "app.Forecast",
    "path": "lines.0.price",
    "payload_json": '{"days": 3}',
    "principal": "key:ops",
    "provider": "openai",
    "provider_request_id": "req_1",
    "reason": error_pb2.FAILURE_REASON_TOOL_FAILED,
    "request_id": "5f0c...",
    "result": "It is clear in Tokyo.",
    "result_schema": "app.Forecast",
    "rule": "Input should be a valid integer",
    "result_json": '{"city": "Tokyo", "sky": "clear"}',
    "step_key": "get_weather",
    "step_type": "tool",
    "text_bytes": 4194304,
    "tool_calls": 0,
    "stop_condition": "max_steps",
    "stop_conditions": "max_steps",
    "temperature": 0.5,
    "tools": "get_weather",
    "total_tokens": 69,
    "type": "progress",
    "usd_micros": 1250,
    "wait_id": 7,
}
"""What the fields of the examples hold, by name, with or without their message's; else 1."""

LONG = frozenset({"ToolCall.long_arguments", "AgentFinish.result_step_key"})
"""Fields that the examples do not have: they replace others where an answer exceeds one event."""

PARTS = [
    one.DESCRIPTOR
    for one in (
        pb.ToolCall,
        pb.LongArguments,
        pb.LongAnswer,
        pb.StepFailure,
        pb.InvalidOutput,
        pb.Violation,
        pb.Usage,
        pb.Cost,
    )
]
"""The messages that events are made of."""


def kind(field: FieldDescriptor) -> str:
    """Return a field's type, with a link if this page describes it."""
    repeated = "list of " if field.is_repeated else ""
    named: Descriptor | EnumDescriptor | None = field.message_type or field.enum_type
    if named is None:
        scalar = field_type(field)
        return repeated + JSON_TYPES.get(scalar, scalar)
    if named.full_name in JSON_TYPES:
        return JSON_TYPES[named.full_name]
    page = "errors.md" if named.file.name.endswith("error.proto") else ""
    return f"{repeated}[{named.name}]({page}#{named.name.lower()})"


def field_type(field: FieldDescriptor) -> str:
    """Return the name of a scalar type as a proto file writes it."""
    names = {value: name for name, value in vars(FieldDescriptor).items() if name[:5] == "TYPE_"}
    return names[field.type].removeprefix("TYPE_").lower()


def fields(message: Descriptor, said: dict[str, str], skip: str = "") -> str:
    """Return a table of a message's fields, without those of the oneof `skip`."""
    shown = [
        one
        for one in message.fields
        if one.containing_oneof is None or one.containing_oneof.name != skip
    ]
    rows = [(f"`{f.name}`", f"`{f.json_name}`", kind(f), said[f.full_name]) for f in shown]
    return table(["field", "in JSON", "type", "meaning"], rows)


def filled(message: Message, choice: int) -> Message:
    """Fill every field with a sample, of each oneof the alternative `choice`."""
    for field in message.DESCRIPTOR.fields:
        if f"{message.DESCRIPTOR.name}.{field.name}" in LONG:
            continue
        oneof = field.containing_oneof
        if oneof is None or oneof.fields[choice % len(oneof.fields)] is field:
            fill(message, field)
    return message


def fill(message: Message, field: Any) -> None:
    """Fill one field with a sample. Its descriptor has no one type: a message's is upb's own."""
    qualified = f"{field.containing_type.name}.{field.name}"
    value = SAMPLES.get(qualified, SAMPLES.get(field.name, 1))
    if field.is_repeated and field.message_type is not None:
        filled(getattr(message, field.name).add(), 0)
    elif field.is_repeated:
        getattr(message, field.name).append(value)
    elif field.message_type is None:
        setattr(message, field.name, type(getattr(message, field.name))(value))
    elif field.message_type.name == "Duration":
        getattr(message, field.name).FromMilliseconds(round(value * 1000))
    elif field.message_type.name == "Timestamp":
        getattr(message, field.name).FromJsonString(TIME)
    else:
        filled(getattr(message, field.name), 0)


def projected(payload: FieldDescriptor) -> str:
    """Return what `Event.data` looks like for a payload, as Markdown."""
    always = f", always with {coded(keys)}" if (keys := data(payload, None)) else ""
    choices = max((len(one.fields) for one in message_of(payload).oneofs), default=1)
    samples = [json.dumps(data(payload, choice), indent=2) for choice in range(choices)]
    blocks = "\n\nor\n\n".join(f"```json\n{sample}\n```" for sample in samples)
    return f"`data` in Python{always}:\n\n{blocks}"


def event_type(payload: FieldDescriptor) -> str:
    """Return the type that the Python client tells of the example of a payload."""
    return sample(payload, 0).event_type


def sample(payload: FieldDescriptor, choice: int | None) -> Event:
    """Return an event with a payload that is filled; an empty one where `choice` is None."""
    event = pb.Event(run_id="run", workflow_id="weather")
    message = getattr(event, payload.name)
    message.SetInParent()
    if choice is not None:
        filled(message, choice)
    return Event(event)


def data(payload: FieldDescriptor, choice: int | None) -> dict[str, Any]:
    """Return `Event.data` without what every event has; of an empty payload where None."""
    shown = dict(sample(payload, choice).data)
    del shown["_metadata"]
    return shown


def message_of(field: FieldDescriptor) -> Descriptor:
    """Return the type of a field that holds a message."""
    if field.message_type is None:
        raise TypeError(f"{field.full_name} holds no message")
    return field.message_type


def event_types(said: dict[str, str]) -> Iterator[str]:
    """Yield the sections of all event types."""
    for payload in pb.Event.DESCRIPTOR.oneofs_by_name["payload"].fields:
        message = message_of(payload)
        yield f"### `{payload.name}`"
        yield (
            f"{said[payload.full_name]} Named `{payload.json_name}` in JSON; its message is "
            f"`{message.name}`."
        )
        if (in_python := event_type(payload)) != payload.name:
            yield f"`event_type` in Python: `{in_python}` in the example below."
        if said[message.full_name] != said[payload.full_name]:
            yield said[message.full_name]
        yield fields(message, said)
        yield projected(payload)


def events(said: dict[str, str]) -> Iterator[str]:
    """Yield the parts of events.md."""
    yield f"# Events\n\n{NOTE}"
    yield (
        "A run is a log of events. This page is generated from `proto/polos/v1/event.proto` and "
        "from the Python client. Skip event types that you do not know: later versions add types."
    )
    yield "Types: " + ", ".join(
        f"[{one.name}](#{one.name})" for one in pb.Event.DESCRIPTOR.oneofs_by_name["payload"].fields
    )
    yield f"## Every event\n\n{fields(pb.Event.DESCRIPTOR, said, skip='payload')}"
    yield "In Python, an event is a `polos.Event`:"
    told = properties(Event) | attributes(Event)
    yield table(["attribute", "meaning"], [(f"`{name}`", what) for name, what in told.items()])
    yield (
        "Every `data` has a `_metadata` object with `execution_id`, the run's id, and "
        "`workflow_id`, the id of its agent."
    )
    yield "## Event types"
    yield (
        "The examples of `data` show all keys at once; keys without a value are absent. In `data`, "
        "`duration` is in seconds and `cost` is in US dollars."
    )
    yield (
        "An answer of a model that exceeds one event is told in several: its text in `text_delta` "
        "events, long arguments of its tool calls in `tool_call_delta` events, whether the run "
        "streams or not. The events that would hold the whole refer to them. In `data`, "
        "`long_answer` replaces `data` of `step_finish`, `result_step_key` replaces the inner "
        "`result` of `agent_finish`, and `long_arguments`, with `step_key` and `call`, replaces "
        "`arguments`. `stream.text()`, `stream.result()`, `run` and `ExecutionHandle.get` return "
        "everything put together."
    )
    yield from event_types(said)
    yield "## Parts of events"
    for part in PARTS:
        yield f"### {part.name}\n\n{said[part.full_name]}\n\n{fields(part, said)}"
    yield f"### FinishReason\n\n{said['polos.v1.FinishReason']}"
    yield enum(pb.FinishReason, "FINISH_REASON_", said)
    yield f"### WaitKind\n\n{said['polos.v1.WaitKind']}"
    yield enum(pb.WaitKind, "WAIT_KIND_", said)
