"""An agent at a real OpenAI-compatible server, end to end: service, log and client."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from polos import Event, PolosClient, RunFailed
from tests.e2e.stage import ASSISTANT, notes, service
from tests.support.mock_answers import Part, call, cut, finish, hang_up, hold, say, status, tokens
from tests.support.mock_provider import MockProvider
from tests.support.process import ServiceProcess
from tests.support.reader import assert_whole, kinds, texts

KEY = "planted-key-0123456789abcdef"
ORGANIZATION = "org-planted"


async def stream(polos: ServiceProcess, input: str = "Go") -> tuple[list[Event], list[str]]:
    """Run the agent and return its events and its text's chunks, with a mark at each reset."""
    async with PolosClient(polos.address) as client:
        stream = await ASSISTANT.stream(client, input)
        log = [event async for event in stream.events]
        if log[-1].event_type == "error":
            return log, []
        return log, ["<reset>" if one.reset else str(one) async for one in stream.text_chunks]


async def test_text_comes_in_the_pieces_of_the_provider(
    tmp_path: Path, provider: MockProvider
) -> None:
    provider.reply(say("Grüße", " aus ", "東京", " 🗼"), finish(usage=tokens(11, 4)))
    async with service(tmp_path, provider) as polos:
        log, chunks = await stream(polos, "Say hello")
    assert_whole(log)
    assert chunks == ["Grüße", " aus ", "東京", " 🗼"]
    assert log[-1].data["result"]["result"] == "Grüße aus 東京 🗼"
    (request,) = provider.requests
    assert request.path == "/v1/chat/completions"
    assert request.body["messages"] == [
        {"role": "system", "content": "You are precise."},
        {"role": "user", "content": "Say hello"},
    ]
    assert request.body["stream_options"] == {"include_usage": True}


async def test_a_piece_is_read_before_the_provider_says_the_next(
    tmp_path: Path, provider: MockProvider
) -> None:
    release = asyncio.Event()
    provider.reply(say("One"), hold(release), say(" two"))
    async with service(tmp_path, provider) as polos, PolosClient(polos.address) as client:
        stream = await ASSISTANT.stream(client, "Go")
        seen = []
        async for chunk in stream.text_chunks:
            seen.append(str(chunk))
            release.set()  # the provider goes on only because the first piece was read
    assert seen == ["One", " two"]


async def test_tool_calls_are_put_together_from_their_fragments(
    tmp_path: Path, provider: MockProvider
) -> None:
    provider.reply(
        say("Noting."),
        call("jot", {"text": "milk"}, call_id="call_a", index=0, pieces=5),
        call("jot", {"text": "bréad"}, call_id="call_b", index=1, pieces=4),
        finish("tool_calls", usage=tokens(20, 9)),
    )
    provider.reply(say("Noted."), finish(usage=tokens(40, 2, cached_tokens=16)))
    async with service(tmp_path, provider) as polos, PolosClient(polos.address) as client:
        stream = await ASSISTANT.stream(client, "Note milk and bread")
        log = [event async for event in stream.events]
        result = await stream.result()
    calls = [event.data["tool_call"] for event in log if event.event_type == "tool_call"]
    assert [(one["id"], one["function"]["name"]) for one in calls] == [
        ("call_a", "jot"),
        ("call_b", "jot"),
    ]
    assert sorted(
        (one.tool_call_id, one.input["text"], one.result) for one in result.tool_results
    ) == [
        ("call_a", "milk", "MILK"),
        ("call_b", "bréad", "BRÉAD"),
    ]
    assert len(notes(tmp_path)) == 2
    assert result.usage.model_dump() == {
        "input_tokens": 60,
        "output_tokens": 11,
        "total_tokens": 71,
        "cache_read_input_tokens": 16,
        "cache_creation_input_tokens": None,
        "reasoning_tokens": None,
    }
    assistant, first, second = provider.requests[1].body["messages"][2:]
    assert [one["id"] for one in assistant["tool_calls"]] == ["call_a", "call_b"]
    assert (first["tool_call_id"], first["content"]) == ("call_a", "MILK")
    assert (second["tool_call_id"], second["content"]) == ("call_b", "BRÉAD")


async def test_what_it_costs_at_another_server_is_unknown_and_absent(
    tmp_path: Path, provider: MockProvider
) -> None:
    provider.reply(say("Hi"), finish(usage=tokens(1000, 500)))
    async with service(tmp_path, provider, MODEL_NAME="gpt-4o-mini") as polos:
        log, _ = await stream(polos)
    assert provider.requests[0].body["model"] == "gpt-4o-mini"
    assert log[-1].data["usage"]["total_tokens"] == 1500
    assert [event.event_type for event in log if "cost" in event.data] == []
    assert "cost" not in log[-1].data["result"]


