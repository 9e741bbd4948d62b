"""One turn of the loop: the model's answer, and how the tool calls it asked for ended."""

from __future__ import annotations

import json
import uuid
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import orjson

from polos.v1.error_pb2 import FailureReason
from polos.v1.event_pb2 import FinishReason, ToolCall, Usage
from polos_client import result as public
from polos_client.define.stop import Step as Turn
from polos_client.event import parsed
from polos_service.errors import StepError
from polos_service.limits import CALLS_LIMIT, ID_LIMIT, NAME_LIMIT
from polos_service.models import ModelAnswer
from polos_service.runs.attempt import StepOutput


@dataclass(frozen=True, kw_only=True, slots=True)
class Answer:
    """A model's answer, read back from its step's output: the same live and after a crash."""

    text: str
    tool_calls: Sequence[ToolCall]
    finish_reason: FinishReason.ValueType
    usage: Usage | None
    extra: Mapping[str, Any]

    @staticmethod
    def record(answer: ModelAnswer) -> StepOutput:
        """Return the output of the step that got this answer."""
        output = {"content": answer.text, "tool_calls": [as_dict(c) for c in answer.tool_calls]}
        return StepOutput(
            result_json=orjson.dumps(output).decode(),
            usage=answer.usage,
            cost=answer.cost,
            finish_reason=answer.finish_reason,
            private=answer.extra,
        )

    @classmethod
    def of(cls, output: StepOutput) -> Answer:
        """Return the answer that a step's output records."""
        recorded = orjson.loads(output.result_json)
        return cls(
            text=recorded["content"],
            tool_calls=[of_dict(call) for call in recorded["tool_calls"]],
            finish_reason=output.finish_reason,
            usage=output.usage,
            extra=output.private,
        )

    @property
    def asks(self) -> bool:
        """Whether tools are to be called; the calls of an answer that was cut are not."""
        return self.finish_reason == FinishReason.FINISH_REASON_TOOL_CALLS

    def message(self) -> dict[str, Any]:
        """Return it as a message of the conversation."""
        return {
            "role": "assistant",
            "content": self.text or None,
            "tool_calls": [as_dict(call) for call in self.tool_calls],
            **self.extra,
        }


@dataclass(frozen=True, kw_only=True, slots=True)
class Outcome:
    """How a tool call ended: a result, as JSON text, or an error in a sentence."""

    call: ToolCall
    result_json: str = "null"
    error: str | None = None

    def message(self) -> dict[str, Any]:
        """Return it as a message of the conversation; text goes as it is, the rest as JSON."""
        if self.error is not None:
            content = f"Error: {self.error}"
        elif self.result_json.startswith('"'):
            content = json.loads(self.result_json)
        else:
            content = self.result_json
        return {"role": "tool", "tool_call_id": self.call.id, "content": content}

    def public(self) -> public.ToolResult:
        """Return it as stop conditions see it."""
        return public.ToolResult(
            tool_name=self.call.name,
            status="completed" if self.error is None else "failed",
            input=parsed(self.call.arguments_json or "{}"),
            result=parsed(self.result_json),
            error=self.error,
            tool_call_id=self.call.id,
        )


def turn_of(number: int, answer: Answer, outcomes: Sequence[Outcome]) -> Turn:
    """Return the turn as stop conditions see it."""
    return Turn.model_validate(
        {
            "step": number,
            "content": answer.text or None,
            "tool_calls": [as_dict(call) for call in answer.tool_calls],
            "tool_results": [outcome.public() for outcome in outcomes],
            "usage": usage_of(answer.usage),
        }
    )


def fitting(answer: ModelAnswer) -> ModelAnswer:
    """Return the answer with tool calls that fit into events, whichever provider it comes from.

    An id that is too long is replaced: a provider only compares the ids that it gets. A name
    that is too long is cut: no tool has one like it.

    Raises:
        StepError: there are too many tool calls.

    """
    if len(answer.tool_calls) > CALLS_LIMIT:
        raise StepError(
            FailureReason.FAILURE_REASON_MODEL_MALFORMED,
            f"The model requested {len(answer.tool_calls)} tool calls; the limit is {CALLS_LIMIT}.",
            retryable=True,
        )
    calls = [
        ToolCall(
            id=call.id if len(call.id.encode()) <= ID_LIMIT else f"call_{uuid.uuid4().hex}",
            name=call.name.encode()[:NAME_LIMIT].decode(errors="ignore"),
            arguments_json=call.arguments_json,
        )
        for call in answer.tool_calls
    ]
    return replace(answer, tool_calls=calls)


def usage_of(usage: Usage | None) -> public.Usage | None:
    """Return the tokens as stop conditions see them."""
    if usage is None:
        return None
    return public.Usage(
        input_tokens=usage.input_tokens,
        output_tokens=usage.output_tokens,
        total_tokens=usage.total_tokens,
    )


def as_dict(call: ToolCall) -> dict[str, Any]:
    """Return the call in the form of the OpenAI chat API."""
    function = {"name": call.name, "arguments": call.arguments_json}
    return {"id": call.id, "type": "function", "function": function}


def of_dict(call: Mapping[str, Any]) -> ToolCall:
    """Return the call that `as_dict` wrote."""
    function = call["function"]
    return ToolCall(id=call["id"], name=function["name"], arguments_json=function["arguments"])
