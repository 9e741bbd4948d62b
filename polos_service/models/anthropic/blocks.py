"""The Messages API: the content blocks that the parts of a message become.

A block has no empty text: the API refuses the whole request for one, blank or empty.

The state of a part holds what the provider sent of its block, and what a caller wants of it:
`block` goes back as it came, of anything else only what the API knows.
"""

from __future__ import annotations

import base64
import re
from collections.abc import Iterable
from typing import Any

import orjson

from polos.v1.error_pb2 import FailureReason
from polos_service.errors import StepError
from polos_service.models.arguments import object_json
from polos_service.models.messages import Call, Media, Reasoning, Result, Text
from polos_service.models.state import state_for

Block = dict[str, Any]

BLOCK = "block"
"""The member of a part's state with what the provider sent of its block."""

CHOSEN = ("cache_control",)
"""Members of any block that a caller may set. The API refuses those that it does not know."""

CHOSEN_OF_DOCUMENTS = ("cache_control", "citations", "context", "title")
"""Members of a document that a caller may set."""

TEXT_TYPES = ("application/json", "application/xml", "application/yaml")
"""Media types of texts, beside those that begin with `text/`."""

MAX_NAME = 128
"""Characters of a tool's name that the API takes."""

_NOT_A_WORD = re.compile("[^a-zA-Z0-9_-]")
"""What the API refuses in the names and the ids of calls."""


def text_block(part: Text, provider: str) -> Block | None:
    """Return the block of a text; None if the text is blank."""
    if not part.text or part.text.isspace():
        return None
    return {"type": "text", "text": part.text, **_more(part, provider)}


def said_block(part: Text | Media, provider: str) -> Block | None:
    """Return the block of what a user or a tool says; None if it is a blank text.

    Raises:
        StepError: it is a file of a kind that the API does not take.

    """
    if isinstance(part, Text):
        return text_block(part, provider)
    file_id = state_for(part.state, provider).get("file_id")
    known = {"type": "file", "file_id": file_id} if file_id else None
    if part.type == "image":
        return {"type": "image", "source": known or _image(part), **_more(part, provider)}
    title = {"title": part.name} if part.name else {}
    more = _more(part, provider, CHOSEN_OF_DOCUMENTS)
    return {"type": "document", "source": known or _document(part), **title, **more}


def reasoning_block(part: Reasoning, provider: str) -> Block | None:
    """Return the block as the provider sent it; None if it comes from another one."""
    block = dict(state_for(part.state, provider).get(BLOCK) or {})
    if block.get("type") == "thinking":
        block["thinking"] = part.text
    return block if "type" in block else None


def call_block(part: Call, call_id: str, provider: str) -> Block:
    """Return the block of a call, with an id that the API takes."""
    return {
        "type": "tool_use",
        "id": call_id,
        "name": word(part.name)[:MAX_NAME],
        "input": orjson.loads(object_json(part.arguments_json)),
        **_more(part, provider),
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
    return {**made, **_more(part, provider)}


def word(text: str) -> str:
    """Return the text as a name or id that the API takes."""
    return _NOT_A_WORD.sub("_", text) or "_"


def _more(
    part: Text | Media | Call | Result, provider: str, chosen: Iterable[str] = CHOSEN
) -> Block:
    """Return the members of a block that the part itself does not have."""
    state = state_for(part.state, provider)
    if not state:
        return {}
    return {**state.get(BLOCK, {}), **{name: state[name] for name in chosen if name in state}}


def _image(part: Media) -> Block:
    if part.url is not None:
        return {"type": "url", "url": part.url}
    return {"type": "base64", "media_type": part.media_type, "data": _data(part)}


def _document(part: Media) -> Block:
    if part.url is not None:
        return {"type": "url", "url": part.url}
    if part.media_type == "application/pdf":
        return {"type": "base64", "media_type": part.media_type, "data": _data(part)}
    if part.media_type.startswith("text/") or part.media_type in TEXT_TYPES:
        text = base64.b64decode(_data(part)).decode(errors="replace")
        return {"type": "text", "media_type": "text/plain", "data": text}
    raise _refused(f"of the type {part.media_type!r}: it accepts PDF and text")


def _data(part: Media) -> str:
    if part.data is None:
        raise _refused("that has neither a URL nor content")
    return part.data


def _refused(what: str) -> StepError:
    return StepError(
        FailureReason.FAILURE_REASON_MODEL_BAD_REQUEST,
        f"The Messages API does not accept a file {what}. Change the conversation.",
    )
