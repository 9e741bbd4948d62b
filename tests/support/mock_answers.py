"""What the mock provider can answer: the parts of an answer, good and bad."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any


class Reset:
    """Ends the connection with a TCP reset."""


class HangUp:
    """Ends the connection without the end of the HTTP body."""


class EndOfBody:
    """Ends the HTTP body; the connection stays."""


@dataclass(frozen=True)
class Status:
    status: int
    body: bytes
    headers: Mapping[str, str]


Action = bytes | asyncio.Event | Status | Reset | HangUp | EndOfBody


@dataclass(frozen=True)
class Part:
    """A piece of an answer: what happens, whether it ends the answer, whether it calls a tool."""

    actions: tuple[Action, ...]
    ends: bool = False
    calls: bool = False


def chunk(delta: Mapping[str, Any], finish_reason: str | None = None, **more: Any) -> bytes:
    """Return one event with a chunk of a chat completion."""
    choice = {"index": 0, "delta": delta, "finish_reason": finish_reason}
    return event({"id": "chatcmpl-1", "model": "mock", "choices": [choice], **more})


def event(data: Any) -> bytes:
    """Return one event with JSON data; what is not ASCII stays as it is."""
    return b"data: " + json.dumps(data, ensure_ascii=False).encode() + b"\n\n"


def say(*texts: str) -> Part:
    """The model says each text in a chunk of its own."""
    return Part(tuple(chunk({"content": text}) for text in texts))


def delta(**fields: Any) -> Part:
    """A chunk with any delta."""
    return Part((chunk(fields),))


def call(
    name: str, arguments: Any, *, call_id: str = "call_a", index: int = 0, pieces: int = 3
) -> Part:
    """The model calls a tool, its arguments in several pieces."""
    text = arguments if isinstance(arguments, str) else json.dumps(arguments)
    size = max(1, -(-len(text) // pieces))
    head = {"index": index, "id": call_id, "type": "function", "function": {"name": name}}
    tails = [
        {"index": index, "function": {"arguments": text[start : start + size]}}
        for start in range(0, len(text), size)
    ]
    return Part(tuple(chunk({"tool_calls": [one]}) for one in [head, *tails]), calls=True)


def finish(reason: str = "stop", *, usage: Mapping[str, Any] | None = None) -> Part:
    """The answer ends properly; without `usage` it tells no tokens."""
    told = () if usage is None else (event({"choices": [], "usage": usage}),)
    actions = (chunk({}, reason), *told, b"data: [DONE]\n\n", EndOfBody())
    return Part(actions, ends=True)


def tokens(read: int, written: int, **details: int) -> dict[str, Any]:
    """Return usage as the provider tells it."""
    return {
        "prompt_tokens": read,
        "completion_tokens": written,
        "total_tokens": read + written,
        "prompt_tokens_details": details,
    }


def raw(*pieces: bytes) -> Part:
    """Send bytes as they are."""
    return Part(pieces)


def hold(until: asyncio.Event) -> Part:
    """Be silent until the event is set or the client leaves."""
    return Part((until,))


def cut() -> Part:
    """End the body in good order, but without a finish reason."""
    return Part((EndOfBody(),), ends=True)


def hang_up() -> Part:
    """Close the connection in the middle of the body."""
    return Part((HangUp(),), ends=True)


def reset() -> Part:
    """Reset the connection."""
    return Part((Reset(),), ends=True)


def status(code: int, body: Any = None, /, **headers: str) -> Part:
    """Answer with an HTTP status instead of a stream; `_` in a header's name is `-`."""
    told = {"content-type": "application/json"}
    told |= {name.replace("_", "-"): value for name, value in headers.items()}
    data = body if isinstance(body, bytes) else json.dumps(body or {}).encode()
    return Part((Status(code, data, told),), ends=True)
