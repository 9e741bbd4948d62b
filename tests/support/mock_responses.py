"""What the mock provider can answer as the Responses API: items of the output, and its events.

    provider.reply(responses(think("Hm"), say("Hello", " world"), call("add", {"a": 1})))

`events` returns the same as a list, for a test that changes it, and `sent` sends one.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from tests.support.mock_answers import EndOfBody, Part

Event = dict[str, Any]

TOKENS: Mapping[str, Any] = {
    "input_tokens": 7,
    "input_tokens_details": {"cached_tokens": 2, "cache_write_tokens": 1},
    "output_tokens": 3,
    "output_tokens_details": {"reasoning_tokens": 1},
    "total_tokens": 10,
}
"""What an answer uses if the test says nothing else."""


@dataclass(frozen=True)
class Item:
    """An item of the output.

    Attributes:
        begun: as it is when it begins.
        done: as it is in the end.
        between: the events about it in between, without what is the same for all of them.

    """

    begun: Mapping[str, Any]
    done: Mapping[str, Any]
    between: Sequence[Event] = ()


def say(*pieces: str, item_id: str = "msg_1", refusal: bool = False, **more: Any) -> Item:
    """The model says each piece in a delta of its own, or refuses in these words."""
    name, kind = ("refusal", "refusal") if refusal else ("output_text", "text")
    none: Event = {"annotations": [], "logprobs": []} if not refusal else {}
    at: Event = {"content_index": 0}
    empty = {"type": name, **none, kind: ""}
    part = {"type": name, **none, kind: "".join(pieces)}
    logprobs: Event = {} if refusal else {"logprobs": []}
    between = [
        {"type": "response.content_part.added", **at, "part": empty},
        *({"type": f"response.{name}.delta", **at, "delta": piece, **logprobs} for piece in pieces),
        {"type": f"response.{name}.done", **at, kind: "".join(pieces), **logprobs},
        {"type": "response.content_part.done", **at, "part": part},
    ]
    begun = {"id": item_id, "type": "message", "role": "assistant", "status": "in_progress"}
    done = {**begun, "status": "completed", "content": [part], **more}
    return Item({**begun, "content": [], **more}, done, between)


def think(
    *summaries: str, item_id: str = "rs_1", encrypted: str | None = "gAAAA", pieces: int = 2
) -> Item:
    """The model thinks, and sums it up in these paragraphs."""
    between: list[Event] = []
    for index, text in enumerate(summaries):
        at = {"summary_index": index}
        part = {"type": "summary_text", "text": text}
        added = {"type": "response.reasoning_summary_part.added", **at}
        between.append({**added, "part": {**part, "text": ""}})
        size = max(1, -(-len(text) // pieces))
        between += [
            {
                "type": "response.reasoning_summary_text.delta",
                **at,
                "delta": text[start : start + size],
            }
            for start in range(0, len(text), size)
        ]
        between.append({"type": "response.reasoning_summary_text.done", **at, "text": text})
        between.append({"type": "response.reasoning_summary_part.done", **at, "part": part})
    begun: Event = {"id": item_id, "type": "reasoning", "summary": []}
    summary = [{"type": "summary_text", "text": text} for text in summaries]
    done = {**begun, "summary": summary}
    if encrypted is not None:
        done["encrypted_content"] = encrypted
    return Item(begun, done, between)


def think_aloud(*pieces: str, item_id: str = "rs_1") -> Item:
    """The model shows its thoughts themselves, as open models do."""
    at: Event = {"content_index": 0}
    text = "".join(pieces)
    between = [
        *({"type": "response.reasoning_text.delta", **at, "delta": piece} for piece in pieces),
        {"type": "response.reasoning_text.done", **at, "text": text},
    ]
    begun: Event = {"id": item_id, "type": "reasoning", "summary": []}
    return Item(begun, {**begun, "content": [{"type": "reasoning_text", "text": text}]}, between)


def call(
    name: str, arguments: Any, *, call_id: str = "call_a", item_id: str = "fc_1", pieces: int = 3
) -> Item:
    """The model calls a tool, its arguments in several pieces."""
    text = arguments if isinstance(arguments, str) else json.dumps(arguments)
    size = max(1, -(-len(text) // pieces))
    kind = "response.function_call_arguments"
    between: list[Event] = [
        {"type": f"{kind}.delta", "delta": text[start : start + size]}
        for start in range(0, len(text), size)
    ]
    between.append({"type": f"{kind}.done", "arguments": text, "name": name})
    begun = {"id": item_id, "type": "function_call", "call_id": call_id, "name": name}
    done = {**begun, "arguments": text, "status": "completed"}
    return Item({**begun, "arguments": "", "status": "in_progress"}, done, between)


def item(**fields: Any) -> Item:
    """An item of any other type."""
    return Item({**fields, "status": "in_progress"}, fields)


def response(status: str, output: Sequence[Mapping[str, Any]] = (), **more: Any) -> Event:
    """Return a response, as it is in some events, or alone if it was not to be streamed."""
    return {
        "id": "resp_1",
        "object": "response",
        "created_at": 1764144000,
        "status": status,
        "error": None,
        "incomplete_details": None,
        "instructions": None,
        "metadata": {},
        "model": "mock",
        "output": list(output),
        "parallel_tool_calls": True,
        "store": False,
        "temperature": 1.0,
        "tool_choice": "auto",
        "tools": [],
        "top_p": 1.0,
        "usage": None,
        **more,
    }


def events(
    *items: Item, status: str = "completed", usage: Mapping[str, Any] | None = TOKENS, **more: Any
) -> list[Event]:
    """Return the events of an answer with these items, as OpenAI sends them.

    Args:
        items: the output.
        status: how it ends.
        usage: the tokens; None if they are not told.
        more: further members of the response at its end.

    """
    told = [
        {"type": f"response.{state}", "response": response("in_progress")}
        for state in ("created", "in_progress")
    ]
    for index, one in enumerate(items):
        at: Event = {"output_index": index}
        told.append({"type": "response.output_item.added", **at, "item": one.begun})
        at |= {"item_id": one.begun.get("id")}
        told += [{**event, **at} for event in one.between]
        done: Event = {"type": "response.output_item.done", "output_index": index}
        told.append({**done, "item": one.done})
    end = response(status, [one.done for one in items], usage=usage, **more)
    told.append({"type": f"response.{status}", "response": end})
    return [{**event, "sequence_number": number} for number, event in enumerate(told)]


def sent(told: Iterable[Mapping[str, Any]], *, ends: bool = True) -> Part:
    """Send these events; then the body ends, unless something follows."""
    actions = tuple(encoded(event) for event in told)
    return Part((*actions, EndOfBody()) if ends else actions, ends=ends)


def encoded(told: Mapping[str, Any]) -> bytes:
    """Return an event as it is sent; what is not ASCII stays as it is."""
    data = json.dumps(told, ensure_ascii=False, separators=(",", ":")).encode()
    return b"event: " + str(told.get("type")).encode() + b"\ndata: " + data + b"\n\n"


def responses(*items: Item, **more: Any) -> Part:
    """The model answers with these items; see `events`."""
    return sent(events(*items, **more))
