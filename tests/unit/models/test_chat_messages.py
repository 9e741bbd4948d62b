"""What goes to a server that speaks chat completions: what callers sent, and what it once said."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from typing import Any

import pytest
from hypothesis import given
from openai.types.chat import ChatCompletionMessageParam
from pydantic import TypeAdapter

from polos_service.models import ModelRequest
from polos_service.models.address import Address
from polos_service.models.arguments import object_json
from polos_service.models.messages import (
    Call,
    Media,
    Message,
    Reasoning,
    Result,
    Text,
    dump,
    load,
)
from polos_service.models.openai.chat_messages import SHOWN_NEXT, Writer
from polos_service.models.openai.dialect import MISTRAL_IDS, OPENAI_IDS, Dialect
from polos_service.models.openai.form import messages_of
from polos_service.models.openai.presets import OPENAI, PRESETS
from polos_service.models.preset import Preset
from tests.support.conversations import CONVERSATIONS

ORACLE: TypeAdapter[Any] = TypeAdapter(ChatCompletionMessageParam)
"""What the package of OpenAI takes for a message."""

WRITER = Writer(provider="openai")


def written(*messages: Message, **fields: Any) -> list[dict[str, Any]]:
    return Writer(provider="openai", dialect=Dialect(**fields)).messages(messages)


def sent(*form: Any, provider: str = "openai") -> list[dict[str, Any]]:
    """Return what goes to the server of a conversation that a caller sends."""
    messages, wrong = messages_of(form, provider)
    assert not wrong
    return Writer(provider=provider).messages(load(json.loads(json.dumps(dump(messages)))))


def said(*parts: Any, **fields: Any) -> Message:
    return Message(role="assistant", parts=parts, **fields)


def assert_valid(message: Any) -> None:
    """Let the package of OpenAI check a message; it checks lists as they are read."""

    def read(value: Any) -> None:
        if isinstance(value, Mapping):
            value = value.values()
        if isinstance(value, Iterable) and not isinstance(value, str | bytes):
            for one in value:
                read(one)

    read(ORACLE.validate_python(message))


@given(CONVERSATIONS)
def test_a_conversation_goes_to_its_server_as_the_caller_sent_it(form: list[Any]) -> None:
    assert sent(*form) == form


@given(CONVERSATIONS)
def test_the_package_of_openai_takes_every_message(form: list[Any]) -> None:
    for message in sent(*form):
        # The API of OpenAI has no URLs of recordings, and no media in prompts.
        if "_url" not in json.dumps(message) and message["role"] in ("user", "tool"):
            assert_valid(message)


@given(CONVERSATIONS)
def test_members_of_one_provider_do_not_go_to_another(form: list[Any]) -> None:
    messages, _ = messages_of(form, "other")
    told = json.dumps(WRITER.messages(messages))
    assert "reasoning_details" not in told
    assert "x-y" not in told


SAME_MEANING: dict[str, tuple[Any, Any]] = {
    "no content beside calls": (
        {"role": "assistant", "content": None},
        {"role": "assistant", "content": ""},
    ),
    "a dumped answer, null where it has nothing": (
        {
            "role": "assistant",
            "content": "Hi",
            "refusal": None,
            "annotations": [],
            "audio": None,
            "function_call": None,
            "tool_calls": None,
        },
        {"role": "assistant", "content": "Hi"},
    ),
    "a refusal": (
        {"role": "assistant", "content": None, "refusal": "No."},
        {"role": "assistant", "content": "No."},
    ),
    "a refusal as a part": (
        {"role": "assistant", "content": [{"type": "refusal", "refusal": "No."}]},
        {"role": "assistant", "content": "No."},
    ),
    "one text in a list": (
        {"role": "user", "content": [{"type": "text", "text": "Hi"}]},
        {"role": "user", "content": "Hi"},
    ),
    "texts of the Responses API": (
        {
            "role": "user",
            "content": [{"type": "input_text", "text": "a"}, {"type": "output_text", "text": "b"}],
        },
        {
            "role": "user",
            "content": [{"type": "text", "text": "a"}, {"type": "text", "text": "b"}],
        },
    ),
    "an image as a plain URL": (
        {"role": "user", "content": [{"type": "image_url", "image_url": "https://e.org/a"}]},
        {
            "role": "user",
            "content": [{"type": "image_url", "image_url": {"url": "https://e.org/a"}}],
        },
    ),
    "an image of the Responses API": (
        {
            "role": "user",
            "content": [
                {"type": "input_image", "image_url": "https://e.org/a", "detail": "high"},
                {"type": "input_image", "file_id": "f"},
            ],
        },
        {
            "role": "user",
            "content": [
                {"type": "image_url", "image_url": {"url": "https://e.org/a", "detail": "high"}},
                {"type": "file", "file": {"file_id": "f"}},
            ],
        },
    ),
    "a data URL in other letters, with parameters, over several lines": (
        {
            "role": "user",
            "content": [
                {"type": "image_url", "image_url": {"url": "DATA:image/PNG;a=b;BASE64,QU\r\nJD"}}
            ],
        },
        {
            "role": "user",
            "content": [{"type": "image_url", "image_url": {"url": "data:image/png;base64,QUJD"}}],
        },
    ),
    "audio as a data URL": (
        {
            "role": "user",
            "content": [
                {"type": "input_audio", "input_audio": {"data": "data:audio/mpeg;base64,QUJD"}}
            ],
        },
        {
            "role": "user",
            "content": [{"type": "input_audio", "input_audio": {"data": "QUJD", "format": "mp3"}}],
        },
    ),
    "a file of the Responses API": (
        {
            "role": "user",
            "content": [
                {"type": "input_file", "file_url": "https://e.org/a.pdf", "filename": "a.pdf"},
            ],
        },
        {
            "role": "user",
            "content": [
                {"type": "file", "file": {"file_data": "https://e.org/a.pdf", "filename": "a.pdf"}}
            ],
        },
    ),
    "an empty list of calls": (
        {"role": "assistant", "content": "Hi", "tool_calls": []},
        {"role": "assistant", "content": "Hi"},
    ),
}


@pytest.mark.parametrize("name", SAME_MEANING)
def test_other_forms_keep_their_meaning(name: str) -> None:
    form, expected = SAME_MEANING[name]
    assert sent(form) == [expected]
    assert_valid(expected)


def test_a_legacy_function_call_becomes_a_call() -> None:
    call = {"name": "f", "arguments": '{"a": 1}'}
    made = sent(
        {"role": "assistant", "content": None, "function_call": call},
        {"role": "function", "name": "f", "content": "one"},
        {"role": "assistant", "content": None, "function_call": call},
        {"role": "function", "name": "f", "content": None},
    )
    ids = [made[0]["tool_calls"][0]["id"], made[2]["tool_calls"][0]["id"]]
    assert [one["tool_call_id"] for one in (made[1], made[3])] == ids
    assert len(set(ids)) == 2
    assert made[0]["tool_calls"][0]["function"] == call
    for message in made:
        assert_valid(message)


def test_arguments_that_are_an_object_become_their_json() -> None:
    call = {"id": "a", "function": {"name": "f", "arguments": {"ä": 1}}}
    result = {"role": "tool", "tool_call_id": "a", "content": "b"}
    made = sent({"role": "assistant", "tool_calls": [call]}, result)
    assert made[0]["tool_calls"] == [
        {"id": "a", "type": "function", "function": {"name": "f", "arguments": '{"ä": 1}'}}
    ]


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        ('{"a": 12345678901234567890123}', '{"a": 12345678901234567890123}'),
        ("", "{}"),
        ("null", "{}"),
        ('"{\\"a\\": 1}"', '{"a": 1}'),
        ('{"a": ', '{"input": "{\\"a\\": "}'),
        ('{"a": NaN}', '{"input": "{\\"a\\": NaN}"}'),
        ("[1]", '{"input": "[1]"}'),
        ('"Oslo"', '{"input": "\\"Oslo\\""}'),
        ("Oslo", '{"input": "Oslo"}'),
        ("[" * 100_000, None),
        ('{"a": "\\ud83d"}', '{"input": "{\\"a\\": \\"\\\\ud83d\\"}"}'),
        ("\ud83d", '{"input": "\\ud83d"}'),
    ],
)
def test_arguments_go_back_as_the_json_of_an_object(arguments: str, told: str | None) -> None:
    call = Call(id="a", name="f", arguments_json=arguments)
    ((made,),) = [message["tool_calls"] for message in written(said(call))]
    assert made["function"]["arguments"] == object_json(arguments)
    assert isinstance(json.loads(object_json(arguments)), dict)
    assert told in (None, object_json(arguments))


def test_what_a_provider_attached_goes_back_to_it_and_to_no_other() -> None:
    signed = {"extra_content": {"google": {"thought_signature": "s"}}, "function": {"x": 1}}
    call = Call(id="a", name="f", arguments_json="{}", state={"openai": signed, "other": {"y": 1}})
    message = said(call, state={"openai": {"reasoning_details": [1]}, "other": {"z": 1}})
    (made,) = written(message)
    assert made == {
        "role": "assistant",
        "content": "",
        "reasoning_details": [1],
        "tool_calls": [
            {
                "id": "a",
                "type": "function",
                "function": {"name": "f", "arguments": "{}", "x": 1},
                "extra_content": {"google": {"thought_signature": "s"}},
            }
        ],
    }
    assert_valid(made)


def test_reasoning_goes_back_in_the_member_that_the_server_used() -> None:
    told = Reasoning(text="a", state={"openai": {"field": "reasoning"}})
    (made,) = written(said(told, Text(text="b"), Reasoning(text="c"), Reasoning()))
    assert (made["reasoning"], made["reasoning_content"]) == ("a", "c")
    (made,) = written(said(told, Text(text="b")), reasoning=None)
    assert made == {"role": "assistant", "content": "b"}


def test_reasoning_that_came_as_a_part_of_the_content_goes_back_as_one() -> None:
    thought = Reasoning(text="a", state={"openai": {"part": "thinking"}})
    (made,) = written(said(thought, Text(text="b")), reasoning=None)
    assert made["content"] == [
        {"type": "thinking", "thinking": [{"type": "text", "text": "a"}]},
        {"type": "text", "text": "b"},
    ]


def test_texts_of_an_answer_are_joined() -> None:
    (made,) = written(said(Text(text="a"), Reasoning(), Text(text="b")))
    assert made == {"role": "assistant", "content": "ab"}
    (made,) = written(said(Call(id="a", name="f", arguments_json="{}")), no_text=None)
    assert made["content"] is None


def test_media_of_results_follow_all_results_of_the_turn() -> None:
    image = Media(type="image", url="https://e.org/a.png")
    calls = [Call(id=one, name="f", arguments_json="{}") for one in "ab"]
    results = [
        Result(call_id="a", content=(image,)),
        Result(call_id="b", content=(Text(text="b"), image)),
    ]
    expected = [
        {"role": "tool", "tool_call_id": "a", "content": SHOWN_NEXT},
        {"role": "tool", "tool_call_id": "b", "content": "b"},
        {
            "role": "user",
            "content": [
                {"type": "text", "text": "The result of the call a:"},
                {"type": "image_url", "image_url": {"url": "https://e.org/a.png"}},
                {"type": "text", "text": "The result of the call b:"},
                {"type": "image_url", "image_url": {"url": "https://e.org/a.png"}},
            ],
        },
    ]
    after = Message(role="user", parts=(Text(text="Go."),))
    apart = [Message(role="tool", parts=(result,)) for result in results]
    together = [Message(role="tool", parts=tuple(results))]
    for tools in (apart, together):
        made = written(said(*calls), *tools, after)
        assert made[1:] == [*expected, {"role": "user", "content": "Go."}]
        assert written(said(*calls), *tools)[1:] == expected
        for message in made:
            assert_valid(message)


@pytest.mark.parametrize(
    ("rule", "call_id", "fits"),
    [
        (MISTRAL_IDS, "aB3aB3aB3", True),
        (MISTRAL_IDS, "call_1234", False),
        (MISTRAL_IDS, "aB3aB3aB34", False),
        (OPENAI_IDS, "c" * 40, True),
        (OPENAI_IDS, "c" * 41, False),
        (None, "c" * 8000, True),
    ],
)
def test_ids_of_calls_are_ones_that_the_server_takes(rule: Any, call_id: str, fits: object) -> None:
    call = Call(id=call_id, name="f", arguments_json="{}")
    result = Message(role="tool", parts=(Result(call_id=call_id, content=()),))
    made = written(said(call), result, call_ids=rule)
    told = made[0]["tool_calls"][0]["id"]
    assert made[1]["tool_call_id"] == told
    assert (told == call_id) is fits
    assert rule is None or rule.fullmatch(told)


@pytest.mark.parametrize(
    ("preset", "url", "length"),
    [
        (OPENAI, "https://api.openai.com/v1", 9),
        (OPENAI, "https://e.org/v1", 100),
        (PRESETS["mistral"], "https://api.mistral.ai/v1", 9),
    ],
)
def test_providers_get_ids_that_they_take(preset: Preset, url: str, length: int) -> None:
    call = Call(id="c" * 100, name="f", arguments_json="{}")
    request = ModelRequest(model="m", messages=[said(call)])
    made = preset.apis["chat_completions"].body(request, Address.of(url), preset.name)
    assert len(made["messages"][0]["tool_calls"][0]["id"]) == length
