"""Providers that fail, the whole way: real HTTP, service, store, gRPC and client.

What one model call makes of a failure stands in tests/unit/test_models_openai_*; here is what
becomes of the run: its events, how often the provider is asked, what a program sees, and what
the store holds in the end.
"""

from __future__ import annotations

import asyncio
from itertools import pairwise
from pathlib import Path

import pytest

from polos import Agent, RunFailed, tool
from polos.v1.run_pb2 import RunState
from polos_service.agents.loop import MODEL_TRIES
from polos_service.runs import retries as retrying
from tests.failures.provider_failures import (
    FAILURES,
    QUOTES,
    SAID,
    Failure,
    assert_raises,
    assert_told,
)
from tests.failures.scene import (
    AGENT,
    assert_backoff,
    assert_stored,
    serving_at,
    streaming,
    unused_address,
)
from tests.support.mock_answers import call, finish, reset, say, status, tokens
from tests.support.mock_provider import MockProvider
from tests.support.reader import kinds

PASSING = [name for name, failure in FAILURES.items() if failure.retryable]
SMOOTH = ["agent_start", "step_start", "text_delta", "step_finish", "agent_finish"]


@pytest.mark.parametrize("name", FAILURES)
async def test_a_failure_that_stays_ends_the_run_with_one_error_event(
    tmp_path: Path, provider: MockProvider, pauses: list[float], name: str
) -> None:
    failure = FAILURES[name]
    for _ in range(failure.tries):
        provider.reply(*failure.reply())
    async with streaming(tmp_path, provider.url, deadlines=failure.deadlines) as (
        served,
        stream,
        log,
    ):
        assert kinds(log) == failure.kinds
        assert_told(log[-1], failure, provider.url, f"req_{failure.tries}")
        await assert_raises(stream, failure, log[-1])
        assert_stored(served, stream.id, log, RunState.RUN_STATE_FAILED)
    assert len(provider.requests) == failure.tries
    assert_backoff(pauses, failure.tries - 1)


@pytest.mark.parametrize("name", PASSING)
async def test_a_failure_that_passes_is_silent_before_the_first_output_and_announced_after_it(
    tmp_path: Path, provider: MockProvider, pauses: list[float], name: str
) -> None:
    failure = FAILURES[name]
    provider.reply(*failure.reply())
    provider.reply(say("Who", "le."))
    half = ["text_delta", "step_retry"] if failure.says else []
    async with streaming(tmp_path, provider.url, deadlines=failure.deadlines) as (
        served,
        stream,
        log,
    ):
        end = ["text_delta", "text_delta", "step_finish", "agent_finish"]
        assert kinds(log) == ["agent_start", "step_start", *half, *end]
        assert await stream.text() == "Whole."
        assert (await stream.result()).result == "Whole."
        retries = [event.data for event in log if event.event_type == "step_retry"]
        assert [(one["step_key"], one["attempt"], one["reason"]) for one in retries] == (
            [("llm:1", 2, failure.reason)] if failure.says else []
        )
        assert_stored(served, stream.id, log, RunState.RUN_STATE_COMPLETED)
    assert len(provider.requests) == 2
    assert_backoff(pauses, 1)


async def test_a_run_that_does_not_stream_is_retried_in_silence_whatever_was_said(
    tmp_path: Path, provider: MockProvider, pauses: list[float]
) -> None:
    provider.reply(say("Half"), reset())
    provider.reply(say("Whole."))
    async with serving_at(tmp_path, provider.url, AGENT) as served:
        result = await AGENT.run(served.client, "Go.")
        log = [event.WhichOneof("payload") for event in await served.events(result.agent_run_id)]
    assert result.result == "Whole."
    assert log == ["agent_start", "step_start", "step_finish", "agent_finish"]
    assert_backoff(pauses, 1)


async def test_a_provider_that_is_not_there_is_asked_again_and_then_named(
    tmp_path: Path, pauses: list[float]
) -> None:
    with unused_address() as address:
        url = f"http://{address}/v1"
        failure = Failure(
            reply=list,
            reason="model_unavailable",
            message="{of} could not be reached: the connection was refused.",
        )
        async with streaming(tmp_path, url) as (served, stream, log):
            assert kinds(log) == failure.kinds
            assert_told(log[-1], failure, url, None)
            await assert_raises(stream, failure, log[-1])
            assert_stored(served, stream.id, log, RunState.RUN_STATE_FAILED)
    assert_backoff(pauses, MODEL_TRIES - 1)


