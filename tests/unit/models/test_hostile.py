"""The provider `openai` and a server that does its worst: what holds whatever that sends."""

from __future__ import annotations

import asyncio
import gc
import sys
import tracemalloc
from collections.abc import AsyncIterator, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from pydantic import SecretStr

from polos.v1.error_pb2 import FailureReason
from polos_service.errors import StepError
from polos_service.limits import CALLS_LIMIT
from polos_service.models.exchange import MAX_EVENT_BYTES, MAX_EVENTLESS_BYTES
from polos_service.models.messages import Message, Text, reasoning_of
from polos_service.models.remote import Remote
from tests.support.hostile_behaviours import KEY_FORMS
from tests.support.hostile_provider import Hostile, hostile_provider
from tests.support.mock_answers import delta, finish, raw, say
from tests.support.mock_provider import MockProvider
from tests.support.models import HI, KEY, REQUEST, Heard, assert_tells_no_secret, openai

MEMORY = MAX_EVENT_BYTES * 5 // 4
"""Bytes that an answer may take while it is read: a line that never ends, in a growing buffer."""

IN_FLIGHT = 8 * 1024 * 1024
"""Bytes that wait in the buffers of two sockets when a connection is closed, generously."""

BAD = FailureReason.FAILURE_REASON_MODEL_BAD_REQUEST
MALFORMED = FailureReason.FAILURE_REASON_MODEL_MALFORMED
TOO_LARGE = FailureReason.FAILURE_REASON_OUTPUT_TOO_LARGE
UNAVAILABLE = FailureReason.FAILURE_REASON_MODEL_UNAVAILABLE


@pytest.fixture(scope="module")
def hostile() -> Iterator[Hostile]:
    with hostile_provider() as server:
        yield server


@pytest.fixture
async def model(hostile: Hostile) -> AsyncIterator[Remote]:
    keys = {hostile.url(f"key-{form}"): SecretStr(KEY) for form in KEY_FORMS}
    model = openai(keys=keys | {hostile.url("key-id"): SecretStr(KEY)})
    yield model
    await model.close()


async def fails(model: Remote, url: str, **fields: Any) -> StepError:
    with pytest.raises(StepError) as raised:
        await asyncio.wait_for(
            model.answer(replace(REQUEST, base_url=url, **fields), Heard()), timeout=60
        )
    assert_tells_no_secret(raised.value)
    return raised.value


@pytest.mark.parametrize(
    ("name", "reason", "within"),
    [
        ("error-endless", BAD, IN_FLIGHT),
        ("error-gzip", BAD, IN_FLIGHT),
        ("error-deflate", UNAVAILABLE, IN_FLIGHT),
        ("stream-gzip", MALFORMED, IN_FLIGHT),
        ("line", MALFORMED, MAX_EVENT_BYTES + IN_FLIGHT),
        ("comments", MALFORMED, MAX_EVENTLESS_BYTES + IN_FLIGHT),
        ("blanks", MALFORMED, MAX_EVENTLESS_BYTES + IN_FLIGHT),
        ("page", MALFORMED, MAX_EVENTLESS_BYTES + IN_FLIGHT),
        ("headers", MALFORMED, IN_FLIGHT),
        ("header-line", MALFORMED, IN_FLIGHT),
        ("empty-calls", TOO_LARGE, IN_FLIGHT),
        ("many-calls", TOO_LARGE, IN_FLIGHT),
    ],
)
async def test_an_answer_is_read_up_to_a_bound_and_the_connection_closed(
    hostile: Hostile, model: Remote, name: str, reason: FailureReason.ValueType, within: int
) -> None:
    with pytest.raises(StepError):
        await model.answer(replace(REQUEST, base_url="http://127.0.0.1:1"), Heard())  # loads all
    tracemalloc.start()
    try:
        error = await fails(model, hostile.url(name))
        used = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert error.reason == reason
    assert used < MEMORY
    assert (await asyncio.wait_for(hostile.left(name), 20)).sent < within


