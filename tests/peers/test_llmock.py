"""LLMock, a mock of providers that others wrote: its answers are read whole, whatever it breaks."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass
from typing import Any

import pytest

from polos import Agent, Deadlines, Event, Polos, RunFailed, Tool, tool
from polos_service.agents.loop import MODEL_TRIES
from polos_service.runs import retries
from tests.support.llmock import Behavior, LLMock, fail, fault, llmock, reply

DIALECTS: dict[str, tuple[str, dict[str, Any]]] = {
    "chat": ("/v1", {"provider": "openai"}),
    "responses": ("/v1", {"provider": "openai", "provider_llm_api": "responses"}),
    "anthropic": ("/anthropic", {"provider": "anthropic"}),
}
"""By name: the path of the base URL, and what an agent names to have it spoken."""

COMPATIBLE = ["/mistral/v1", "/groq/openai/v1", "/together/v1", "/perplexity/v1", "/ai21/v1"]
"""Paths of further providers with chat completions, each with oddities that LLMock copies."""

TEXT = "Grüße, 世界!  Two  spaces,\n\na blank line and 𝄞."

TRANSIENT = [408, 409, 429, 500, 502, 503, 504, 529]
FINAL = [400, 401, 402, 403, 404, 405, 413, 415, 422]


@dataclass
class Outcome:
    """How a run ended, and how often the model was asked for it."""

    text: str
    events: list[Event]
    requests: list[dict[str, Any]]
    findings: list[str]
    error: RunFailed | None = None
    result: Any = None

    @property
    def again(self) -> int:
        """How often the model was asked for what it had been asked before."""
        begun = [one.data["step_type"] for one in self.events if one.event_type == "step_start"]
        return len(self.requests) - begun.count("llm")

    @property
    def voided(self) -> list[str]:
        """Why output that was streamed became void."""
        return [one.data["reason"] for one in self.events if one.event_type == "step_retry"]


class Asking:
    """Runs agents at LLMock."""

    def __init__(self, mock: LLMock, client: Polos, dialect: str) -> None:
        self.mock = mock
        self._client = client
        self._dialect = dialect
        self._path, self._settings = DIALECTS[dialect]

    def at(self, path: str) -> Asking:
        """Return the same at another path."""
        other = Asking(self.mock, self._client, "chat")
        other._path = path
        return other

    async def run(self, *behaviors: Behavior, tools: tuple[Tool, ...] = (), **more: Any) -> Outcome:
        """Run an agent whose model meets these."""
        model = self.mock.model(*behaviors)
        agent = Agent(
            id=f"{self._dialect}{self._path.replace('/', '.')}-{model}",
            model=model,
            provider_base_url=self.mock.url + self._path,
            tools=tools,
            **self._settings,
            **more,
        )
        stream = await agent.stream(self._client, "What is the answer?")
        error = result = None
        try:
            result = await stream.result()
        except RunFailed as failed:
            error = failed
        events = [event async for event in stream.events]
        text = result.result if result else ""
        # LLMock's records are asked for in a thread: they wait for what is still in flight.
        requests = await asyncio.to_thread(self.mock.requests, model)
        findings = await asyncio.to_thread(self.mock.findings, model)
        return Outcome(text, events, requests, findings, error, result)


@pytest.fixture(scope="module")
def mock() -> Iterator[LLMock]:
    with llmock("--response-style=static") as running:
        yield running


@pytest.fixture
async def client(monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Polos]:
    monkeypatch.setattr(retries, "BACKOFF_BASE", 0.12)  # LLMock demands 0.05 s
    async with Polos() as running:
        yield running


@pytest.fixture(params=DIALECTS)
def asking(request: pytest.FixtureRequest, mock: LLMock, client: Polos) -> Asking:
    return Asking(mock, client, request.param)


async def test_an_answer_is_streamed_and_whole_and_its_tokens_are_told(asking: Asking) -> None:
    found = await asking.run(reply(TEXT))
    deltas = [one.data["content"] for one in found.events if one.event_type == "text_delta"]
    assert len(deltas) > 5
    assert "".join(deltas) == found.text == TEXT
    assert found.result.usage.output_tokens == len(TEXT) // 4  # what LLMock takes for tokens
    assert found.result.usage.input_tokens == len("What is the answer?") // 4
    assert found.findings == []


@pytest.mark.parametrize("path", COMPATIBLE)
async def test_other_providers_of_chat_completions_are_read_as_well(
    mock: LLMock, client: Polos, path: str
) -> None:
    calls: list[tuple[int, str]] = []
    asking = Asking(mock, client, "chat").at(path)
    said, called = await asyncio.gather(
        asking.run(reply(TEXT)),
        asking.run(
            reply(None, ("note", {"number": 1, "text": "é"})), reply(TEXT), tools=(noting(calls),)
        ),
    )
    assert (said.text, called.text) == (TEXT, TEXT)
    assert calls == [(1, "é")]


def noting(calls: list[tuple[int, str]]) -> Tool:
    """Return a tool that notes with what it is called."""

    @tool(description="Note a number and a text")
    async def note(number: int, text: str) -> int:
        calls.append((number, text))
        return number

    return note


async def test_tools_are_called_with_the_arguments_that_were_sent(asking: Asking) -> None:
    calls: list[tuple[int, str]] = []
    wanted = [(1, "a longer text, in several fragments"), (2, 'quotes " and \\ and 𝄞')]
    asked = [("note", {"number": number, "text": text}) for number, text in wanted]
    found = await asking.run(reply("Let me see.", *asked), reply(TEXT), tools=(noting(calls),))
    assert sorted(calls) == wanted
    assert found.text == TEXT
    assert [one.status for one in found.result.tool_results] == ["completed", "completed"]
    assert len(found.requests) == 2
    assert found.findings == []


async def test_a_tool_that_the_model_chooses_itself_is_called(asking: Asking) -> None:
    calls: list[tuple[int, str]] = []
    found = await asking.run(tools=(noting(calls),))
    assert len(calls) == 1
    assert found.text.startswith("Mock response from model-")


@pytest.mark.parametrize(
    ("kind", "reason"),
    [("malformed_arguments", "tool_bad_arguments"), ("unknown_tool", "tool_not_found")],
)
async def test_a_broken_call_is_told_to_the_model_which_goes_on(
    asking: Asking, kind: str, reason: str
) -> None:
    calls: list[tuple[int, str]] = []
    found = await asking.run({"type": "tool_fault", "kind": kind}, tools=(noting(calls),))
    assert calls == []
    assert found.text.startswith("Mock response from model-")
    ends = [one.data for one in found.events if one.event_type == "step_finish"]
    assert [one["reason"] for one in ends if one["step_type"] == "tool"] == [reason]
    assert found.findings == []


@pytest.mark.parametrize("kind", ["disconnect", "truncate", "malformed"])
async def test_a_stream_that_breaks_anywhere_is_asked_for_again(asking: Asking, kind: str) -> None:
    text = "One two three."
    whole = await asking.run(reply(text))
    places = range(whole.requests[0]["chunks_sent"])
    found = await asyncio.gather(
        *(asking.run(fault(kind, after), reply(text, times=2)) for after in places)
    )
    assert [one.text for one in found] == [text] * len(places)
    assert_asked_again_until_the_end_was_there(found)


@pytest.mark.parametrize("kind", ["disconnect", "truncate", "malformed"])
async def test_a_call_in_a_stream_that_breaks_anywhere_is_made_once(
    asking: Asking, kind: str
) -> None:
    whole = await asking.run(tools=(noting([]),))
    places = range(whole.requests[0]["chunks_sent"])
    calls: list[list[tuple[int, str]]] = [[] for _ in places]
    found = await asyncio.gather(
        *(asking.run(fault(kind, after), tools=(noting(calls[after]),)) for after in places)
    )
    assert [len(one) for one in calls] == [1] * len(places)
    assert all(one.text.startswith("Mock response from model-") for one in found)
    assert_asked_again_until_the_end_was_there(found)


def assert_asked_again_until_the_end_was_there(found: list[Outcome]) -> None:
    """Assert that answers broken before their end were asked for again, and the others stand."""
    again = [one.again for one in found]
    assert max(again) == 1
    assert again == sorted(again, reverse=True), "a later break is no worse than an earlier one"
    voided = {reason for one in found for reason in one.voided}
    assert voided <= {"model_cut_short", "model_malformed"}
    findings = {name for one in found if one.again for name in one.findings}
    # LLMock cannot see that an answer was not taken which it could send to its end.
    assert findings <= {"malformed_chunk_ignored"}


async def test_a_stall_ends_the_try_and_not_the_run(asking: Asking) -> None:
    patience = Deadlines(first_token=20, token_gap=0.3)
    found = await asking.run(
        fault("stall", 6, stall_seconds=1), reply(TEXT, times=2), deadlines=patience
    )
    assert (found.text, found.voided, found.again) == (TEXT, ["model_stalled"], 1)
    assert found.findings == []


async def test_a_model_that_does_not_begin_is_asked_again(asking: Asking) -> None:
    impatient = Deadlines(first_token=0.3, token_gap=20)
    slow = {"type": "delay", "seconds": 1}
    found = await asking.run(slow, reply(TEXT, times=2), deadlines=impatient)
    assert (found.text, found.again) == (TEXT, 1)


async def test_slow_answers_within_the_deadlines_are_waited_for(asking: Asking) -> None:
    slow = [{"type": "delay", "seconds": 0.3}, {"type": "slow_first_token", "seconds": 0.3}]
    found = await asking.run(*slow, reply(TEXT))
    assert (found.text, found.again) == (TEXT, 0)


async def test_a_failure_that_passes_is_outlived(asking: Asking) -> None:
    found = await asyncio.gather(
        *(asking.run(fail(status, retry_after=0.3), reply(TEXT)) for status in TRANSIENT)
    )
    assert [one.text for one in found] == [TEXT] * len(TRANSIENT)
    assert [one.again for one in found] == [1] * len(TRANSIENT)
    assert [one.findings for one in found] == [[]] * len(TRANSIENT)


async def test_a_failure_that_stays_is_told_in_the_words_of_the_provider(asking: Asking) -> None:
    said = "LLMock is tired of this"
    lasting = [fail(status, message=said, retry_after=0.1, times=None) for status in TRANSIENT]
    found = await asyncio.gather(*(asking.run(one) for one in lasting))
    for status, one in zip(TRANSIENT, found, strict=True):
        assert one.error is not None
        assert said in str(one.error)
        assert str(status) in str(one.error)
        assert len(one.requests) == MODEL_TRIES
        assert one.findings == []


async def test_a_failure_that_repeats_itself_is_told_at_once(asking: Asking) -> None:
    said = "LLMock does not take that"
    found = await asyncio.gather(
        *(asking.run(fail(status, message=said, times=None)) for status in FINAL)
    )
    for status, one in zip(FINAL, found, strict=True):
        assert one.error is not None
        assert said in str(one.error)
        assert str(status) in str(one.error)
        assert len(one.requests) == 1
        assert one.findings == []


async def test_the_finish_reason_is_told(asking: Asking) -> None:
    cut = await asking.run(reply(TEXT, finish_reason="length"))
    assert (cut.text, cut.result.finish_reason) == (TEXT, "length")


async def test_a_prompt_beyond_the_context_is_told_at_once(client: Polos) -> None:
    with llmock("--context-window=3") as mock:
        found = [await Asking(mock, client, name).run() for name in DIALECTS]
    for one in found:
        assert one.error is not None
        assert "3" in str(one.error)
        assert len(one.requests) == 1


async def test_a_quota_is_waited_for_as_long_as_the_provider_says(client: Polos) -> None:
    for name in DIALECTS:
        with llmock("--tpm=60000") as mock:
            asking = Asking(mock, client, name)
            first = await asking.run(reply(TEXT), max_output_tokens=59_500)
            second = await asking.run(reply(TEXT, times=2), max_output_tokens=1_500)
            assert (first.text, second.text) == (TEXT, TEXT)
            assert (first.again, second.again) == (0, 1)
            assert second.findings == []


async def test_whatever_breaks_at_random_a_run_ends_whole_or_says_why(client: Polos) -> None:
    broken = [f"--error-rate={status}=0.1" for status in (429, 500, 503)]
    broken += [f"--stream-fault={kind}=0.1" for kind in ("disconnect", "truncate", "malformed")]
    with llmock("--response-style=static", *broken) as mock:
        runs = [Asking(mock, client, name).run() for name in DIALECTS for _ in range(20)]
        found = await asyncio.gather(*runs)
    for one in found:
        if one.error is None:
            assert one.text.startswith("Mock response from model-")
            assert one.text.endswith(".")
        else:
            assert (len(one.requests), one.error.retryable) == (MODEL_TRIES, True)
