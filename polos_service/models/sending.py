"""What a request is sent as: the conversation in the form of an API, as JSON.

A long conversation is converted and encoded in a thread: it would hold the loop, and with it every
other run, for as long as it is long.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable, Iterator
from typing import Any

import orjson

from polos_service.models import ModelRequest
from polos_service.models.messages import Part

LARGE_BYTES = 64 * 1024
"""Characters of a conversation from which on it is converted in a thread: that takes about as long
as the change of threads."""

LARGE_PARTS = 200
"""Messages and parts of messages from which on it is."""


async def encode(
    request: ModelRequest, build: Callable[[], dict[str, Any]]
) -> tuple[dict[str, Any], bytes]:
    """Return the parameters of a call, and the JSON text of them.

    Args:
        request: what is asked.
        build: makes the parameters; may run in a thread.

    """
    if is_large(request):
        return await asyncio.to_thread(_encode, build)
    body = build()
    return body, _dumped(body)


def is_large(request: ModelRequest) -> bool:
    """Return whether converting a request may take longer than others are to wait."""
    if len(request.messages) + len(request.tools) > LARGE_PARTS:
        return True
    size = 0
    for count, part in enumerate(_parts(request)):
        size += _size(part)
        if count > LARGE_PARTS or size > LARGE_BYTES:
            return True
    return False


def _parts(request: ModelRequest) -> Iterator[Part]:
    for message in request.messages:
        for part in message.parts:
            if part.type == "result":
                yield from part.content
            yield part


def _size(part: Part) -> int:
    match part.type:
        case "text" | "reasoning":
            return len(part.text)
        case "call":
            return len(part.arguments_json)
        case "image" | "file":
            return len(part.data or "") + len(part.url or "")
    return 0


def _encode(build: Callable[[], dict[str, Any]]) -> tuple[dict[str, Any], bytes]:
    """Encode each message alone: the encoder keeps other threads waiting until it is done."""
    body = build()
    fields = (_dumped(name) + b":" + _listed(value) for name, value in body.items())
    return body, b"{" + b",".join(fields) + b"}"


def _listed(value: Any) -> bytes:
    if isinstance(value, list):
        return b"[" + b",".join(map(_dumped, value)) + b"]"
    return _dumped(value)


def _dumped(value: Any) -> bytes:
    try:
        return orjson.dumps(value)
    except TypeError:  # an integer beyond 64 bits, half a surrogate pair: JSON knows both
        return json.dumps(value, separators=(",", ":")).encode()