@pytest.mark.parametrize("name", ["empty-chunks", "empty-fragments"])
async def test_what_says_nothing_without_end_costs_no_memory_and_ends_with_the_stream_bound(
    hostile: Hostile, model: Remote, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("polos_service.models.exchange.MAX_STREAM_BYTES", 512 * 1024)
    tracemalloc.start()
    try:
        error = await fails(model, hostile.url(name))
        used = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert error.reason == TOO_LARGE
    assert used < 2 * 1024 * 1024


async def test_an_error_body_that_never_ends_is_cut_and_its_message_bounded(
    hostile: Hostile, model: Remote
) -> None:
    error = await fails(model, hostile.url("error-endless"))
    assert (error.reason, len(error.message) < 700) == (BAD, True)


async def test_an_error_body_that_drips_does_not_hide_the_status(
    hostile: Hostile, model: Remote, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("polos_service.models.connection.ERROR_SECONDS", 0.3)
    error = await fails(model, hostile.url("error-drip"))
    assert error.reason == FailureReason.FAILURE_REASON_MODEL_AUTHENTICATION


@pytest.mark.parametrize(
    ("name", "reason", "retryable"),
    [
        ("reason-phrase", BAD, False),
        ("garbage", MALFORMED, False),
        ("bad-chunks", MALFORMED, False),
        ("error-deep", UNAVAILABLE, True),
        ("error-retry-after", FailureReason.FAILURE_REASON_MODEL_RATE_LIMITED, True),
        ("reset", FailureReason.FAILURE_REASON_MODEL_CUT_SHORT, True),
        ("half-open", FailureReason.FAILURE_REASON_MODEL_FIRST_TOKEN_TIMEOUT, True),
        ("informational", FailureReason.FAILURE_REASON_MODEL_FIRST_TOKEN_TIMEOUT, True),
    ],
)
async def test_what_breaks_http_is_a_failure_of_the_model_call(
    hostile: Hostile,
    model: Remote,
    name: str,
    reason: FailureReason.ValueType,
    *,
    retryable: bool,
) -> None:
    error = await fails(model, hostile.url(name), first_token=1.0)
    assert (error.reason, error.retryable) == (reason, retryable)
    await asyncio.wait_for(hostile.left(name), 20)


async def test_a_provider_that_answers_without_reading_the_request_is_understood_and_left(
    hostile: Hostile, model: Remote, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("polos_service.models.connection.UNTAKEN_MILLISECONDS", 500)
    messages = [Message(role="user", parts=(Text(text="x" * 8_000_000),))]
    before = descriptors()
    error = await fails(model, hostile.url("error-unread"), messages=messages)
    assert (error.reason, "too long" in error.message) == (BAD, True)
    async with asyncio.timeout(20):
        while descriptors() > before:
            await asyncio.sleep(0.01)


def descriptors() -> int:
    return len(list(Path("/proc/self/fd").iterdir()))


async def test_an_answer_that_drips_is_whole(hostile: Hostile, model: Remote) -> None:
    request = replace(REQUEST, base_url=hostile.url("drip"))
    assert (await model.answer(request, Heard())).text == "Hi."


async def test_cookies_are_not_kept(hostile: Hostile, model: Remote) -> None:
    url = hostile.url("cookies").replace("127.0.0.1", "localhost")
    for _ in range(2):
        assert (await model.answer(replace(REQUEST, base_url=url), Heard())).text == "Hi."
    assert (await hostile.seen("cookies")).cookies == 0
    session: Any = model._places[url].client._session
    assert not session.cookie_jar


async def test_usage_beyond_32_bits_is_unknown(hostile: Hostile, model: Remote) -> None:
    answer = await model.answer(replace(REQUEST, base_url=hostile.url("usage")), Heard())
    assert (answer.text, answer.usage) == ("Hi.", None)


@pytest.mark.parametrize("name", ["long-id", "key-id"])
async def test_a_call_id_that_cannot_be_shown_is_replaced(
    hostile: Hostile, model: Remote, name: str
) -> None:
    answer = await model.answer(replace(REQUEST, base_url=hostile.url(name)), Heard())
    (call,) = answer.calls
    assert (call.name, call.arguments_json) == ("add", '{"a": 1, "b": 2}')
    assert call.id.startswith("call_")
    assert len(call.id) < 50


async def test_halves_of_surrogate_pairs_are_joined_across_chunks(
    hostile: Hostile, model: Remote
) -> None:
    heard = Heard()
    answer = await model.answer(replace(REQUEST, base_url=hostile.url("surrogates")), heard)
    assert answer.text == "".join(heard) == "😀 \N{REPLACEMENT CHARACTER}."


@pytest.mark.parametrize("form", KEY_FORMS)
async def test_no_form_of_the_key_is_told(hostile: Hostile, model: Remote, form: str) -> None:
    error = await fails(model, hostile.url(f"key-{form}"))
    shown = f"{error.message} {error.provider_request_id}"
    assert KEY_FORMS[form](KEY).lower() not in shown.lower()
    assert KEY[:8] not in shown
    assert error.provider_request_id.strip("req-?") == ""
    assert "[hidden]" in error.message


@pytest.mark.parametrize("form", KEY_FORMS)
async def test_no_form_of_a_password_in_the_address_is_told(
    hostile: Hostile, model: Remote, form: str
) -> None:
    error = await fails(model, hostile.url(f"key-{form}", "somebody:" + KEY))
    # The provider quotes the header's base64 of both.
    assert error.provider_request_id.strip("req-?") == ""
    assert "[hidden]" in error.message
    assert "somebody" not in f"{error.message} {error!r} {vars(error)}"


@pytest.mark.parametrize(
    "fragments",
    [
        [{"index": 2**70, "function": {"name": "f"}}],
        [{"index": -1, "function": {"name": "f"}}],
        [{"index": 0.5, "function": {"name": "f"}}],
        [{"index": True, "function": {"name": "f"}}],
        [{"index": 1, "function": {"name": "f"}}, {"index": 1.0, "function": {}}],
    ],
)
async def test_any_number_is_an_index(fragments: list[dict[str, Any]]) -> None:
    assert [call.name for call in (await answered(fragments)).calls] == ["f"]


@pytest.mark.parametrize("index", ["0" * 100_000, [], {}, None, "0"])
async def test_an_index_of_another_type_does_not_fail_the_answer(index: object) -> None:
    assert [
        c.name for c in (await answered([{"index": index, "function": {"name": "f"}}])).calls
    ] == ["f"]


async def test_as_many_calls_as_allowed_are_taken() -> None:
    calls = [{"index": at, "function": {"name": "f"}} for at in range(CALLS_LIMIT)]
    assert len((await answered(calls)).calls) == CALLS_LIMIT


async def answered(fragments: list[dict[str, Any]]) -> Any:
    async with MockProvider() as provider:
        provider.reply(delta(tool_calls=fragments), finish("tool_calls"))
        model = openai(base_url=provider.url)
        try:
            return await model.answer(REQUEST, Heard())
        finally:
            await model.close()


@pytest.mark.parametrize("field", ["content", "reasoning_content"])
async def test_an_answer_counts_as_it_comes_and_not_as_json(field: str) -> None:
    text = "\x00" * 100_000  # six bytes each in JSON
    async with MockProvider() as provider:
        provider.reply(delta(**{field: text}))
        model = openai(base_url=provider.url)
        answer = await model.answer(REQUEST, Heard())
        await model.close()
    assert text in (answer.text, reasoning_of(answer.parts))


async def test_keep_alive_comments_between_events_are_not_counted_together() -> None:
    comments = raw(b":\n" * (MAX_EVENTLESS_BYTES // 4))
    async with MockProvider() as provider:
        provider.reply(comments, say("a"), comments, say("b"), comments, say("c"))
        model = openai(base_url=provider.url)
        assert (await model.answer(REQUEST, Heard())).text == "abc"
        await model.close()


async def test_values_that_orjson_does_not_write_are_sent() -> None:
    async with MockProvider() as provider:
        provider.reply(say("x"))
        model = openai(base_url=provider.url)
        tools = [{"name": "add", "description": "half \ud83d", "parameters": {"maximum": 2**70}}]
        await model.answer(replace(REQUEST, tools=tools), Heard())
        await model.close()
    assert provider.requests[0].body["tools"][0]["function"] == tools[0]


async def test_a_long_conversation_is_not_walked_through(hostile: Hostile) -> None:
    model = openai(base_url=hostile.url("fine"))
    await model.answer(REQUEST, Heard())
    await calls_made(model, 1000)  # starts the thread
    short = await calls_made(model, 1)
    long = await calls_made(model, 60_000)
    await model.close()
    assert long < short + 6000, "something is done for each message"


async def calls_made(model: Remote, messages: int) -> int:
    """Return how many functions are called for a model call with so many messages."""
    asked = replace(REQUEST, messages=[HI] * messages)
    gc.collect()  # or it runs meanwhile, and what it finalises is counted
    calls = 0

    def count(_frame: object, kind: str, _arg: object) -> None:
        nonlocal calls
        calls += kind in ("call", "c_call")

    sys.setprofile(count)
    try:
        await model.answer(asked, Heard())
    finally:
        sys.setprofile(None)
    return calls
