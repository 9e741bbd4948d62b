"""A long conversation is converted in a thread, and so is a long answer; a short one at once."""

from __future__ import annotations

import json
import threading
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import pytest

from polos.v1.event_pb2 import Cost
from polos_service.models import ModelAnswer
from polos_service.models.draft import LONG_BYTES, Draft
from polos_service.models.messages import Call, Media, Message, Part, Reasoning, Result, Text
from polos_service.models.remote import Remote
from polos_service.models.sending import LARGE_BYTES, LARGE_PARTS, encode
from tests.support.mock_answers import call
from tests.support.mock_provider import MockProvider
from tests.support.models import HI, REQUEST, ask

LONG = "x" * LARGE_BYTES


def said(*parts: Part) -> Message:
    return Message(role="user", parts=parts)


@pytest.mark.parametrize(
    ("messages", "large"),
    [
        ([HI], False),
        ([HI] * LARGE_PARTS, False),
        ([HI] * (LARGE_PARTS + 1), True),
        ([said(*[Text(text="")] * LARGE_PARTS * 2)], True),
        ([said(Text(text=LONG[1:]))], False),
        ([said(Text(text=LONG[1:])), HI], True),
        ([said(Reasoning(text=LONG + "x"))], True),
        ([said(Call(id="1", name="f", arguments_json=LONG + "x"))], True),
        ([said(Media(type="image", data=LONG + "x"))], True),
        ([said(Media(type="file", url=LONG + "x"))], True),
        ([said(Result(call_id="1", content=(Text(text=LONG + "x"),)))], True),
        ([said(Result(call_id="1", content=(Text(text=""),) * LARGE_PARTS * 2))], True),
    ],
)
async def test_how_large_a_conversation_is_decides_where_it_is_converted(
    messages: Sequence[Message], *, large: bool
) -> None:
    threads: list[int] = []

    def build() -> dict[str, Any]:
        threads.append(threading.get_ident())
        return {"messages": [{"é": 2**70, "half": "\ud83d"}], "x": [], "y": {"z": None}}

    body, data = await encode(replace(REQUEST, messages=messages), build)
    assert (threads != [threading.get_ident()]) == large
    assert json.loads(data) == body == build()


async def test_a_failure_to_convert_is_raised() -> None:
    def build() -> dict[str, Any]:
        raise KeyError

    for count in (1, LARGE_PARTS * 2):
        with pytest.raises(KeyError):
            await encode(replace(REQUEST, messages=[HI] * count), build)


@pytest.mark.parametrize("size", [1000, 2 * LONG_BYTES])
async def test_a_long_answer_is_made_in_a_thread(
    provider: MockProvider, model: Remote, monkeypatch: pytest.MonkeyPatch, size: int
) -> None:
    threads: list[int] = []

    def answer(self: Draft, cost: Cost | None) -> ModelAnswer:
        threads.append(threading.get_ident())
        return made(self, cost)

    made = Draft.answer
    monkeypatch.setattr(Draft, "answer", answer)
    provider.reply(call("use", {"text": "x" * size}))
    told, _ = await ask(model)
    assert len(told.calls[0].arguments_json) > size
    assert (threads != [threading.get_ident()]) == (size > LONG_BYTES)
