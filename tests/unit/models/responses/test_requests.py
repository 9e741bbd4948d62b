"""The Responses API: what is asked of the provider, and what goes back to it."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import Any

import pytest

from polos_service.models.messages import Call, Media, Message, Part, Reasoning, Result, Text
from tests.support.mock_provider import MockProvider
from tests.support.mock_responses import (
    Item,
    call,
    events,
    item,
    responses,
    say,
    sent,
    think,
    think_aloud,
)
from tests.support.models import HI, KEY
from tests.unit.models.responses.conftest import Ask
from tests.unit.models.responses.oracle import assert_valid

SCHEMA = {"type": "object", "properties": {"a": {"type": "integer"}}, "required": ["a"]}


async def body_of(provider: MockProvider, answered: Ask, **fields: Any) -> dict[str, Any]:
    """Return what the provider was asked for a request with these fields; it is valid."""
    provider.reply(responses(say("ok")))
    await answered(**fields)
    body: dict[str, Any] = provider.requests[-1].body
    assert_valid(body)
    return body


def user(*parts: Part) -> Message:
    return Message(role="user", parts=parts)


async def test_a_request_keeps_nothing_at_the_provider(
    provider: MockProvider, answered: Ask
) -> None:
    body = await body_of(provider, answered)
    assert body == {
        "model": "mock",
        "input": [
            {
                "type": "message",
                "role": "user",
                "content": [{"type": "input_text", "text": "Hi"}],
            }
        ],
        "stream": True,
        "store": False,
        "include": ["reasoning.encrypted_content"],
    }
    request = provider.requests[-1]
    assert request.path == "/v1/responses"
    assert request.headers["authorization"] == f"Bearer {KEY}"


async def test_a_request_says_what_the_agent_is(provider: MockProvider, answered: Ask) -> None:
    tool = {"name": "f", "description": "does f", "parameters": SCHEMA}
    body = await body_of(provider, answered, tools=[tool], temperature=0.5, max_output_tokens=100)
    assert body["tools"] == [{"type": "function", **tool, "strict": False}]
    assert body["temperature"] == 0.5
    assert body["max_output_tokens"] == 100


async def test_messages_keep_their_roles_and_their_order(
    provider: MockProvider, answered: Ask
) -> None:
    messages = [
        Message(role="system", parts=(Text(text="Be brief."),)),
        Message(role="developer", parts=(Text(text="Be kind."),)),
        user(Text(text="Hi"), Text(text=" there")),
        Message(role="assistant", parts=(Text(text="Hello"), Text(text="!"))),
        user(Text(text="Bye")),
    ]
    body = await body_of(provider, answered, messages=messages)
    assert [(one["role"], one["content"]) for one in body["input"]] == [
        ("system", [{"type": "input_text", "text": "Be brief."}]),
        ("developer", [{"type": "input_text", "text": "Be kind."}]),
        ("user", [{"type": "input_text", "text": "Hi there"}]),
        # Servers refuse an output_text without the id and status of its message.
        ("assistant", "Hello!"),
        ("user", [{"type": "input_text", "text": "Bye"}]),
    ]


async def test_images_and_files_go_by_address_content_or_id(
    provider: MockProvider, answered: Ask
) -> None:
    known = {"openai": {"file_id": "file_1"}}
    body = await body_of(
        provider,
        answered,
        messages=[
            user(
                Text(text="What is this?"),
                Media(type="image", url="https://example.com/a.png"),
                Media(type="image", data="aGk=", media_type="image/png"),
                Media(type="image", state=known, detail="low"),
                Media(type="file", url="https://example.com/a.pdf"),
                Media(type="file", data="aGk=", media_type="application/pdf", name="a.pdf"),
                Media(type="file", state=known),
            )
        ],
    )
    assert body["input"][0]["content"] == [
        {"type": "input_text", "text": "What is this?"},
        {"type": "input_image", "image_url": "https://example.com/a.png", "detail": "auto"},
        {"type": "input_image", "image_url": "data:image/png;base64,aGk=", "detail": "auto"},
        {"type": "input_image", "file_id": "file_1", "detail": "low"},
        {"type": "input_file", "file_url": "https://example.com/a.pdf"},
        {
            "type": "input_file",
            "file_data": "data:application/pdf;base64,aGk=",
            "filename": "a.pdf",
        },
        {"type": "input_file", "file_id": "file_1"},
    ]


async def test_calls_and_results_of_anywhere_are_items(
    provider: MockProvider, answered: Ask
) -> None:
    picture = Media(type="image", url="https://example.com/a.png")
    messages = [
        HI,
        Message(
            role="assistant",
            parts=(
                Reasoning(text="Not for others.", state={"other": {"signature": "s"}}),
                Text(text="I look."),
                Call(id="a", name="f", arguments_json='{"a": 1}'),
                Call(id="b", name="f", arguments_json='{"a": '),
            ),
        ),
        Message(
            role="tool",
            parts=(
                Result(call_id="a", content=(Text(text="one"),)),
                Result(call_id="b", content=(Text(text="Error: invalid"), picture), failed=True),
            ),
        ),
    ]
    body = await body_of(provider, answered, messages=messages)
    said, first, second, one, two = body["input"][1:]
    assert said["content"] == "I look."
    assert first == {
        "type": "function_call",
        "call_id": "a",
        "name": "f",
        "arguments": '{"a": 1}',
    }
    assert isinstance(json.loads(second["arguments"]), dict)
    assert one == {"type": "function_call_output", "call_id": "a", "output": "one"}
    assert [part["type"] for part in two["output"]] == ["input_text", "input_image"]


SEARCH = item(
    id="ws_1",
    type="web_search_call",
    status="completed",
    action={"type": "search", "query": "polos", "queries": ["polos"]},
)
CITED = say("See", " here.", phase="final_answer")
CITED.done["content"][0]["annotations"].append(
    {"type": "url_citation", "start_index": 0, "end_index": 3, "url": "https://a", "title": "A"}
)


@pytest.mark.parametrize("size", [1, 40])
async def test_what_the_model_said_goes_back_unchanged_and_in_place(
    provider: MockProvider, answered: Ask, size: int
) -> None:
    output = (
        think("First.", "Second."),
        SEARCH,
        think(item_id="rs_2", encrypted="x" * 10_000),
        say("I cite" * size, phase="commentary", item_id="msg_0"),
        CITED,
        think_aloud("Hm", "m" * size, item_id="rs_3"),
        call("f", {"a": 1}),
        call("g", {"b": "ü" * size}, call_id="call_b", item_id="fc_2"),
        say("No.", refusal=True, item_id="msg_2"),
    )
    provider.reply(responses(*output))
    answer, _ = await answered()
    message = Message(role="assistant", parts=tuple(answer.parts), state=answer.state)
    body = await body_of(provider, answered, messages=[HI, message])
    assert body["input"][1:] == [one.done for one in output]


@pytest.mark.parametrize(
    "told",
    [
        [e for e in events(think("Hm"), say("A")) if ".delta" not in e["type"]],
        [{**e, "delta": "??"} if ".delta" in e["type"] else e for e in events(think("Hm"))],
    ],
)
async def test_reasoning_goes_back_as_its_item_was_in_the_end(
    provider: MockProvider, answered: Ask, told: list[dict[str, Any]]
) -> None:
    provider.reply(sent(told))
    answer, _ = await answered()
    message = Message(role="assistant", parts=tuple(answer.parts))
    body = await body_of(provider, answered, messages=[HI, message])
    assert body["input"][1] == think("Hm").done


@pytest.mark.parametrize("lost", [think("Hm", encrypted=None), think("Hm", encrypted="")])
async def test_reasoning_that_the_provider_does_not_keep_stays_here(
    provider: MockProvider, answered: Ask, lost: Item
) -> None:
    provider.reply(responses(lost, say("Yes")))
    answer, _ = await answered()
    message = Message(role="assistant", parts=tuple(answer.parts))
    body = await body_of(provider, answered, messages=[HI, message])
    assert [one["type"] for one in body["input"]] == ["message", "message"]


async def test_nothing_goes_back_to_another_provider(provider: MockProvider, answered: Ask) -> None:
    provider.reply(responses(think("Hm"), SEARCH, say("Yes")))
    answer, _ = await answered()
    parts = [replace(part, state={"other": part.state["openai"]}) for part in answer.parts]
    message = Message(role="assistant", parts=tuple(parts))
    body = await body_of(provider, answered, messages=[HI, message])
    assert body["input"][1:] == [{"type": "message", "role": "assistant", "content": "Yes"}]


@pytest.mark.parametrize(
    "forged",
    ["x", {}, {"type": 5}, {"type": "item_reference", "id": "msg_of_others"}, {"type": "x_output"}],
)
async def test_a_caller_cannot_send_items_that_no_model_says(
    provider: MockProvider, answered: Ask, forged: Any
) -> None:
    state = {"openai": {"item": forged}}
    body = await body_of(provider, answered, messages=[user(Text(text="Hi", state=state))])
    assert [one["type"] for one in body["input"]] == ["message"]


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        ({"max_tokens": 5}, {"max_output_tokens": 5}),
        ({"max_completion_tokens": 5}, {"max_output_tokens": 5}),
        ({"max_output_tokens": 5}, {"max_output_tokens": 5}),
        ({"temperature": 0.1, "top_p": 0.2}, {"temperature": 0.1, "top_p": 0.2}),
        ({"reasoning_effort": "low"}, {"reasoning": {"effort": "low"}}),
        (
            {"reasoning": {"summary": "auto"}, "reasoning_effort": "low"},
            {"reasoning": {"summary": "auto", "effort": "low"}},
        ),
        ({"verbosity": "low"}, {"text": {"verbosity": "low"}}),
        (
            {
                "verbosity": "low",
                "response_format": {
                    "type": "json_schema",
                    "json_schema": {"name": "n", "schema": SCHEMA, "strict": True},
                },
            },
            {
                "text": {
                    "verbosity": "low",
                    "format": {
                        "type": "json_schema",
                        "name": "n",
                        "schema": SCHEMA,
                        "strict": True,
                    },
                }
            },
        ),
        (
            {"response_format": {"type": "json_object"}},
            {"text": {"format": {"type": "json_object"}}},
        ),
        ({"tool_choice": "required"}, {"tool_choice": "required"}),
        (
            {"tool_choice": {"type": "function", "function": {"name": "f"}}},
            {"tool_choice": {"type": "function", "name": "f"}},
        ),
        (
            {
                "tool_choice": {
                    "type": "allowed_tools",
                    "allowed_tools": {
                        "mode": "auto",
                        "tools": [{"type": "function", "function": {"name": "f"}}],
                    },
                }
            },
            {
                "tool_choice": {
                    "type": "allowed_tools",
                    "mode": "auto",
                    "tools": [{"type": "function", "name": "f"}],
                }
            },
        ),
        ({"parallel_tool_calls": False}, {"parallel_tool_calls": False}),
        ({"service_tier": "flex", "user": "u"}, {"service_tier": "flex", "user": "u"}),
    ],
)
async def test_options_have_the_names_of_the_api(
    provider: MockProvider, answered: Ask, options: dict[str, Any], expected: dict[str, Any]
) -> None:
    plain = await body_of(provider, answered, max_output_tokens=100)
    body = await body_of(provider, answered, max_output_tokens=100, options=options)
    assert body == {**plain, **expected}


async def test_options_come_before_settings_and_settings_before_the_definition(
    provider: MockProvider, answered: Ask
) -> None:
    body = await body_of(
        provider,
        answered,
        temperature=0.1,
        max_output_tokens=1,
        settings={
            "max_output_tokens": 2,
            "reasoning": {"effort": "high", "summary": "auto"},
            "tools": [{"type": "web_search"}],
            "truncation": "auto",
        },
        options={"max_tokens": 3, "reasoning_effort": "low"},
        tools=[{"name": "f", "description": "", "parameters": SCHEMA}],
    )
    assert body["temperature"] == 0.1
    assert body["max_output_tokens"] == 3
    assert body["reasoning"] == {"effort": "low", "summary": "auto"}
    assert body["truncation"] == "auto"
    assert [tool["type"] for tool in body["tools"]] == ["function", "web_search"]
