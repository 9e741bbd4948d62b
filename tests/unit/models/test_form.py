"""A conversation that a caller sends is taken as a whole, or refused by the field that is wrong."""

from __future__ import annotations

import json
from typing import Any

import pytest

from polos_service.models.messages import Call, Media, Message, Reasoning, Result, Text, dump, load
from polos_service.models.openai.form import MAX_WRONG, messages_of

CALL = {"id": "a", "type": "function", "function": {"name": "f", "arguments": "{}"}}

ANSWER = {"role": "assistant", "content": None, "tool_calls": [CALL]}

RESULT = {"role": "tool", "tool_call_id": "a", "content": "b"}

USER = {"role": "user", "content": "Hi"}

LINK = "allowed: an http:// or https:// URL, or data:image/...;base64,..."


def wrong(*form: Any) -> dict[str, str]:
    return messages_of(form, "openai")[1]


def image(url: Any) -> dict[str, Any]:
    return {"role": "user", "content": [{"type": "image_url", "image_url": {"url": url}}]}


def part(**members: Any) -> dict[str, Any]:
    return {"role": "user", "content": [{"type": "text", "text": "a"}, members]}


def test_a_conversation_becomes_messages_with_parts() -> None:
    form = [
        {"role": "system", "content": "Be brief."},
        {"role": "user", "name": "Kim", "content": [{"type": "text", "text": "Hi", "x": 1}]},
        {"role": "assistant", "reasoning": "Hm.", "content": "Look.", "tool_calls": [CALL], "y": 2},
        {**RESULT, "z": 3},
        image("data:image/png;base64,QUJD"),
    ]
    messages, found = messages_of(form, "groq")
    assert not found
    assert messages == [
        Message(role="system", parts=(Text(text="Be brief."),)),
        Message(
            role="user",
            parts=(Text(text="Hi", state={"groq": {"x": 1}}),),
            state={"groq": {"name": "Kim"}},
        ),
        Message(
            role="assistant",
            parts=(
                Reasoning(text="Hm.", state={"groq": {"field": "reasoning"}}),
                Text(text="Look."),
                Call(id="a", name="f", arguments_json="{}"),
            ),
            state={"groq": {"y": 2}},
        ),
        Message(
            role="tool",
            parts=(Result(call_id="a", content=(Text(text="b"),), state={"groq": {"z": 3}}),),
        ),
        Message(role="user", parts=(Media(type="image", data="QUJD", media_type="image/png"),)),
    ]
    assert load(json.loads(json.dumps(dump(messages)))) == messages


TAKEN: dict[str, list[Any]] = {
    "a prompt alone": [{"role": "system", "content": "Be brief."}],
    "answers in a row": [{"role": "assistant", "content": "a"}] * 2,
    "an answer without anything": [{"role": "assistant"}],
    "an empty text": [{"role": "user", "content": ""}],
    "results in another order": [
        {"role": "assistant", "tool_calls": [CALL, {**CALL, "id": "b"}]},
        {**RESULT, "tool_call_id": "b"},
        RESULT,
        USER,
    ],
    "an id that is used again in a later turn": [ANSWER, RESULT, ANSWER, RESULT],
    "a result with an image": [
        ANSWER,
        {**RESULT, "content": image("https://e.org/a")["content"]},
    ],
    "a call without arguments": [
        {"role": "assistant", "tool_calls": [{"id": "a", "function": {"name": "f"}}]},
        RESULT,
    ],
    "reasoning of another form": [{"role": "assistant", "content": "a", "reasoning": {"x": 1}}],
}


@pytest.mark.parametrize("name", TAKEN)
def test_a_conversation_that_is_unusual_is_taken(name: str) -> None:
    messages, found = messages_of(TAKEN[name], "openai")
    assert (len(messages), found) == (len(TAKEN[name]), {})


PARTS = (
    "text, image_url, input_audio, file, refusal, audio_url, video_url, input_text, output_text, "
    "input_image, input_file"
)

