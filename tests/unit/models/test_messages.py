"""A stored conversation is read as it was, and a newer one is not read at all."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from polos_service.errors import Unable
from polos_service.models.messages import (
    Call,
    Media,
    Message,
    Part,
    Reasoning,
    Result,
    Text,
    dump,
    load,
)

TEXTS = st.sampled_from(["", "a", "東京 🗼", "\x00"])

STATES = st.sampled_from([{}, {"p": {}}, {"p": {"type": "x", "n": 2**70}, "q": {"a": [None]}}])

MEDIA = st.builds(
    Media,
    type=st.sampled_from(["image", "file"]),
    url=st.none() | TEXTS,
    data=st.none() | TEXTS,
    media_type=TEXTS,
    name=TEXTS,
    detail=TEXTS,
    state=STATES,
)

SAID = st.builds(Text, text=TEXTS, state=STATES) | MEDIA

PARTS: st.SearchStrategy[Part] = (
    SAID
    | st.builds(Call, id=TEXTS, name=TEXTS, arguments_json=TEXTS, state=STATES)
    | st.builds(Reasoning, text=TEXTS, state=STATES)
    | st.builds(
        Result,
        call_id=TEXTS,
        content=st.lists(SAID, max_size=2).map(tuple),
        failed=st.booleans(),
        state=STATES,
    )
)

MESSAGES = st.builds(
    Message,
    role=st.sampled_from(["system", "developer", "user", "assistant", "tool"]),
    parts=st.lists(PARTS, max_size=3).map(tuple),
    state=STATES,
)


@given(st.lists(MESSAGES, max_size=3))
def test_a_conversation_is_stored_whole(messages: list[Message]) -> None:
    assert load(json.loads(json.dumps(dump(messages)))) == messages


def test_plain_text_takes_little_room() -> None:
    messages = [Message(role="user", parts=(Text(text="Hi"),))]
    assert dump(messages) == {"v": 1, "messages": [{"role": "user", "parts": ["Hi"]}]}


@pytest.mark.parametrize("version", [2, None, "1", [1] * 10_000])
def test_another_version_is_refused_by_name(version: Any) -> None:
    with pytest.raises(Unable) as refused:
        load({"v": version, "messages": []})
    assert str(version)[:40] in str(refused.value)
    assert len(str(refused.value)) < 400


@pytest.mark.parametrize(
    "message",
    [
        None,
        {"role": "user"},
        {"parts": []},
        {"role": "user", "parts": 5},
        {"role": "user", "parts": [{"type": "hologram"}]},
        {"role": "user", "parts": [{"type": "text", "text": "a", "mood": 1}]},
        {"role": "user", "parts": [{"type": "result", "call_id": "a"}]},
    ],
)
def test_what_is_not_understood_whole_is_damaged(message: Any) -> None:
    with pytest.raises(ValueError, match="The stored conversation is damaged"):
        load({"v": 1, "messages": [message]})
