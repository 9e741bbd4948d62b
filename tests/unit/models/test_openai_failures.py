"""The provider `openai` over real HTTP: answers that break."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from typing import Any

import pytest

from polos.v1.error_pb2 import FailureReason
from polos_service.models.draft import MAX_ANSWER_BYTES
from polos_service.models.exchange import MAX_EVENT_BYTES
from polos_service.models.remote import Remote
from tests.support.mock_answers import (
    Part,
    call,
    chunk,
    cut,
    delta,
    event,
    finish,
    hang_up,
    hold,
    raw,
    reset,
    say,
    status,
    tokens,
)
from tests.support.mock_provider import MockProvider
from tests.support.models import KEY, REQUEST, Heard, failure, openai


@pytest.mark.parametrize("said", [[], [delta(reasoning="Hm")], [call("f", '{"a": ')]])
async def test_an_answer_without_a_finish_reason_is_cut_short(
    provider: MockProvider, model: Remote, said: list[Part]
) -> None:
    provider.reply(*said, raw(b"data: [DONE]\n\n"), cut())
    error = await failure(model)
    assert error.reason == FailureReason.FAILURE_REASON_MODEL_CUT_SHORT
    assert error.retryable
    assert error.provider_request_id == "req_1"


async def test_an_answer_that_ends_in_the_middle_of_a_chunk_is_cut_short(
    provider: MockProvider, model: Remote
) -> None:
    provider.reply(say("Hel"), raw(chunk({"content": "lo"})[:40]), cut())
    assert (await failure(model)).reason == FailureReason.FAILURE_REASON_MODEL_CUT_SHORT


@pytest.mark.parametrize("ending", [reset(), hang_up()])
@pytest.mark.parametrize("said", [say("Hel"), call("f", {"a": 1})])
async def test_a_connection_lost_after_output_is_cut_short(
    provider: MockProvider, model: Remote, said: Part, ending: Part
) -> None:
    provider.reply(said, ending)
    error = await failure(model)
    assert error.reason == FailureReason.FAILURE_REASON_MODEL_CUT_SHORT
    assert error.retryable


@pytest.mark.parametrize("ending", [reset(), hang_up()])
async def test_a_connection_lost_before_output_is_unavailable(
    provider: MockProvider, model: Remote, ending: Part
) -> None:
    provider.reply(raw(b": hello\n\n"), delta(role="assistant"), ending)
    error = await failure(model)
    assert error.reason == FailureReason.FAILURE_REASON_MODEL_UNAVAILABLE
    assert error.retryable


async def test_a_connection_lost_after_the_finish_reason_lost_nothing(
    provider: MockProvider, model: Remote
) -> None:
    provider.reply(say("whole"), raw(chunk({}, "stop")), hang_up())
    assert (await model.answer(REQUEST, Heard())).text == "whole"


async def test_a_provider_that_is_not_there_is_unavailable() -> None:
    async with MockProvider() as provider:
        url = provider.url
    model = openai(base_url=url)
    try:
        error = await failure(model)
    finally:
        await model.close()
    assert error.reason == FailureReason.FAILURE_REASON_MODEL_UNAVAILABLE
    assert error.retryable
    assert url.split("/")[2] in error.message


@pytest.mark.parametrize(
    ("said", "reason", "seconds"),
    [
        ([], FailureReason.FAILURE_REASON_MODEL_FIRST_TOKEN_TIMEOUT, "0.3 s"),
        ([raw(b":\n")], FailureReason.FAILURE_REASON_MODEL_STALLED, "0.2 s"),
        ([say("Hel")], FailureReason.FAILURE_REASON_MODEL_STALLED, "0.2 s"),
    ],
)
async def test_silence_is_bounded(
    provider: MockProvider,
    model: Remote,
    said: list[Part],
    reason: FailureReason.ValueType,
    seconds: str,
) -> None:
    provider.reply(*said, hold(asyncio.Event()))
    request = replace(REQUEST, first_token=0.3, token_gap=0.2)
    error = await failure(model, request=request)
    assert (error.reason, error.retryable) == (reason, True)
    assert seconds in error.message
    assert error.provider_request_id == "req_1"


@pytest.mark.parametrize(
    ("data", "named", "retryable"),
    [
        (b"{broken", "7 bytes is not valid JSON", True),
        (b'{"x": "\\ud83d", "choices": ' + b"[" * 100_000, "is not valid JSON", True),
        (b'{"choices": [{"delta": {"tool_calls": 5}}]}', "delta.tool_calls is a number", False),
        (b'{"choices": [{"delta": {"tool_calls": ["f"]}}]}', "tool_calls is a string", False),
        (b'{"choices": [{"delta": {"function_call": [1]}}]}', "function_call is an array", False),
        (
            b'{"choices": [{"delta": {"tool_calls": [{"function": {"name": 5}}]}}]}',
            "tool_calls[].function.name is a number",
            False,
        ),
    ],
)
async def test_a_text_or_a_call_that_would_be_lost_is_malformed(
    provider: MockProvider, model: Remote, data: bytes, named: str, *, retryable: bool
) -> None:
    provider.reply(say("Hel"), raw(b"data: " + data + b"\n\n"), say("lo"))
    error = await failure(model)
    assert error.reason == FailureReason.FAILURE_REASON_MODEL_MALFORMED
    assert error.retryable == retryable
    assert named in error.message


async def test_a_tool_call_without_a_name_is_malformed(
    provider: MockProvider, model: Remote
) -> None:
    provider.reply(call("", {"a": 1}))
    assert (await failure(model)).reason == FailureReason.FAILURE_REASON_MODEL_MALFORMED


async def test_an_answer_that_is_not_a_stream_is_malformed_for_good(
    provider: MockProvider, model: Remote
) -> None:
    provider.reply(status(200, b"<html>Welcome</html>", content_type="text/html"))
    error = await failure(model)
    assert error.reason == FailureReason.FAILURE_REASON_MODEL_MALFORMED
    assert not error.retryable
    assert "base URL" in error.message


async def test_a_line_that_never_ends_is_malformed(provider: MockProvider, model: Remote) -> None:
    provider.reply(raw(b"data: ", *[b"x" * 65536] * (MAX_EVENT_BYTES // 65536)), cut())
    error = await failure(model)
    assert error.reason == FailureReason.FAILURE_REASON_MODEL_MALFORMED
    assert str(MAX_EVENT_BYTES) in error.message


@pytest.mark.parametrize(
    ("told", "reason", "retryable"),
    [
        ({"type": "server_error"}, FailureReason.FAILURE_REASON_MODEL_UNAVAILABLE, True),
        ("overloaded", FailureReason.FAILURE_REASON_MODEL_UNAVAILABLE, True),
        ({"code": 502}, FailureReason.FAILURE_REASON_MODEL_UNAVAILABLE, True),
        ({"code": 429}, FailureReason.FAILURE_REASON_MODEL_RATE_LIMITED, True),
        ({"code": "rate_limit_exceeded"}, FailureReason.FAILURE_REASON_MODEL_RATE_LIMITED, True),
        ({"type": "insufficient_quota"}, FailureReason.FAILURE_REASON_MODEL_RATE_LIMITED, False),
        ({"code": "invalid_api_key"}, FailureReason.FAILURE_REASON_MODEL_AUTHENTICATION, False),
        ({"type": "invalid_request_error"}, FailureReason.FAILURE_REASON_MODEL_BAD_REQUEST, False),
    ],
)
async def test_an_error_inside_the_stream_is_told_by_its_code(
    provider: MockProvider,
    model: Remote,
    told: Any,
    reason: FailureReason.ValueType,
    *,
    retryable: bool,
) -> None:
    error_event = told if isinstance(told, str) else {**told, "message": f"no {KEY}"}
    provider.reply(say("Hel"), raw(event({"error": error_event})), finish())
    error = await failure(model)
    assert (error.reason, error.retryable) == (reason, retryable)
    assert error.provider_request_id == "req_1"


async def test_the_finish_reason_error_is_a_failure(provider: MockProvider, model: Remote) -> None:
    provider.reply(say("Hel"), finish("error"))
    error = await failure(model)
    assert error.reason == FailureReason.FAILURE_REASON_MODEL_UNAVAILABLE
    assert error.retryable


@pytest.mark.parametrize(
    "half", [{"content": "ü" * (MAX_ANSWER_BYTES // 4)}, {"content": "x" * (MAX_ANSWER_BYTES // 2)}]
)
async def test_an_answer_beyond_its_bound_is_stopped(
    provider: MockProvider, model: Remote, half: dict[str, str]
) -> None:
    arguments = "y" * (MAX_ANSWER_BYTES // 2)
    never = asyncio.Event()
    provider.reply(delta(**half), call("f", arguments, pieces=1), hold(never))
    error = await failure(model)
    assert error.reason == FailureReason.FAILURE_REASON_OUTPUT_TOO_LARGE
    assert not error.retryable
    await asyncio.wait_for(provider.requests[0].disconnected.wait(), 10)


async def test_an_answer_at_its_bound_is_whole(provider: MockProvider, model: Remote) -> None:
    provider.reply(say(*["x" * 1024] * (MAX_ANSWER_BYTES // 1024)))
    assert len((await model.answer(REQUEST, Heard())).text) == MAX_ANSWER_BYTES


@pytest.mark.parametrize("said", [[], [say("Hel")]])
async def test_cancelling_closes_the_connection(
    provider: MockProvider, model: Remote, said: list[Part]
) -> None:
    provider.reply(raw(b":\n"), *said, hold(asyncio.Event()))
    answer = asyncio.create_task(model.answer(REQUEST, Heard()))
    async with asyncio.timeout(60):
        request = await provider.received()
        answer.cancel()
        with pytest.raises(asyncio.CancelledError):
            await answer
        await request.disconnected.wait()


async def test_an_error_of_the_output_is_not_taken_for_the_providers(
    provider: MockProvider, model: Remote
) -> None:
    class Failing(Heard):
        async def text(self, piece: str) -> None:
            raise ValueError(piece)

    provider.reply(say("x"), hold(asyncio.Event()))
    with pytest.raises(ValueError, match="x"):
        await model.answer(REQUEST, Failing())
    await asyncio.wait_for(provider.requests[0].disconnected.wait(), 10)


async def test_a_failure_tells_the_tokens_that_were_reported_before_it(
    provider: MockProvider, model: Remote
) -> None:
    told = event({"choices": [], "usage": tokens(7, 3)})
    for parts in ([say("x"), raw(told), cut()], [say("x"), raw(told), hang_up()]):
        provider.reply(*parts)
        error = await failure(model)
        assert error.usage is not None
        assert (error.usage.total_tokens, error.cost) == (10, None)
    provider.reply(say("x"), cut())
    assert (await failure(model)).usage is None
