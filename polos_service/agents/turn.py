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
from polos_service.models.messages import (
    Call,
    Message,
    Part,
    Reasoning,
    Result,
    Text,
    calls_of,
    text_of,
)
from polos_service.runs.attempt import StepOutput


@dataclass(frozen=True, kw_only=True, slots=True)
class Answer:
    """A model's answer, read back from its step's output: the same live and after a crash."""

    parts: Sequence[Part]
    state: Mapping[str, Any]
    finish_reason: FinishReason.ValueType
    usage: Usage | None

    @staticmethod
    def record(answer: ModelAnswer) -> StepOutput:
        """Return the output of the step that got this answer."""
        output = {"content": answer.text, "tool_calls": [as_dict(c) for c in answer.calls]}
        return StepOutput(
            result_json=orjson.dumps(output).decode(),
            usage=answer.usage,
            cost=answer.cost,
            finish_reason=answer.finish_reason,
            private=private_of(answer),
        )

    @classmethod
    def of(cls, output: StepOutput) -> Answer:
        """Return the answer that a step's output records."""
        recorded = orjson.loads(output.result_json)
        calls = [of_dict(call) for call in recorded["tool_calls"]]
        return cls(
            parts=parts_of(recorded["content"], calls, output.private),
            state=output.private.get("state", {}),
            finish_reason=output.finish_reason,
            usage=output.usage,
        )

    @property
    def text(self) -> str:
        """All that it says."""
        return text_of(self.parts)

    @property
    def calls(self) -> list[Call]:
        """What it asks for, in order."""
        return calls_of(self.parts)

    @property
    def asks(self) -> bool:
        """Whether tools are to be called; the calls of an answer that was cut are not."""
        return self.finish_reason == FinishReason.FINISH_REASON_TOOL_CALLS

    def message(self) -> Message:
        """Return it as a message of the conversation."""
        return Message(role="assistant", parts=tuple(self.parts), state=self.state)


def private_of(answer: ModelAnswer) -> dict[str, Any]:
    """Return what of an answer its text and calls do not tell: their order, and all else.

    A text stands there as its length, and a call as null: both are in the public output.
    """
    plain = all(isinstance(part, Text | Call) and not part.state for part in answer.parts)
    if plain and not answer.state:
        return {}
    return {"v": 1, "parts": [_outline(part) for part in answer.parts], "state": answer.state}


def _outline(part: Part) -> dict[str, Any]:
    match part:
        case Text():
            told: dict[str, Any] = {"text": len(part.text)}
        case Call():
            told = {"call": None}
        case Reasoning():
            told = {"reasoning": part.text}
        case _:
            raise TypeError(f"An answer has no part {part.type!r}.")
    return told | ({"state": part.state} if part.state else {})


def parts_of(text: str, calls: Sequence[Call], private: Mapping[str, Any]) -> list[Part]:
    """Return the parts of an answer with this text and these calls."""
    if "parts" not in private:
        thought = private.get("reasoning_content", "")  # what version 0.1.0 kept
        said = [Reasoning(text=thought)] if thought else []
        return [*said, *([Text(text=text)] if text else []), *calls]
    following, at = iter(calls), 0
    parts: list[Part] = []
    for outline in private["parts"]:
        state = outline.get("state", {})
        if "text" in outline:
            parts.append(Text(text=text[at : at + outline["text"]], state=state))
            at += outline["text"]
        elif "reasoning" in outline:
            parts.append(Reasoning(text=outline["reasoning"], state=state))
        else:
            parts.append(replace(next(following), state=state))
    return parts


@dataclass(frozen=True, kw_only=True, slots=True)
class Outcome:
    """How a tool call ended: a result, as JSON text, or an error in a sentence."""

    call: Call
    result_json: str = "null"
    error: str | None = None

    def message(self) -> Message:
        """Return it as a message of the conversation; text goes as it is, the rest as JSON."""
        if self.error is not None:
            content = f"Error: {self.error}"
        elif self.result_json.startswith('"'):
            content = json.loads(self.result_json)
        else:
            content = self.result_json
        told = Result(
            call_id=self.call.id, content=(Text(text=content),), failed=self.error is not None
        )
        return Message(role="tool", parts=(told,))

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
            "tool_calls": [as_dict(call) for call in answer.calls],
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
    calls = answer.calls
    if len(calls) > CALLS_LIMIT:
        raise StepError(
            FailureReason.FAILURE_REASON_MODEL_MALFORMED,
            f"The model requested {len(calls)} tool calls; the limit is {CALLS_LIMIT}.",
            retryable=True,
        )
    return replace(answer, parts=[_fitting(p) if isinstance(p, Call) else p for p in answer.parts])


def _fitting(call: Call) -> Call:
    fits = len(call.id.encode()) <= ID_LIMIT
    name = call.name.encode()[:NAME_LIMIT].decode(errors="ignore")
    call_id = call.id if fits else f"call_{uuid.uuid4().hex}"
    return replace(call, id=call_id, name=name)


def usage_of(usage: Usage | None) -> public.Usage | None:
    """Return the tokens as stop conditions see them."""
    if usage is None:
        return None
    return public.Usage(
        input_tokens=usage.input_tokens,
        output_tokens=usage.output_tokens,
        total_tokens=usage.total_tokens,
    )


def event_of(call: Call) -> ToolCall:
    """Return the call as events tell it."""
    return ToolCall(id=call.id, name=call.name, arguments_json=call.arguments_json)


def as_dict(call: Call) -> dict[str, Any]:
    """Return the call in the form of the OpenAI chat API."""
    function = {"name": call.name, "arguments": call.arguments_json}
    return {"id": call.id, "type": "function", "function": function}


def of_dict(call: Mapping[str, Any]) -> Call:
    """Return the call that `as_dict` wrote."""
    function = call["function"]
    return Call(id=call["id"], name=function["name"], arguments_json=function["arguments"])
