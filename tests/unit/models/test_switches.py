"""What a server refuses is left out, and remembered for its address."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from typing import Any, get_args

import pytest

from polos.v1.error_pb2 import FailureReason
from polos_service.models.messages import Message, Reasoning, Text
from polos_service.models.remote import Remote
from polos_service.models.switches import MAX_REFUSALS, SWITCHES, apply, refused
from polos_service.models.told import told_in
from polos_service.provider_settings import SwitchName
from tests.support.mock_answers import say, status
from tests.support.mock_provider import MockProvider
from tests.support.models import HI, REQUEST, Heard, failure, openai

BAD = FailureReason.FAILURE_REASON_MODEL_BAD_REQUEST

REASONED = Message(role="assistant", parts=(Reasoning(text="Hm."), Text(text="Hello.")))

REFUSALS: list[Any] = [
    {
        "detail": [
            {
                "type": "extra_forbidden",
                "loc": ["body", "F"],
                "msg": "Extra inputs are not permitted",
            }
        ]
    },
    {"detail": "extra inputs are not permitted: F"},
    {"error": {"message": "Unrecognized request argument supplied: F"}},
    {"error": {"message": "Unknown parameter: 'F'.", "param": "F", "code": "unknown_parameter"}},
    {"error": {"message": "property 'F' is unsupported"}},
    {
        "error": {
            "message": "property 'F' is unsupported, did you mean 'x'?",
            "type": "invalid_request_error",
        }
    },
    {"error": {"message": "body -> F: extra fields not permitted"}},
    {
        "error": {
            "message": "[{'type': 'extra_forbidden', 'loc': ('body', 'F'), 'msg': 'Extra inputs'}]"
        }
    },
    {"object": "error", "message": "1 validation error\nF\n  Extra inputs are not permitted"},
    {"error": {"message": "F is not supported by this model"}},
    {"message": "Additional properties are not allowed ('F' was unexpected)"},
    {"error": {"message": 'Invalid JSON payload received. Unknown name "F": Cannot find field.'}},
    "F does not support this",
]
"""How servers refuse a field, F."""


def naming(value: Any, name: str) -> Any:
    """Return the refusal of this field."""
    if isinstance(value, dict):
        return {key: naming(one, name) for key, one in value.items()}
    if isinstance(value, list):
        return [naming(one, name) for one in value]
    return value.replace("F", name) if isinstance(value, str) else value


def test_each_switch_has_a_name_that_can_be_configured() -> None:
    assert set(SWITCHES) == set(get_args(SwitchName))


@pytest.mark.parametrize("refusal", REFUSALS)
@pytest.mark.parametrize("code", [400, 422])
async def test_a_refused_field_is_left_out_and_remembered(
    provider: MockProvider, model: Remote, code: int, refusal: Any
) -> None:
    provider.reply(status(code, naming(refusal, "stream_options")))
    for _ in range(2):
        provider.reply(say("x"))
        assert (await model.answer(REQUEST, Heard())).text == "x"
    assert ["stream_options" in one.body for one in provider.requests] == [True, False, False]


async def test_another_address_is_still_sent_the_field(
    provider: MockProvider, model: Remote
) -> None:
    provider.reply(status(400, naming(REFUSALS[0], "stream_options")))
    provider.reply(say("x"))
    await model.answer(REQUEST, Heard())
    async with MockProvider() as other:
        other.reply(say("x"))
        await model.answer(replace(REQUEST, base_url=other.url), Heard())
        assert "stream_options" in other.requests[0].body


async def test_calls_that_are_refused_at_the_same_time_all_go_once_more(
    provider: MockProvider, model: Remote
) -> None:
    for _ in range(3):
        provider.reply(status(400, naming(REFUSALS[0], "stream_options")))
    for _ in range(3):
        provider.reply(say("x"))
    answers = await asyncio.gather(*(model.answer(REQUEST, Heard()) for _ in range(3)))
    assert [answer.text for answer in answers] == ["x"] * 3


@pytest.mark.parametrize(
    "message",
    [
        (
            "Unsupported parameter: 'max_tokens' is not supported with this model. "
            "Use 'max_completion_tokens' instead."
        ),
        "Unrecognized request argument supplied: max_tokens",
    ],
)
async def test_the_bound_on_an_answer_is_sent_under_its_other_name(
    provider: MockProvider, model: Remote, message: str
) -> None:
    provider.reply(status(400, {"error": {"message": message, "param": "max_tokens"}}))
    for _ in range(2):
        provider.reply(say("x"))
        await model.answer(replace(REQUEST, max_output_tokens=5), Heard())
    sent = [
        (one.body.get("max_tokens"), one.body.get("max_completion_tokens"))
        for one in provider.requests
    ]
    assert sent == [(5, None), (None, 5), (None, 5)]


async def test_a_server_that_refuses_both_names_of_the_bound_is_not_asked_for_ever(
    provider: MockProvider, model: Remote
) -> None:
    for name in ("max_tokens", "max_completion_tokens"):
        provider.reply(status(400, naming(REFUSALS[2], name)))
    error = await failure(model, request=replace(REQUEST, max_output_tokens=5))
    assert (error.reason, len(provider.requests)) == (BAD, 2)


async def test_what_an_earlier_answer_brought_is_left_out_of_the_conversation(
    provider: MockProvider, model: Remote
) -> None:
    place = {
        "loc": ["body", "messages", 1, "assistant", "reasoning_content"],
        "type": "extra_forbidden",
    }
    provider.reply(status(422, {"detail": [{**place, "msg": "Extra inputs are not permitted"}]}))
    provider.reply(say("x"))
    await model.answer(replace(REQUEST, messages=[HI, REASONED, HI]), Heard())
    first, second = (one.body["messages"] for one in provider.requests)
    assert first[1].pop("reasoning_content") == "Hm."
    assert second == first


@pytest.mark.parametrize(
    "fields",
    [{"options": {"parallel_tool_calls": True}}, {"settings": {"parallel_tool_calls": True}}],
)
async def test_what_was_chosen_is_never_left_out(
    provider: MockProvider, fields: dict[str, Any]
) -> None:
    model = openai(base_url=provider.url, switches={provider.url: ["parallel_tool_calls"]})
    provider.reply(status(400, naming(REFUSALS[2], "parallel_tool_calls")))
    error = await failure(model, request=replace(REQUEST, **fields))
    await model.close()
    assert (error.reason, error.retryable) == (BAD, False)
    assert "parallel_tool_calls" in error.message
    assert [one.body["parallel_tool_calls"] for one in provider.requests] == [True]


@pytest.mark.parametrize("name", ["temperature", "model", "messages", "tools", "stream"])
async def test_a_field_without_a_switch_is_never_left_out(
    provider: MockProvider, model: Remote, name: str
) -> None:
    provider.reply(status(400, naming(REFUSALS[2], name)))
    error = await failure(model, request=replace(REQUEST, temperature=0.5))
    assert (error.reason, len(provider.requests)) == (BAD, 1)
    assert name in error.message


@pytest.mark.parametrize(
    "message",
    [
        "max_tokens is too large: 5. This model supports at most 3 completion tokens.",
        "stream_options must be a valid object",
        "stream_options is required",
        "Missing reasoning_content in the assistant message",
        "invalid stream_options",
        "context length exceeded",
    ],
)
async def test_a_field_that_is_wanted_otherwise_is_not_refused(
    provider: MockProvider, model: Remote, message: str
) -> None:
    provider.reply(status(400, {"error": {"message": message}}))
    request = replace(REQUEST, max_output_tokens=5, messages=[HI, REASONED, HI])
    assert (await failure(model, request=request)).reason == BAD
    assert len(provider.requests) == 1


@pytest.mark.parametrize("code", [401, 404, 429, 500])
async def test_other_statuses_refuse_no_field(
    provider: MockProvider, model: Remote, code: int
) -> None:
    provider.reply(status(code, naming(REFUSALS[2], "stream_options")))
    await failure(model)
    assert len(provider.requests) == 1


async def test_an_operator_turns_fields_off_for_an_address(provider: MockProvider) -> None:
    switches = {provider.url + "/": ["stream_options", "max_tokens"]}
    model = openai(base_url=provider.url, switches=switches)
    provider.reply(say("x"))
    await model.answer(replace(REQUEST, max_output_tokens=5), Heard())
    await model.close()
    (request,) = provider.requests
    assert "stream_options" not in request.body
    assert "max_tokens" not in request.body
    assert request.body["max_completion_tokens"] == 5


def test_switches_leave_the_conversation_itself_alone() -> None:
    call = {"id": "1", "extra_content": {"a": 1}}
    said = {"role": "assistant", "reasoning_details": [1], "tool_calls": [call]}
    body = {"messages": [said, "odd"], "input": [dict(said)], "store": False, "include": []}
    apply(body, set(SWITCHES), {"store"})
    bare = {"role": "assistant", "tool_calls": [{"id": "1"}]}
    assert body == {"messages": [bare, "odd"], "input": [bare], "store": False}
    assert said["tool_calls"] == [call]
    assert "extra_content" in call


def test_a_field_that_was_not_sent_is_not_refused() -> None:
    told = told_in("unknown parameter: store")
    assert refused(told, {"messages": []}, (), ()) is None
    assert refused(told, {"store": True}, (), ()) == "store"
    assert refused(told, {"store": True}, (), {"store"}) is None
    assert refused(told, {"store": True}, {"store"}, ()) is None


def test_a_call_does_not_go_on_for_ever() -> None:
    assert len(SWITCHES) > MAX_REFUSALS