REFUSED: dict[str, tuple[list[Any], str, str]] = {
    "no object": ([5], "[0]", "is a number; allowed: an object with a role and content"),
    "no role": (
        [USER, {"content": "a"}],
        "[1].role",
        "is missing; allowed: system, developer, user, assistant, tool, function",
    ),
    "an unknown role": ([{"role": "User", "content": "a"}], "[0].role", "is 'User'; allowed: sys"),
    "a role that is no text": ([{"role": [], "content": "a"}], "[0].role", "is an array; allowed"),
    "no content": (
        [{"role": "user"}],
        "[0].content",
        "is missing; allowed: a string or an array of parts",
    ),
    "null as content": ([{"role": "system", "content": None}], "[0].content", "is missing;"),
    "no parts": ([{"role": "user", "content": []}], "[0].content", "is an empty array; allowed"),
    "content that is a number": ([{"role": "user", "content": 0}], "[0].content", "is a number;"),
    "content that is an object": (
        [{"role": "assistant", "content": {}}],
        "[0].content",
        "is an object; allowed: a string or an array of parts",
    ),
    "a part that is a text": (
        [{"role": "user", "content": ["a"]}],
        "[0].content[0]",
        "is a string; allowed: an object with a type",
    ),
    "a part without a type": (
        [part(text="a")],
        "[0].content[1].type",
        f"is missing; allowed: {PARTS}",
    ),
    "an unknown part": (
        [part(type="image")],
        "[0].content[1].type",
        f"is 'image'; allowed: {PARTS}",
    ),
    "a text part without a text": (
        [part(type="text")],
        "[0].content[1].text",
        "is missing; allowed: a string",
    ),
    "a refusal without words": (
        [part(type="refusal", refusal=None)],
        "[0].content[1].refusal",
        "is missing; allowed: a string",
    ),
    "no image": (
        [part(type="image_url")],
        "[0].content[1].image_url",
        "is missing; allowed: a non-empty string",
    ),
    "an image without a URL": (
        [image("")],
        "[0].content[0].image_url.url",
        "is an empty string; allowed: a non-empty string",
    ),
    "a file's path": (
        [image("file:///etc/passwd")],
        "[0].content[0].image_url.url",
        f"is 'file:///etc/passwd'; {LINK}",
    ),
    "a URL without a host": (
        [image("http:///a")],
        "[0].content[0].image_url.url",
        "is 'http:///a'",
    ),
    "a URL with a line end": ([image("http://a/\nb")], "[0].content[0].image_url.url", LINK),
    "base64 without a media type": (
        [image("iVBORw0KGgo=" * 20)],
        "[0].content[0].image_url.url",
        f"is '{('iVBORw0KGgo=' * 20)[:60]}'; {LINK}",
    ),
    "a data URL that is not base64": (
        [image("data:image/svg+xml;utf8,<svg/>")],
        "[0].content[0].image_url.url",
        "is a data URL whose content is not declared as base64",
    ),
    "a damaged image": (
        [image("data:image/png;base64,QUJ")],
        "[0].content[0].image_url.url",
        "is not valid base64",
    ),
    "an image in other letters": (
        [image("data:image/png;base64,Grüße")],
        "[0].content[0].image_url.url",
        "is not valid base64",
    ),
    "an empty image": (
        [image("data:image/png;base64,")],
        "[0].content[0].image_url.url",
        "has no content",
    ),
    "a text as an image": (
        [image("data:text/plain;base64,QUJD")],
        "[0].content[0].image_url.url",
        f"has the media type 'text/plain'; {LINK}",
    ),
    "a detail that is a number": (
        [part(type="image_url", image_url={"url": "https://e.org/a", "detail": 5})],
        "[0].content[1].image_url.detail",
        "is a number",
    ),
    "an image whose id is a number": (
        [part(type="input_image", file_id=5)],
        "[0].content[1].file_id",
        "is a number; allowed: a non-empty string",
    ),
    "audio without a format": (
        [part(type="input_audio", input_audio={"data": "QUJD"})],
        "[0].content[1].input_audio.format",
        "is missing",
    ),
    "audio that is none": (
        [part(type="input_audio", input_audio="QUJD")],
        "[0].content[1].input_audio",
        "is a string; allowed: an object",
    ),
    "audio that is damaged": (
        [part(type="input_audio", input_audio={"data": "-", "format": "wav"})],
        "[0].content[1].input_audio.data",
        "is not valid base64",
    ),
    "a video that is an image": (
        [part(type="video_url", video_url={"url": "data:image/png;base64,QUJD"})],
        "[0].content[1].video_url.url",
        "has the media type 'image/png'; allowed: an http:// or https:// URL, or data:video/",
    ),
    "a file without anything": (
        [part(type="file", file={"filename": "a"})],
        "[0].content[1].file",
        "has no file_data or file_id; one of them is required",
    ),
    "a damaged file": (
        [part(type="file", file={"file_data": "data:a/b;base64,?"})],
        "[0].content[1].file.file_data",
        "is not valid base64",
    ),
    "a file on a disk": (
        [part(type="input_file", file_url="file:///etc/passwd")],
        "[0].content[1].file_url",
        "is 'file:///etc/passwd'; allowed: an http:// or https:// URL",
    ),
    "calls of a user": (
        [{**USER, "tool_calls": [CALL]}],
        "[0].tool_calls",
        "belongs to an assistant message, not to one of user",
    ),
    "calls that are no list": (
        [{"role": "assistant", "tool_calls": CALL}],
        "[0].tool_calls",
        "is an object; allowed: an array of calls",
    ),
    "a call without an id": (
        [{"role": "assistant", "tool_calls": [{**CALL, "id": None}]}],
        "[0].tool_calls[0].id",
        "is missing; allowed: a non-empty string",
    ),
    "a call without a function": (
        [{"role": "assistant", "tool_calls": [{"id": "a", "name": "f"}]}],
        "[0].tool_calls[0].function",
        "is missing; allowed: an object with name and arguments",
    ),
    "a call without a name": (
        [{"role": "assistant", "tool_calls": [{"id": "a", "function": {"name": ""}}]}],
        "[0].tool_calls[0].function.name",
        "is an empty string; allowed: a non-empty string",
    ),
    "arguments that are a number": (
        [
            {
                "role": "assistant",
                "tool_calls": [{"id": "a", "function": {"name": "f", "arguments": 1}}],
            }
        ],
        "[0].tool_calls[0].function.arguments",
        "is a number; allowed: a string with JSON",
    ),
    "a call of another type": (
        [{"role": "assistant", "tool_calls": [{**CALL, "type": "computer"}]}],
        "[0].tool_calls[0].type",
        "is 'computer'; allowed: function, custom",
    ),
    "a custom call without input": (
        [
            {
                "role": "assistant",
                "tool_calls": [{"id": "a", "type": "custom", "custom": {"name": "f"}}],
            }
        ],
        "[0].tool_calls[0].custom.input",
        "is missing; allowed: a string",
    ),
    "two calls with one id": (
        [{"role": "assistant", "tool_calls": [CALL, CALL]}, RESULT],
        "[0].tool_calls[1].id",
        "is 'a'; another call has this id",
    ),
    "a result of no call": (
        [USER, RESULT],
        "[1].tool_call_id",
        "is 'a'; no unanswered call in the assistant message before it has this id",
    ),
    "a second result": ([ANSWER, RESULT, RESULT], "[2].tool_call_id", "is 'a'; no unanswered call"),
    "a result without an id": (
        [ANSWER, {"role": "tool", "content": "b"}],
        "[1].tool_call_id",
        "is missing; allowed: a non-empty string",
    ),
    "a result without content": (
        [ANSWER, {"role": "tool", "tool_call_id": "a"}],
        "[1].content",
        "is missing; allowed: a string or an array of parts",
    ),
    "a call without a result, then the user": (
        [ANSWER, USER],
        "[0].tool_calls[0]",
        "has no result; the message with its result must follow before any other message",
    ),
    "a call without a result at the end": ([USER, ANSWER], "[1].tool_calls[0]", "has no result;"),
    "a legacy call without a result": (
        [{"role": "assistant", "function_call": {"name": "f", "arguments": "{}"}}, USER],
        "[0].function_call",
        "has no result;",
    ),
    "a legacy call without a name": (
        [{"role": "assistant", "function_call": {"arguments": "{}"}}],
        "[0].function_call.name",
        "is missing",
    ),
    "a legacy result of no call": (
        [{"role": "function", "name": "f", "content": "b"}],
        "[0].name",
        "is 'f'; no earlier function_call has this name",
    ),
}


@pytest.mark.parametrize("name", REFUSED)
def test_a_wrong_conversation_is_refused_by_its_field(name: str) -> None:
    form, path, what = REFUSED[name]
    found = wrong(*form)
    assert list(found) == [path]
    assert what in found[path]


def test_several_errors_are_told_at_once_and_no_more_than_a_few() -> None:
    bad = {"role": "bad", "content": "a"}
    assert list(wrong(USER, bad, USER, image("x"))) == ["[1].role", "[3].content[0].image_url.url"]
    assert len(wrong(*[bad] * 100)) == MAX_WRONG
    assert len(wrong(*[RESULT] * 100)) == MAX_WRONG


def test_a_wrong_value_is_quoted_in_part() -> None:
    long = "x" * 500_000
    for form in (
        {"role": long, "content": ""},
        part(type=long),
        image(long),
        image(f"data:{long};base64,QUJD"),
        image(f"data:image/png;base64,{long}?"),
    ):
        (what,) = wrong(form).values()
        assert len(what) < 300
