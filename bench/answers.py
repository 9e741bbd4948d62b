"""The forms of an answer that the mock provider sends: what stands around the text of a token."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

TEXT = b"tok "
"""The text of a token that is not paced."""


@dataclass(frozen=True, slots=True)
class Form:
    """The bytes of an answer as an API sends it.

    Attributes:
        before: what stands before the text of a token.
        after: what stands behind it.
        ending: returns the events after the last token, given how many there were.
        opening: the events before the first token.

    """

    before: bytes
    after: bytes
    ending: Callable[[int], bytes]
    opening: bytes = b""


CHUNK = (
    b'data: {"id":"chatcmpl-bench","object":"chat.completion.chunk","created":1760000000,'
    b'"model":"mock","service_tier":"default","system_fingerprint":"fp_bench","choices":['
    b'{"index":0,"delta":{"%b":"'
)
"""The head of a chunk of a chat completion, but for the name of the field that it adds to."""

UNUSED = b'"},"logprobs":null,"finish_reason":null}],"usage":null}\n\n'
USED = (
    b'"},"logprobs":null,"finish_reason":null}],"usage":{"prompt_tokens":7,"completion_tokens":9,'
    b'"total_tokens":16,"prompt_tokens_details":{"cached_tokens":0},'
    b'"completion_tokens_details":{"reasoning_tokens":0}}}\n\n'
)


def chat_ending(tokens: int) -> bytes:
    """Return the finish reason, the usage and the last event of a chat completion."""
    head = b'data: {"id":"chatcmpl-bench","object":"chat.completion.chunk","created":1760000000,'
    head += b'"model":"mock","choices":['
    finish = b'{"index":0,"delta":{},"finish_reason":"stop"}]}\n\n'
    usage = b'],"usage":{"prompt_tokens":7,"completion_tokens":%d,"total_tokens":%d}}\n\n'
    return b"".join([head, finish, head, usage % (tokens, tokens + 7), b"data: [DONE]\n\n"])


def events(*told: dict[str, Any]) -> bytes:
    """Return events of an API whose events have types."""
    dumped = [(data["type"], json.dumps(data, separators=(",", ":"))) for data in told]
    return "".join(f"event: {kind}\ndata: {data}\n\n" for kind, data in dumped).encode()


def around(data: dict[str, Any]) -> tuple[bytes, bytes]:
    """Return what stands before and behind the text of a token, which is `TEXT` in the data."""
    before, _, after = events(data).partition(TEXT)
    return before, after


MESSAGE = {
    "id": "msg_bench",
    "type": "message",
    "role": "assistant",
    "model": "mock",
    "content": [],
    "usage": {"input_tokens": 7, "output_tokens": 1},
}
BLOCK = {"type": "content_block_start", "index": 0, "content_block": {"type": "text", "text": ""}}
DELTA = {"type": "text_delta", "text": TEXT.decode()}


def message_ending(tokens: int) -> bytes:
    """Return the last events of an answer of Anthropic's."""
    told = {"stop_reason": "end_turn", "stop_sequence": None}
    last = {"type": "message_delta", "delta": told, "usage": {"output_tokens": tokens}}
    stop = {"type": "content_block_stop", "index": 0}
    return events(stop, last, {"type": "message_stop"})


ITEM = {"id": "msg_bench", "type": "message", "role": "assistant"}
PLACE = {"item_id": "msg_bench", "output_index": 0, "content_index": 0}
RESPONSE = {"id": "resp_bench", "object": "response", "created_at": 1760000000, "model": "mock"}


def part(text: str) -> dict[str, Any]:
    """Return a part of an item of the Responses API."""
    return {"type": "output_text", "annotations": [], "logprobs": [], "text": text}


def response_opening() -> bytes:
    """Return the first events of an answer of the Responses API."""
    begun = RESPONSE | {"status": "in_progress", "output": []}
    item = ITEM | {"status": "in_progress", "content": []}
    return events(
        {"type": "response.created", "response": begun},
        {"type": "response.in_progress", "response": begun},
        {"type": "response.output_item.added", "output_index": 0, "item": item},
        {"type": "response.content_part.added", **PLACE, "part": part("")},
    )


def response_ending(tokens: int) -> bytes:
    """Return the last events of an answer of the Responses API, which repeat its text."""
    text = TEXT.decode() * tokens
    item = ITEM | {"status": "completed", "content": [part(text)]}
    usage = {"input_tokens": 7, "output_tokens": tokens, "total_tokens": tokens + 7}
    whole = RESPONSE | {"status": "completed", "output": [item], "usage": usage}
    return events(
        {"type": "response.output_text.done", **PLACE, "text": text},
        {"type": "response.content_part.done", **PLACE, "part": part(text)},
        {"type": "response.output_item.done", "output_index": 0, "item": item},
        {"type": "response.completed", "response": whole},
    )


CHAT = Form(CHUNK % b"content", UNUSED, chat_ending)
USAGE = Form(CHUNK % b"content", USED, chat_ending)
REASONING = Form(CHUNK % b"reasoning_content", UNUSED, chat_ending)
MESSAGES = Form(
    *around({"type": "content_block_delta", "index": 0, "delta": DELTA}),
    message_ending,
    events({"type": "message_start", "message": MESSAGE}, BLOCK),
)
RESPONSES = Form(
    *around({"type": "response.output_text.delta", **PLACE, "delta": TEXT.decode()}),
    response_ending,
    response_opening(),
)


def form_of(path: str) -> Form:
    """Return the form that a request's path asks for."""
    if path.endswith("/messages"):
        return MESSAGES
    if path.endswith("/responses"):
        return RESPONSES
    return {"usage": USAGE, "reasoning": REASONING}.get(path.split("/")[1], CHAT)
