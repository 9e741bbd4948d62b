"""The Responses API: what a request looks like.

Nothing is kept at the provider: each request holds the whole conversation. What the model said
before goes back as the provider's own items, in their order and unchanged, with their ids:
https://developers.openai.com/api/docs/guides/conversation-state and, for reasoning,
https://developers.openai.com/api/docs/guides/reasoning ("encrypted reasoning items").
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from polos_service.models import ModelRequest
from polos_service.models.arguments import object_json
from polos_service.models.messages import (
    Call,
    Media,
    Message,
    Reasoning,
    Result,
    Text,
)
from polos_service.models.openai.chat_request import json_schema
from polos_service.models.openai.responses_items import CALL, MESSAGE, REASONING, filled
from polos_service.models.output import OutputFormat, told
from polos_service.models.state import state_for

PATH = "/responses"
"""Where requests go, behind the base URL."""

NEVER_SAID = ("_output", "_reference", "_response")
"""How the types of items end that are only sent to a model."""

NESTED = ("reasoning", "text")
"""Parameters that are objects: what the run, the agent and the definition set is put together."""


def body(request: ModelRequest, provider: str) -> dict[str, Any]:
    """Return the parameters of the call; a run's options override the agent's definition."""
    made: dict[str, Any] = {
        "model": request.model,
        "input": [item for message in request.messages for item in _items(message, provider)],
        "stream": True,
        "store": False,
        "include": ["reasoning.encrypted_content"],
    }
    if request.temperature is not None:
        made["temperature"] = request.temperature
    if request.max_output_tokens is not None:
        made["max_output_tokens"] = request.max_output_tokens
    if request.output is not None:
        _demand(made, request.output)
    for chosen in (request.settings, request.options):
        for name, value in _renamed(chosen):
            nested = name in NESTED and isinstance(value, Mapping)
            made[name] = {**made.get(name, {}), **value} if nested else value
    # Tools of the provider's own, web search for example, are a setting of the agent.
    tools = [*map(_tool, request.tools), *made.get("tools", ())]
    return made | ({"tools": tools} if tools else {})


def _demand(body: dict[str, Any], output: OutputFormat) -> None:
    """Put the form of the answer into a request: with tools as well, the API takes both."""
    if output.is_object:
        body["text"] = {"format": {"type": "json_schema", **json_schema(output)}}
    else:
        body["instructions"] = told(output.schema)


def tell_instead(body: dict[str, Any]) -> bool:
    """Tell the form of the answer in words instead of in a field; return whether there was one."""
    match body.get("text"):
        case {"format": {"type": "json_schema", "schema": schema}, **rest}:
            body["text"] = rest
            body["instructions"] = told(schema)
            return True
    return False


def _renamed(chosen: Mapping[str, Any]) -> Iterator[tuple[str, Any]]:
    """Yield parameters under the names of this API: some are those of chat completions."""
    for name, value in chosen.items():
        match name:
            case "max_tokens" | "max_completion_tokens":
                yield "max_output_tokens", value
            case "reasoning_effort":
                yield "reasoning", {"effort": value}
            case "verbosity":
                yield "text", {"verbosity": value}
            case "response_format":
                yield "text", {"format": _flat(value)}
            case "tool_choice":
                yield name, _flat(value)
            case _:
                yield name, value


def _flat(value: Any) -> Any:
    """Return `{"type": T, T: {..}}`, as chat completions have it, without the inner object."""
    if isinstance(value, Mapping) and isinstance(inner := value.get(value.get("type")), Mapping):
        tools = {"tools": [_flat(tool) for tool in inner["tools"]]} if "tools" in inner else {}
        return {"type": value["type"], **inner, **tools}
    return value


def _tool(tool: Mapping[str, Any]) -> dict[str, Any]:
    # The API's default is strict, which refuses most schemas: optional parameters, for example.
    return {"type": "function", "strict": False, **tool}


def _items(message: Message, provider: str) -> Iterator[dict[str, Any]]:
    """Yield the items of a message, in order; texts and media that follow each other are one."""
    said: list[Text | Media] = []
    for part in message.parts:
        if isinstance(part, Media) or (isinstance(part, Text) and not _known(part, provider)):
            said.append(part)
            continue
        if said:
            yield _message(message.role, said, provider)
            said = []
        yield from _item(part, provider)
    if said:
        yield _message(message.role, said, provider)


def _item(part: Text | Call | Result | Reasoning, provider: str) -> Iterator[dict[str, Any]]:
    """Yield the item of a part, if it is one of this API."""
    known = _known(part, provider)
    match part:
        case Text():
            yield filled(known, part.text)
        case Call():
            own = {"type": CALL, "call_id": part.id, "name": part.name}
            yield {**known, **own, "arguments": object_json(part.arguments_json)}
        case Result():
            output = _content(part.content, provider)
            yield {"type": "function_call_output", "call_id": part.call_id, "output": output}
        case Reasoning():
            # Without its content, encrypted or not, the provider would look for an item that it
            # does not keep. That of other providers is not for this one.
            if known.get("encrypted_content") or known.get("content"):
                yield filled(known, part.text)


def _known(part: Text | Call | Result | Reasoning, provider: str) -> Mapping[str, Any]:
    """Return what was kept of the item that a part was; empty if it was none."""
    item = state_for(part.state, provider).get("item")
    if not isinstance(item, Mapping) or not isinstance(item.get("type"), str):
        return {}
    if isinstance(part, Text):
        # A caller can put anything here, too: what a model never says is not taken.
        return {} if item["type"].endswith(NEVER_SAID) else item
    return item if item["type"] == (CALL if isinstance(part, Call) else REASONING) else {}


def _message(role: str, said: Sequence[Text | Media], provider: str) -> dict[str, Any]:
    content = _content(said, provider)
    if isinstance(content, str) and role != "assistant":
        content = [{"type": "input_text", "text": content}]
    return {"type": MESSAGE, "role": role, "content": content}


def _content(said: Sequence[Text | Media], provider: str) -> str | list[dict[str, Any]]:
    """Return a string if it is all text: the only form that is never refused."""
    if all(isinstance(part, Text) for part in said):
        return "".join(part.text for part in said if isinstance(part, Text))
    return [_part(part, provider) for part in said]


def _part(part: Text | Media, provider: str) -> dict[str, Any]:
    if isinstance(part, Text):
        return {"type": "input_text", "text": part.text}
    data = part.data
    if data is not None and part.media_type:
        data = f"data:{part.media_type};base64,{data}"
    made: dict[str, Any] = {"file_id": state_for(part.state, provider).get("file_id")}
    if part.type == "image":
        made |= {"image_url": part.url or data, "detail": part.detail or "auto"}
    else:
        made |= {"file_url": part.url, "file_data": data, "filename": part.name or None}
    told = {name: value for name, value in made.items() if value is not None}
    return {"type": f"input_{part.type}", **told}
