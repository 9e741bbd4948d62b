"""One turn of the loop: the model's answer, and how the tool calls it asked for ended."""

from __future__ import annotations

import json
import uuid
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import orjson

from polos.v1.error_pb2 import FailureReason
from polos.v1.event_pb2 import LongAnswer, LongArguments, ToolCall, Usage
from polos_client import result as public
from polos_client.define.stop import Step as Turn
from polos_client.event import parsed, usage_fields
from polos_service.errors import StepError
from polos_service.limits import CALLS_LIMIT, ID_LIMIT, NAME_LIMIT, OUTPUT_LIMIT, PIECE_LIMIT
from polos_service.models import ModelAnswer
from polos_service.models.messages import (
    Call,
    Message,
    Part,
    Reasoning,
    Result,
    Text,
    reasoning_of,
)
from polos_service.runs.attempt import StepOutput
from polos_service.runs.said import Said, size_of


def answer_of(output: StepOutput) -> ModelAnswer:
    """Return the answer that a step's output records: the same live and after a crash."""
    if output.long_answer is None:
        recorded = orjson.loads(output.result_json)
        text, calls = recorded["content"], [of_dict(call) for call in recorded["tool_calls"]]
    else:
        text, calls = output.said.text, [of_event(call) for call in output.said.calls]
    return ModelAnswer(
        parts=parts_of(text, calls, output.said.reasoning, output.private),
        state=output.private.get("state", {}),
        finish_reason=output.finish_reason,
        usage=output.usage,
        cost=output.cost,
    )


def result_of(answer: ModelAnswer) -> str | None:
    """Return the answer as a step's result, if the step's end can hold it."""
    texts = [part.text for part in answer.parts if isinstance(part, Text)]
    arguments = [call.arguments_json for call in answer.calls]
    if sum(map(len, texts + arguments)) > OUTPUT_LIMIT or any(map(exceeds_event, arguments)):
        return None  # encoding megabytes only to see that they are too many would take long
    output = {"content": "".join(texts), "tool_calls": [as_dict(call) for call in answer.calls]}
    result = orjson.dumps(output)
    return result.decode() if len(result) <= OUTPUT_LIMIT else None


def output_of(
    answer: ModelAnswer,
    result: str | None,
    private: Mapping[str, Any],
    step_key: str,
    *,
    heard: bool,
) -> StepOutput:
    """Return the output of the step that got this answer.

    Args:
        answer: the answer.
        result: as `result_of` returns it. If it is None, text and calls stand in events.
        private: as `private_of` returns it.
        step_key: the step.
        heard: whether the reasoning stands in events.

    """
    said = Said(reasoning=reasoning_of(answer.parts) if heard else "")
    long = None
    if result is None:
        calls = [event_of(call, step_key, index) for index, call in enumerate(answer.calls)]
        for event, call in zip(calls, answer.calls, strict=True):
            event.arguments_json = call.arguments_json
        said = replace(said, text=answer.text, calls=tuple(calls))
        long = LongAnswer(text_bytes=size_of(said.text), tool_calls=len(calls))
    return StepOutput(
        result_json=result or "",
        long_answer=long,
        said=said,
        usage=answer.usage,
        cost=answer.cost,
        finish_reason=answer.finish_reason,
        private=private,
    )


def private_of(answer: ModelAnswer, *, heard: bool = False) -> dict[str, Any]:
    """Return what of an answer its text and calls do not tell: their order, and all else.

    A text stands there as its length, and a call as null: both are in the public output. So
    does reasoning that is `heard`, all of it: it is in the events of the step.
    """
    plain = all(isinstance(part, Text | Call) and not part.state for part in answer.parts)
    if plain and not answer.state:
        return {}
    parts = [_outline(part, heard=heard) for part in answer.parts]
    return {"v": 1, "parts": parts, "state": answer.state}


def _outline(part: Part, *, heard: bool) -> dict[str, Any]:
    match part:
        case Text():
            told: dict[str, Any] = {"text": len(part.text)}
        case Call():
            told = {"call": None}
        case Reasoning():
            told = {"heard": len(part.text)} if heard else {"reasoning": part.text}
        case _:
            raise TypeError(f"An answer has no part {part.type!r}.")
    return told | ({"state": part.state} if part.state else {})


