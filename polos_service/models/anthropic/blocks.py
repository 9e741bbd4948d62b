"""The Messages API: the content blocks that the parts of a message become.

A block has no empty text: the API refuses the whole request for one, blank or empty.
"""

from __future__ import annotations

import base64
import re
from collections.abc import Mapping
from typing import Any

import orjson

from polos.v1.error_pb2 import FailureReason
from polos_service.errors import StepError
from polos_service.models.draft import state_for
from polos_service.models.messages import Call, Media, Reasoning, Result, Text

Block = dict[str, Any]

MAX_NAME = 128
"""Characters of a tool's name that the API takes."""

_NOT_A_WORD = re.compile("[^a-zA-Z0-9_-]")
"""What the API refuses in the names and the ids of calls."""


def text_block(part: Text, provider: str) -> Block | None:
    """Return the block of a text; None if the text is blank."""
    if not part.text.strip():
        return None
    return {"type": "text", "text": part.text, **state_for(part.state, provider)}


def said_block(part: Text | Media, provider: str) -> Block | None:
    """Return the block of what a user or a tool says; None if it is a blank text.

    Raises:
        StepError: it is a file of a kind that the API does not take.

    """
    if isinstance(part, Text):
        return text_block(part, provider)
    state = state_for(part.state, provider)
    if part.type == "image":
        return {"type": "image", "source": state.get("source") or _image(part), **state}
    title = {"title": part.name} if part.name else {}
    source = state.get("source") or _document(part)
    return {"type": "document", "source": source, **title, **state}


def reasoning_block(part: Reasoning, provider: str) -> Block | None:
    """Return the block that the provider sent, as it sent it; None if it comes from another one.

    The state of the part is that block, without the text that readers see.
    """
    state = state_for(part.state, provider)
    if state.get("type") == "thinking":
        return {**state, "thinking": part.text}
    return dict(state) if "type" in state else None


def call_block(part: Call, call_id: str, provider: str) -> Block:
    """Return the block of a call, with an id that the API takes."""
    return {
        "type": "tool_use",
        "id": call_id,
        "name": word(part.name)[:MAX_NAME],
        "input": _input(part.arguments_json),
        **state_for(part.state, provider),
    }


def result_block(part: Result, call_id: str, provider: str) -> Block:
    """Return the block of a result."""
    said = (said_block(one, provider) for one in part.content)
    content = [one for one in said if one is not None]
    made: Block = {"type": "tool_result", "tool_use_id": call_id}
    if part.failed:
        # The API refuses an error without content.
        content = content or [{"type": "text", "text": "The tool failed."}]
        made["is_error"] = True
    if content:
        made["content"] = content
    return {**made, **state_for(part.state, provider)}


def word(text: str) -> str:
    """Return the text as a name or id that the API takes."""
    return _NOT_A_WORD.sub("_", text) or "_"


def _input(arguments: str) -> Mapping[str, Any]:
    """Return the arguments; none if they are not a JSON object, of which the result tells."""
    try:
        value = orjson.loads(arguments)
    except ValueError:
        return {}
    return value if isinstance(value, dict) else {}


def _image(part: Media) -> Block:
    if part.url is not None:
        return {"type": "url", "url": part.url}
    return {"type": "base64", "media_type": part.media_type, "data": _data(part)}


def _document(part: Media) -> Block:
    if part.url is not None:
        return {"type": "url", "url": part.url}
    if part.media_type == "application/pdf":
        return {"type": "base64", "media_type": part.media_type, "data": _data(part)}
    if part.media_type.startswith("text/"):
        text = base64.b64decode(_data(part)).decode(errors="replace")
        return {"type": "text", "media_type": "text/plain", "data": text}
    raise _refused(f"of the type {part.media_type!r}: it takes application/pdf and text/*")


def _data(part: Media) -> str:
    if part.data is None:
        raise _refused("without an address or content")
    return part.data


def _refused(what: str) -> StepError:
    return StepError(
        FailureReason.FAILURE_REASON_MODEL_BAD_REQUEST,
        f"The Messages API does not take a file {what}. Change the conversation.",
    )
