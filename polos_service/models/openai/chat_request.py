"""Chat completions: what a request looks like."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

from polos_service.models import ModelRequest
from polos_service.models.draft import state_for
from polos_service.models.messages import Call, Media, Message, Reasoning, Result, Text
from polos_service.models.openai.dialect import Dialect

PATH = "/chat/completions"
"""Where requests go, behind the base URL."""

BOUNDS = {"max_tokens", "max_completion_tokens"}
"""The names of the bound on the output; servers refuse two of them together."""


def body(request: ModelRequest, dialect: Dialect, provider: str) -> dict[str, Any]:
    """Return the parameters of the call; a run's options override the agent's definition."""
    messages = [
        one for message in request.messages for one in _messages(message, dialect, provider)
    ]
    made: dict[str, Any] = {"model": request.model, "messages": messages, "stream": True}
    if dialect.stream_options:
        made["stream_options"] = {"include_usage": True}
    if request.tools:
        made["tools"] = [{"type": "function", "function": dict(tool)} for tool in request.tools]
    if request.temperature is not None:
        made["temperature"] = request.temperature
    if request.max_output_tokens is not None:
        made[dialect.bound] = request.max_output_tokens
    for chosen in (request.settings, request.options):
        if BOUNDS & chosen.keys():
            made = {name: value for name, value in made.items() if name not in BOUNDS}
        made |= chosen
    return made


def _messages(message: Message, dialect: Dialect, provider: str) -> Iterator[dict[str, Any]]:
    """Yield a message in the form of the API: each result of a tool is one of its own there."""
    results = [part for part in message.parts if isinstance(part, Result)]
    for result in results:
        content = _content(result.content)
        yield {"role": "tool", "tool_call_id": result.call_id, "content": content}
    if results:
        return
    said = [part for part in message.parts if isinstance(part, Text | Media)]
    calls = [part for part in message.parts if isinstance(part, Call)]
    thought = "".join(part.text for part in message.parts if isinstance(part, Reasoning))
    made: dict[str, Any] = {"role": message.role, "content": _content(said)}
    if calls:
        made["content"] = made["content"] or dialect.no_text
        made["tool_calls"] = [_call(call) for call in calls]
    if thought and dialect.reasoning:
        made[dialect.reasoning] = thought
    yield {**made, **state_for(message.state, provider)}


def _content(parts: Sequence[Text | Media]) -> str | list[dict[str, Any]]:
    if all(isinstance(part, Text) for part in parts):
        return "".join(part.text for part in parts if isinstance(part, Text))
    return [_part(part) for part in parts]


def _part(part: Text | Media) -> dict[str, Any]:
    if isinstance(part, Text):
        return {"type": "text", "text": part.text}
    url = part.url or f"data:{part.media_type};base64,{part.data}"
    return {"type": "image_url", "image_url": {"url": url}}


def _call(call: Call) -> dict[str, Any]:
    function = {"name": call.name, "arguments": call.arguments_json}
    return {"id": call.id, "type": "function", "function": function}