def parts_of(
    text: str, calls: Sequence[Call], reasoning: str, private: Mapping[str, Any]
) -> list[Part]:
    """Return the parts of an answer.

    Args:
        text: all of its text.
        calls: all of its calls.
        reasoning: what the events of its step tell of its reasoning.
        private: what `private_of` returned.

    """
    if "parts" not in private:
        thought = private.get("reasoning_content", "")  # what version 0.1.0 kept
        said = [Reasoning(text=thought)] if thought else []
        return [*said, *([Text(text=text)] if text else []), *calls]
    following, at, heard = iter(calls), 0, 0
    parts: list[Part] = []
    for outline in private["parts"]:
        state = outline.get("state", {})
        if "text" in outline:
            parts.append(Text(text=text[at : at + outline["text"]], state=state))
            at += outline["text"]
        elif "heard" in outline:
            parts.append(Reasoning(text=reasoning[heard : heard + outline["heard"]], state=state))
            heard += outline["heard"]
        elif "reasoning" in outline:
            parts.append(Reasoning(text=outline["reasoning"], state=state))
        else:
            parts.append(replace(next(following), state=state))
    return parts


@dataclass(frozen=True, kw_only=True, slots=True)
class Outcome:
    """How a tool call ended: a result, as JSON text, or an error in a sentence.

    `note` is what the model is told before it; empty if nothing.
    """

    call: Call
    result_json: str = "null"
    error: str | None = None
    note: str = ""

    def message(self) -> Message:
        """Return it as a message of the conversation; text goes as it is, the rest as JSON."""
        if self.error is not None:
            content = f"Error: {self.error}"
        elif self.result_json.startswith('"'):
            content = json.loads(self.result_json)
        else:
            content = self.result_json
        if self.note:
            content = f"{self.note}\n{content}"
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


def turn_of(number: int, answer: ModelAnswer, outcomes: Sequence[Outcome]) -> Turn:
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

    The calls of an answer that does not end by asking for them are left out: an answer that was
    cut does not have them whole. An id that is too long is replaced: a provider only compares
    the ids that it gets. A name that is too long is cut: no tool has one like it.

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
    parts = [part for part in answer.parts if answer.asks or not isinstance(part, Call)]
    return replace(
        answer, parts=[_fitting(part) if isinstance(part, Call) else part for part in parts]
    )


def _fitting(call: Call) -> Call:
    fits = len(call.id.encode()) <= ID_LIMIT
    name = call.name.encode()[:NAME_LIMIT].decode(errors="ignore")
    call_id = call.id if fits else f"call_{uuid.uuid4().hex}"
    return replace(call, id=call_id, name=name)


def usage_of(usage: Usage | None) -> public.Usage | None:
    """Return the tokens as stop conditions see them."""
    return None if usage is None else public.Usage(**usage_fields(usage))


def exceeds_event(arguments_json: str) -> bool:
    """Return whether the arguments of a call have to stand in events of their own."""
    return size_of(arguments_json) > PIECE_LIMIT


def event_of(call: Call, step_key: str, index: int) -> ToolCall:
    """Return the call as events tell it: that of the model step `step_key` with this index."""
    if exceeds_event(call.arguments_json):
        where = LongArguments(step_key=step_key, call=index)
        return ToolCall(id=call.id, name=call.name, long_arguments=where)
    return ToolCall(id=call.id, name=call.name, arguments_json=call.arguments_json)


def of_event(call: ToolCall) -> Call:
    """Return the call that `event_of` wrote, with its arguments put in."""
    return Call(id=call.id, name=call.name, arguments_json=call.arguments_json)


def as_dict(call: Call) -> dict[str, Any]:
    """Return the call in the form of the OpenAI chat API."""
    function = {"name": call.name, "arguments": call.arguments_json}
    return {"id": call.id, "type": "function", "function": function}


def of_dict(call: Mapping[str, Any]) -> Call:
    """Return the call that `as_dict` wrote."""
    function = call["function"]
    return Call(id=call["id"], name=function["name"], arguments_json=function["arguments"])
