"""Agents with an output schema at each provider: refusals, cut answers, tools, repair."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from typing import Any

import pytest
from pydantic import BaseModel, SecretStr

from polos.v1.error_pb2 import FailureReason
from polos_client.define.agent import Agent
from polos_client.define.tool import tool
from polos_client.fold import RunAccumulator
from polos_service.models import Model
from polos_service.models.anthropic.presets import ANTHROPIC
from polos_service.models.openai.presets import OPENAI
from polos_service.models.preset import Account
from polos_service.models.remote import Remote
from polos_service.store.sqlite import SqliteStore
from tests.support import mock_answers, mock_anthropic, mock_responses
from tests.support.agents import played
from tests.support.mock_anthropic import MockAnthropic
from tests.support.mock_provider import MockProvider

REFUSED = FailureReason.FAILURE_REASON_MODEL_REFUSED
CUT = FailureReason.FAILURE_REASON_MODEL_CUT_SHORT
WORDS = "I cannot do that."
TEXT = '{"item": "tea"}'


class Order(BaseModel):
    item: str


@tool
def stock(item: str) -> int:
    return 3


class Place:
    """A provider that a test tells what to answer, and a model that asks it."""

    def __init__(self, mock: MockProvider, api: str) -> None:
        self.mock = mock
        self.api = api
        preset = ANTHROPIC if api == "messages" else OPENAI
        self.model: Model = Remote(preset, Account(base_url=mock.url, key=SecretStr("unused")))

    def agent(self, **more: Any) -> Agent:
        api = None if self.api == "messages" else self.api
        agent = Agent("a", "scripted", "m", output_schema=Order, **more)
        agent.provider_llm_api = api
        return agent

    def says(self, text: str) -> None:
        if self.api == "messages":
            self.mock.reply(mock_anthropic.start(), mock_anthropic.say(text))  # type: ignore[arg-type]
        elif self.api == "responses":
            self.mock.reply(mock_responses.responses(mock_responses.say(text)))
        else:
            self.mock.reply(mock_answers.say(text))

    def calls(self) -> None:
        told: Any = ("stock", {"item": "tea"})
        if self.api == "messages":
            self.mock.reply(mock_anthropic.start(), mock_anthropic.call(*told))  # type: ignore[arg-type]
        elif self.api == "responses":
            self.mock.reply(mock_responses.responses(mock_responses.call(*told)))
        else:
            self.mock.reply(mock_answers.call(*told))


@pytest.fixture(params=["chat_completions", "responses", "messages"])
async def place(request: pytest.FixtureRequest) -> AsyncIterator[Place]:
    api = request.param
    async with MockAnthropic() if api == "messages" else MockProvider() as mock:
        found = Place(mock, api)
        yield found
        await found.model.close()


async def test_tools_then_an_invalid_answer_then_the_repair(
    store: SqliteStore, place: Place
) -> None:
    place.calls()
    place.says("It is tea.")
    place.says(TEXT)
    events = await played(store, place.agent(tools=[stock]), place.model)
    assert events[-1].agent_finish.result == TEXT, events[-1]
    folded = RunAccumulator(events[0].run_id)
    folded.add(events)
    assert folded.text == TEXT
    first, second, repair = (one.body for one in place.mock.requests)
    both = place.api != "chat_completions"  # at an address that is not OpenAI's own
    assert [_has_schema(one) for one in (first, second, repair)] == [both, both, True]
    assert first["tools"]
    if place.api == "messages":
        assert repair["tool_choice"] == {"type": "none"}
        assert [one["role"] for one in repair["messages"]] == ["user", "assistant"] * 2 + ["user"]
    else:
        assert "tools" not in repair
    assert "The answer is not valid JSON" in json.dumps(repair)


async def test_a_refusal_is_one_call_and_told_in_its_words(
    store: SqliteStore, place: Place
) -> None:
    mock: Any = place.mock
    if place.api == "messages":
        mock.reply(
            mock_anthropic.start(), mock_anthropic.say(WORDS), mock_anthropic.finish("refusal")
        )
    elif place.api == "responses":
        mock.reply(mock_responses.responses(mock_responses.say(WORDS, refusal=True)))
    else:
        mock.reply(mock_answers.delta(refusal=WORDS))
    events = await played(store, place.agent(), place.model)
    error = events[-1].error
    assert (error.reason, error.total_steps) == (REFUSED, 1)
    assert error.message == f"The model refused to answer: {WORDS}"
    assert len(mock.requests) == 1


async def test_an_answer_that_is_cut_is_one_call(store: SqliteStore, place: Place) -> None:
    mock: Any = place.mock
    if place.api == "messages":
        mock.reply(
            mock_anthropic.start(), mock_anthropic.say(TEXT), mock_anthropic.finish("max_tokens")
        )
    elif place.api == "responses":
        told = {"reason": "max_output_tokens"}
        mock.reply(
            mock_responses.sent(
                mock_responses.events(
                    mock_responses.say(TEXT), status="incomplete", incomplete_details=told
                )
            )
        )
    else:
        mock.reply(mock_answers.say(TEXT), mock_answers.finish("length"))
    events = await played(store, place.agent(), place.model)
    assert (events[-1].error.reason, len(mock.requests)) == (CUT, 1)


async def test_a_filtered_answer_is_one_call(store: SqliteStore) -> None:
    async with MockProvider() as mock:
        place = Place(mock, "chat_completions")
        mock.reply(mock_answers.say('{"item'), mock_answers.finish("content_filter"))
        events = await played(store, place.agent(), place.model)
        await place.model.close()
    error = events[-1].error
    assert (error.reason, len(mock.requests)) == (REFUSED, 1)
    assert error.message == "The provider's content filter withheld the answer: {\"item"


def _has_schema(body: dict[str, Any]) -> bool:
    text, config = body.get("text", {}), body.get("output_config", {})
    return "response_format" in body or "format" in text or "format" in config