async def test_a_provider_that_never_answers_a_request_is_given_up(
    tmp_path: Path, pauses: list[float]
) -> None:
    asked = 0

    async def ignore(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        nonlocal asked
        asked += 1
        await reader.read()  # to the end: the client hangs up
        writer.close()

    async with await asyncio.start_server(ignore, "127.0.0.1", 0) as server:
        url = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}/v1"
        failure = FAILURES["stall after the head"]
        async with streaming(tmp_path, url, deadlines=failure.deadlines) as (served, stream, log):
            assert kinds(log) == failure.kinds
            assert_told(log[-1], failure, url, None)
            assert_stored(served, stream.id, log, RunState.RUN_STATE_FAILED)
    assert asked == MODEL_TRIES
    assert_backoff(pauses, MODEL_TRIES - 1)


async def test_what_was_said_and_used_before_a_failure_is_kept(
    tmp_path: Path, provider: MockProvider
) -> None:
    @tool
    def add(a: int, b: int) -> int:
        return a + b

    agent = Agent("helper", "openai", "mock", tools=[add])
    provider.reply(
        say("Adding."), call("add", {"a": 1, "b": 2}), finish("tool_calls", usage=tokens(7, 3))
    )
    provider.reply(status(401))
    async with streaming(tmp_path, provider.url, agent) as (served, stream, log):
        model_call = ["step_start", "text_delta", "tool_call", "step_finish"]
        tool_call = ["step_start", "step_finish"]
        failed_call = ["step_start", "step_finish"]
        assert kinds(log) == ["agent_start", *model_call, *tool_call, *failed_call, "error"]
        assert log[-1].data["usage"]["total_tokens"] == 10
        with pytest.raises(RunFailed) as failed:
            await stream.result()
        assert (failed.value.text, failed.value.usage.total_tokens) == ("Adding.", 10)
        assert_stored(served, stream.id, log, RunState.RUN_STATE_FAILED)


async def test_a_retry_waits_as_long_as_the_provider_asks(
    tmp_path: Path, provider: MockProvider, pauses: list[float]
) -> None:
    provider.reply(status(429, QUOTES, retry_after="7"))
    provider.reply(status(503, QUOTES, retry_after_ms="2500"))
    provider.reply(say("Whole."))
    async with streaming(tmp_path, provider.url) as (_, stream, log):
        assert kinds(log) == SMOOTH
        assert await stream.text() == "Whole."
    assert pauses == [7.0, 2.5]


async def test_a_provider_that_asks_for_too_long_a_wait_is_not_waited_for(
    tmp_path: Path, provider: MockProvider, pauses: list[float]
) -> None:
    failure = Failure(
        reply=lambda: [status(429, QUOTES, retry_after="3600")],
        reason="model_rate_limited",
        message=f"{{of}} is rate limited (HTTP 429): {SAID} The provider asks to wait 3600 s.",
    )
    provider.reply(*failure.reply())
    async with streaming(tmp_path, provider.url) as (served, stream, log):
        assert kinds(log) == failure.kinds
        assert_told(log[-1], failure, provider.url, "req_1")
        await assert_raises(stream, failure, log[-1])
        assert_stored(served, stream.id, log, RunState.RUN_STATE_FAILED)
    assert len(provider.requests) == 1
    assert pauses == []


async def test_the_time_between_tries_is_spent_and_grows(
    tmp_path: Path, provider: MockProvider, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(retrying, "BACKOFF_BASE", 0.1)
    times = []
    loop = asyncio.get_running_loop()
    for _ in range(2):
        provider.reply(status(500))
    provider.reply(say("Whole."))
    async with serving_at(tmp_path, provider.url, AGENT) as served:
        running = asyncio.create_task(AGENT.run(served.client, "Go."))
        for number in (1, 2, 3):
            await provider.received(number)
            times.append(loop.time())
        assert (await running).result == "Whole."
    first, second = (after - before for before, after in pairwise(times))
    assert first >= 0.05
    assert second >= 0.1
