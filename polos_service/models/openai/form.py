"""The OpenAI form of a conversation, in which callers send one."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from polos_service.models.messages import Call, Media, Message, Part, Reasoning, Result, Text


def messages_of(form: Sequence[Mapping[str, Any]], provider: str) -> list[Message]:
    """Return a conversation that stands in the form of the OpenAI chat API.

    Args:
        form: the messages.
        provider: the provider that gets back the members that are not in the API.

    """
    return [_message(one, provider) for one in form]


def _message(one: Mapping[str, Any], provider: str) -> Message:
    role = one["role"]
    content = _parts(one.get("content"))
    if role == "tool":
        return Message(
            role=role, parts=(Result(call_id=str(one.get("tool_call_id")), content=content),)
        )
    parts: list[Part] = []
    if thought := one.get("reasoning_content"):
        parts.append(Reasoning(text=thought))
    parts += content
    parts += [_call(call) for call in one.get("tool_calls") or ()]
    known = {"role", "content", "reasoning_content", "tool_calls", "tool_call_id"}
    state = {name: value for name, value in one.items() if name not in known}
    return Message(role=role, parts=tuple(parts), state={provider: state} if state else {})


def _parts(content: Any) -> tuple[Text | Media, ...]:
    if content is None:
        return ()
    if isinstance(content, str):
        return (Text(text=content),)
    return tuple(_part(part) for part in content)


def _part(part: Mapping[str, Any]) -> Text | Media:
    if part["type"] == "text":
        return Text(text=part["text"])
    return Media(type="image", url=part["image_url"]["url"])


def _call(call: Mapping[str, Any]) -> Call:
    function = call["function"]
    return Call(id=call["id"], name=function["name"], arguments_json=function["arguments"])