@pytest.mark.parametrize("end", [cut(), hang_up()], ids=["no finish reason", "connection lost"])
async def test_an_answer_that_breaks_off_is_taken_back_and_asked_for_again(
    tmp_path: Path, provider: MockProvider, end: Part
) -> None:
    provider.reply(say("Half ", "an ans"), end)
    provider.reply(say("A whole answer"))
    async with service(tmp_path, provider) as polos:
        log, chunks = await stream(polos)
    assert_whole(log)
    assert texts(log) == ["Half ", "an ans", "A whole answer"]
    assert chunks == ["Half ", "an ans", "<reset>", "A whole answer"]
    (retry,) = [event.data for event in log if event.event_type == "step_retry"]
    assert (retry["step_key"], retry["attempt"]) == ("llm:1", 2)
    assert retry["reason"] == "model_cut_short"
    assert log[-1].data["result"]["result"] == "A whole answer"


async def test_a_provider_that_asks_to_slow_down_is_asked_again_silently(
    tmp_path: Path, provider: MockProvider
) -> None:
    provider.reply(status(429, {"error": {"message": "slow down"}}, retry_after_ms="20"))
    provider.reply(say("Here"))
    async with service(tmp_path, provider) as polos:
        log, chunks = await stream(polos)
    assert len(provider.requests) == 2
    assert chunks == ["Here"]
    assert kinds(log) == [
        "agent_start",
        "step_start",
        "text_delta",
        "step_finish",
        "agent_finish",
    ]


async def test_a_key_that_is_not_taken_ends_in_an_error_event_that_hides_it(
    tmp_path: Path, provider: MockProvider
) -> None:
    for _ in range(2):
        provider.reply(status(401, {"error": {"message": f"Incorrect API key: {KEY}"}}))
    async with (
        at_the_configured_address(tmp_path, provider) as polos,
        PolosClient(polos.address) as client,
    ):
        log, _ = await stream(polos)
        with pytest.raises(RunFailed, match="key") as failed:
            await ASSISTANT.run(client, "Go")
    assert kinds(log) == ["agent_start", "step_start", "step_finish", "error"]
    assert log[-1].data["reason"] == failed.value.reason == "model_authentication"
    assert log[-1].data["retryable"] is False
    assert log[-1].data["provider_request_id"] == "req_1"
    assert KEY not in str(failed.value)
    assert_nowhere(tmp_path, log, polos)


async def test_what_the_provider_says_of_a_bad_request_is_told_without_the_key(
    tmp_path: Path, provider: MockProvider
) -> None:
    provider.reply(status(400, {"error": {"message": f"max_tokens is too large for {KEY}"}}))
    async with at_the_configured_address(tmp_path, provider) as polos:
        log, _ = await stream(polos)
    assert "max_tokens is too large" in log[-1].data["error"]
    assert log[-1].data["reason"] == "model_bad_request"
    assert_nowhere(tmp_path, log, polos)


async def test_the_key_goes_to_the_configured_address_and_nowhere_else(
    tmp_path: Path, provider: MockProvider
) -> None:
    provider.reply(call("jot", {"text": "milk"}))
    provider.reply(say("Hi"))
    async with at_the_configured_address(tmp_path, provider) as polos:
        log, chunks = await stream(polos)
    assert chunks == ["Hi"]
    for request in provider.requests:
        assert request.headers["authorization"] == f"Bearer {KEY}"
        assert KEY not in str(request.body)
    assert_nowhere(tmp_path, log, polos)


async def test_an_agents_own_address_gets_no_key_of_the_service(
    tmp_path: Path, provider: MockProvider
) -> None:
    provider.reply(say("Hi"))
    async with MockProvider() as configured:
        env = {
            "OPENAI_API_KEY": KEY,
            "OPENAI_BASE_URL": configured.url,
            "OPENAI_ORG_ID": ORGANIZATION,
            "POLOS_PROVIDER_KEYS": f'{{"{configured.url}": "{KEY}"}}',
        }
        polos = service(tmp_path, provider, **env)
        async with polos:
            _, chunks = await stream(polos)
    assert chunks == ["Hi"]
    assert configured.requests == []
    (request,) = provider.requests
    assert KEY not in str(request.headers)
    assert ORGANIZATION not in str(request.headers)


async def test_an_agents_own_address_gets_the_key_that_is_configured_for_it(
    tmp_path: Path, provider: MockProvider
) -> None:
    provider.reply(say("Hi"))
    keys = f'{{"{provider.url}": "{KEY}"}}'
    async with service(
        tmp_path, provider, OPENAI_API_KEY="another", POLOS_PROVIDER_KEYS=keys
    ) as polos:
        log, chunks = await stream(polos)
    assert chunks == ["Hi"]
    assert provider.requests[0].headers["authorization"] == f"Bearer {KEY}"
    assert_nowhere(tmp_path, log, polos)


def at_the_configured_address(folder: Path, provider: MockProvider) -> ServiceProcess:
    """Return the service of an agent without an address of its own."""
    env = {"MODEL_URL": "", "OPENAI_API_KEY": KEY, "OPENAI_BASE_URL": provider.url}
    return service(folder, provider, **env)


def assert_nowhere(folder: Path, log: list[Event], polos: ServiceProcess) -> None:
    """Assert that the key is in no event, in no file of the store, and was not printed."""
    assert KEY not in "".join(str(event.data) + str(event.proto) for event in log)
    stored = sorted(folder.glob("runs.db*"))
    assert folder / "runs.db" in stored
    assert [file.name for file in stored if KEY.encode() in file.read_bytes()] == []
    assert KEY not in polos.output
