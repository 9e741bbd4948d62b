"""Chat completions: a conversation in the form of the API."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeGuard

from polos_service.models.arguments import object_json
from polos_service.models.messages import (
    Call,
    Media,
    Message,
    Part,
    Reasoning,
    Result,
    Text,
    text_of,
)
from polos_service.models.openai.dialect import PLAIN, Dialect
from polos_service.models.state import state_for

ID_LENGTH = 9
"""Hexadecimal digits of an id in place of one that a server does not take; every server does."""

SHOWN_NEXT = "The result is in the next user message."
"""What a tool message says whose result is media alone: the API takes only text there."""

THINKING = "thinking"
"""The type of a part of the content that holds reasoning; Mistral's models write such parts."""

Said = Text | Media | Reasoning
"""What can be a part of the content."""

AUDIO_FORMATS = {"mpeg": "mp3", "x-wav": "wav", "wave": "wav", "vnd.wave": "wav"}
"""What the API calls formats of audio whose media type has another name."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Writer:
    """Writes conversations for a server.

    Attributes:
        provider: the provider's name, by which it gets its state back.
        dialect: what the server expects.

    """

    provider: str
    dialect: Dialect = PLAIN

    def messages(self, messages: Sequence[Message]) -> list[dict[str, Any]]:
        """Return the messages of the API: each result of a tool is one of its own there.

        Media in results of tools stand in a user message behind all results of the turn.
        """
        return list(self._messages(messages))

    def _messages(self, messages: Sequence[Message]) -> Iterator[dict[str, Any]]:
        shown: list[Text | Media] = []
        for message in messages:
            results = [part for part in message.parts if isinstance(part, Result)]
            for result in results:
                yield self._result(result)
                shown += _media_of(result)
            if results:
                continue
            if shown:
                yield self._shown(shown)
                shown = []
            yield self._message(message)
        if shown:
            yield self._shown(shown)

    def _message(self, message: Message) -> dict[str, Any]:
        said = [part for part in message.parts if self._is_said(part)]
        made: dict[str, Any] = {"role": message.role, "content": self._content(message.role, said)}
        calls = [self._call(part) for part in message.parts if isinstance(part, Call)]
        if calls:
            made["content"] = made["content"] or self.dialect.no_text
            made["tool_calls"] = calls
        thoughts: dict[str, str] = {}
        for part in message.parts:
            if isinstance(part, Reasoning) and self.dialect.reasoning and not self._is_said(part):
                name = self._state(part).get("field", self.dialect.reasoning)
                thoughts[name] = thoughts.get(name, "") + part.text
        made |= {name: thought for name, thought in thoughts.items() if thought}
        return {**made, **self._state(message)}

    def _is_said(self, part: Part) -> TypeGuard[Said]:
        """Return whether a part stands in the content, as reasoning does at some servers."""
        if isinstance(part, Reasoning):
            return self._state(part).get("part") == THINKING
        return isinstance(part, Text | Media)

    def _content(self, role: str, said: Sequence[Said]) -> str | list[dict[str, Any]]:
        """Return a string where it says the same as a list: every server takes it."""
        plain = all(isinstance(part, Text) and not part.state for part in said)
        if plain and (role == "assistant" or len(said) <= 1):
            return text_of(said)
        return [self._part(part) for part in said]

    def _part(self, part: Said) -> dict[str, Any]:
        state = self._state(part)
        if isinstance(part, Reasoning):
            return {"type": THINKING, THINKING: [{"type": "text", "text": part.text}]}
        if isinstance(part, Text):
            return {"type": "text", "text": part.text, **state}
        made = _media(part, state.get("file_id"))
        return _with(made, {name: state[name] for name in state if name != "file_id"})

    def _call(self, call: Call) -> dict[str, Any]:
        state, made = self._state(call), {"id": self._id(call.id)}
        if state.get("type") == "custom":
            custom = {"name": call.name, "input": json.loads(call.arguments_json)}
            return _with({**made, "custom": custom}, state)
        function = {"name": call.name, "arguments": object_json(call.arguments_json)}
        return _with({**made, "type": "function", "function": function}, state)

    def _result(self, result: Result) -> dict[str, Any]:
        content = text_of(result.content) or (SHOWN_NEXT if _media_of(result) else "")
        made = {"role": "tool", "tool_call_id": self._id(result.call_id), "content": content}
        return {**made, **self._state(result)}

    def _shown(self, parts: Sequence[Text | Media]) -> dict[str, Any]:
        return {"role": "user", "content": [self._part(part) for part in parts]}

    def _id(self, call_id: str) -> str:
        if self.dialect.call_ids is None or self.dialect.call_ids.fullmatch(call_id):
            return call_id
        return hashlib.sha256(call_id.encode()).hexdigest()[:ID_LENGTH]

    def _state(self, one: Message | Text | Media | Call | Result | Reasoning) -> Mapping[str, Any]:
        return state_for(one.state, self.provider) if one.state else one.state


def _media_of(result: Result) -> list[Text | Media]:
    """Return the media of a result, behind a text that says whose they are."""
    media = [part for part in result.content if isinstance(part, Media)]
    return [Text(text=f"The result of the call {result.call_id}:"), *media] if media else []


def _media(part: Media, file_id: str | None) -> dict[str, Any]:
    kind, _, form = part.media_type.partition("/")
    url = part.url
    if url is None and part.data is not None:
        url = f"data:{part.media_type};base64,{part.data}" if part.media_type else part.data
    if part.type == "image" and url is not None:
        detail = {"detail": part.detail} if part.detail else {}
        return {"type": "image_url", "image_url": {"url": url, **detail}}
    if kind == "audio" and part.data is not None:
        audio = {"data": part.data, "format": AUDIO_FORMATS.get(form, form)}
        return {"type": "input_audio", "input_audio": audio}
    if kind in ("audio", "video") and url is not None:
        return {"type": f"{kind}_url", f"{kind}_url": {"url": url}}
    file = {"file_data": url, "file_id": file_id, "filename": part.name or None}
    return {"type": "file", "file": {name: told for name, told in file.items() if told is not None}}


def _with(made: Mapping[str, Any], state: Mapping[str, Any]) -> dict[str, Any]:
    """Return an object with the members of the state; those of objects in it join theirs."""
    joined = {
        name: {**made[name], **value}
        for name, value in state.items()
        if isinstance(value, Mapping) and isinstance(made.get(name), Mapping)
    }
    return {**made, **state, **joined}
