"""What the provider `anthropic` is sent: whatever the conversation, the API can take it."""

from __future__ import annotations

import base64
import re
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import pytest
from anthropic.types.message_create_params import MessageCreateParamsStreaming
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import TypeAdapter

from polos.v1.error_pb2 import FailureReason
from polos_service.errors import StepError
from polos_service.models import ModelRequest
from polos_service.models.anthropic.request import DEFAULT_MAX_TOKENS, body
from polos_service.models.anthropic.turns import OPENING, UNANSWERED
from polos_service.models.messages import (
    Call,
    Media,
    Message,
    Part,
    Reasoning,
    Result,
    Role,
    Text,
)

PDF = base64.b64encode(b"%PDF-1.7").decode()
SIGNED = {"anthropic": {"block": {"type": "thinking", "signature": "s"}}}
SEARCH = {"type": "server_tool_use", "id": "x", "name": "web_search", "input": {}}
SEARCHED = {"anthropic": {"block": SEARCH}}

BODY = TypeAdapter(MessageCreateParamsStreaming)


def said(role: Role, *parts: Part | str) -> Message:
    made = tuple(Text(text=part) if isinstance(part, str) else part for part in parts)
    return Message(role=role, parts=made)


def told(call_id: str, text: str = "3", **fields: Any) -> Message:
    return said("tool", Result(call_id=call_id, content=(Text(text=text),), **fields))


def asked(call_id: str, arguments: str = '{"a":1}', name: str = "add") -> Call:
    return Call(id=call_id, name=name, arguments_json=arguments)


def sent(*messages: Message, **fields: Any) -> dict[str, Any]:
    return body(ModelRequest(model="claude", messages=messages, **fields), "anthropic")


def turns(*messages: Message) -> list[tuple[str, list[Any]]]:
    """Return the turns, a text as it is and each other block as a mapping."""
    return [(turn["role"], [_short(one) for one in turn["content"]]) for turn in _turns(messages)]


def _turns(messages: Sequence[Message]) -> list[dict[str, Any]]:
    made: list[dict[str, Any]] = sent(*messages)["messages"]
    return made


def _short(block: Mapping[str, Any]) -> Any:
    return block["text"] if block.keys() == {"type", "text"} else dict(block)


def use(call_id: str, name: str = "add", **arguments: Any) -> dict[str, Any]:
    return {"type": "tool_use", "id": call_id, "name": name, "input": arguments}


def result(call_id: str, text: str = "3", **fields: Any) -> dict[str, Any]:
    content = [{"type": "text", "text": text}]
    return {"type": "tool_result", "tool_use_id": call_id, "content": content, **fields}


def test_a_request_has_what_the_api_demands_and_no_more() -> None:
    assert sent(said("system", "Be brief."), said("user", "Hi")) == {
        "model": "claude",
        "max_tokens": DEFAULT_MAX_TOKENS,
        "system": [{"type": "text", "text": "Be brief."}],
        "messages": [{"role": "user", "content": [{"type": "text", "text": "Hi"}]}],
        "stream": True,
    }


def test_system_prompts_stand_outside_the_turns_wherever_they_were() -> None:
    made = sent(
        said("system", "One", " "),
        said("user", "Hi"),
        said("developer", "Two"),
        said("user", "there"),
    )
    assert [block["text"] for block in made["system"]] == ["One", "Two"]
    assert [len(turn["content"]) for turn in made["messages"]] == [2]


def test_results_stand_first_in_one_turn_behind_their_calls() -> None:
    assert turns(
        said("user", "Add"),
        said("assistant", "I do.", asked("a"), asked("b")),
        said("user", "Hurry"),
        told("b", "4"),
        told("a"),
        said("assistant", "Done"),
        said("user", "Thanks"),
    ) == [
        ("user", ["Add"]),
        ("assistant", ["I do.", use("a", a=1), use("b", a=1)]),
        ("user", [result("b", "4"), result("a"), "Hurry"]),
        ("assistant", ["Done"]),
        ("user", ["Thanks"]),
    ]


def test_a_call_without_a_result_gets_one_and_a_result_without_a_call_is_told() -> None:
    missing = result("a", UNANSWERED, is_error=True)
    assert turns(
        said("user", "Add"),
        said("assistant", asked("a")),
        said("user", "Never mind"),
        said("assistant", "Well"),
        told("a", "late"),
        said("assistant", asked("b")),
    ) == [
        ("user", ["Add"]),
        ("assistant", [use("a", a=1)]),
        ("user", [missing, "Never mind"]),
        ("assistant", ["Well"]),
        ("user", ["The result of a tool call:", "late"]),
        ("assistant", [use("b", a=1)]),
        ("user", [result("b", UNANSWERED, is_error=True)]),
    ]


def test_ids_are_mapped_to_what_the_api_takes_and_are_told_apart() -> None:
    assert turns(
        said("user", "Add"),
        said("assistant", asked("call:1"), asked("call.1"), asked("")),
        told("call.1", "2"),
        told("call:1", "1"),
        told("", "3"),
        said("assistant", asked("call:1")),
        told("call:1", "4"),
    )[1:] == [
        ("assistant", [use("call_1", a=1), use("call_1_2", a=1), use("_", a=1)]),
        ("user", [result("call_1_2", "2"), result("call_1", "1"), result("_", "3")]),
        ("assistant", [use("call_1_3", a=1)]),
        ("user", [result("call_1_3", "4")]),
    ]


@pytest.mark.parametrize("arguments", ["", "{", "[1]", "null", '"{}"', "NaN", '{"a": NaN}'])
def test_arguments_that_are_not_an_object_go_back_as_one(arguments: str) -> None:
    error = "Error: the arguments are not valid JSON."
    expected = {} if arguments in ("", "null", '"{}"') else {"input": arguments}
    assert turns(
        said("user", "Add"), said("assistant", asked("a", arguments)), told("a", error, failed=True)
    )[1:] == [
        ("assistant", [use("a", **expected)]),
        ("user", [result("a", error, is_error=True)]),
    ]


def test_names_that_a_model_made_up_are_mapped_to_what_the_api_takes() -> None:
    made = turns(said("user", "?"), said("assistant", asked("a", name="my tool/é" + "x" * 200)))
    assert re.fullmatch("my_tool__x{119}", made[1][1][0]["name"])


def test_a_failed_tool_that_says_nothing_says_that_it_failed() -> None:
    silent = said("tool", Result(call_id="a", content=(), failed=True))
    assert turns(said("user", "?"), said("assistant", asked("a")), silent)[2] == (
        "user",
        [result("a", "The tool failed.", is_error=True)],
    )


def test_blank_texts_are_left_out_and_turns_that_have_nothing_else() -> None:
    assert turns(
        said("user", "Hi"), said("assistant", "", " \n"), said("user", "", "there"), said("user")
    ) == [("user", ["Hi", "there"])]


@pytest.mark.parametrize("messages", [[], [said("user", " ")], [said("assistant", "Hi")]])
def test_a_conversation_begins_with_the_user(messages: list[Message]) -> None:
    assert turns(*messages)[0] == ("user", [OPENING])


def test_a_last_answer_to_go_on_with_has_no_whitespace_at_its_end() -> None:
    assert turns(said("user", "Hi"), said("assistant", "Well, \n"))[-1] == ("assistant", ["Well,"])


def test_reasoning_goes_back_as_it_came_and_only_to_its_provider() -> None:
    hidden = {"type": "redacted_thinking", "data": "x=="}
    assert turns(
        said("user", "Hi"),
        said(
            "assistant",
            Reasoning(text="Hm", state=SIGNED),
            Reasoning(state={"anthropic": {"block": hidden}}),
            Reasoning(text="of another", state={"openai": {"id": "rs_1"}}),
            Reasoning(text="unsigned"),
            "I look.",
            Reasoning(state=SEARCHED),
            Reasoning(state=SIGNED),
            asked("a"),
        ),
        told("a"),
    )[1] == (
        "assistant",
        [
            {"type": "thinking", "thinking": "Hm", "signature": "s"},
            hidden,
            "I look.",
            SEARCH,
            {"type": "thinking", "thinking": "", "signature": "s"},
            use("a", a=1),
        ],
    )


def test_what_the_provider_sent_with_a_block_goes_back_with_it() -> None:
    cited = {"anthropic": {"block": {"citations": [{"cited_text": "a"}]}}}
    called = {"anthropic": {"block": {"caller": {"type": "direct"}}}}
    call = Call(id="a", name="f", arguments_json="{}", state=called)
    answered = said("assistant", Text(text="As they say", state=cited), call)
    assert turns(said("user", "Hi"), answered, told("a"))[1] == (
        "assistant",
        [
            {"type": "text", "text": "As they say", "citations": [{"cited_text": "a"}]},
            {**use("a", "f"), "caller": {"type": "direct"}},
        ],
    )


def test_an_answer_does_not_end_with_reasoning() -> None:
    cut = said("assistant", "Well", Reasoning(text="Hm", state=SIGNED))
    only = said("assistant", Reasoning(text="Hm", state=SIGNED))
    assert turns(said("user", "Hi"), cut, said("user", "?"), only) == [
        ("user", ["Hi"]),
        ("assistant", ["Well"]),
        ("user", ["?"]),
    ]


def test_of_what_a_caller_set_the_api_gets_what_it_knows() -> None:
    set_ = {"cache_control": {"type": "ephemeral"}, "name": "x", "type": "custom"}
    cached = {"anthropic": set_, "openai": {"x": 1}}
    calls = said("assistant", Call(id="a", name="f", arguments_json="{}", state=cached))
    results = said("tool", Result(call_id="a", content=(Text(text="3"),), state=cached))
    control: dict[str, Any] = {"cache_control": {"type": "ephemeral"}}
    assert turns(said("user", "Hi"), calls, results)[1:] == [
        ("assistant", [{**use("a", "f"), **control}]),
        ("user", [result("a", **control)]),
    ]
    made = sent(
        said("system", Text(text="Long", state=cached)), said("user", Text(text="Hi", state=cached))
    )
    block = {"type": "text", **control}
    assert made["system"] == [{**block, "text": "Long"}]
    assert made["messages"][0]["content"] == [{**block, "text": "Hi"}]


@pytest.mark.parametrize(
    ("media", "block"),
    [
        (
            Media(type="image", url="https://x/y.png"),
            {"type": "image", "source": {"type": "url", "url": "https://x/y.png"}},
        ),
        (
            Media(type="image", data="aGk=", media_type="image/png"),
            {
                "type": "image",
                "source": {"type": "base64", "media_type": "image/png", "data": "aGk="},
            },
        ),
        (
            Media(type="file", url="https://x/y.pdf", name="y.pdf"),
            {
                "type": "document",
                "source": {"type": "url", "url": "https://x/y.pdf"},
                "title": "y.pdf",
            },
        ),
        (
            Media(type="file", data=PDF, media_type="application/pdf"),
            {
                "type": "document",
                "source": {"type": "base64", "media_type": "application/pdf", "data": PDF},
            },
        ),
        (
            Media(type="file", data="R3LDvMOfZQ==", media_type="text/csv"),
            {
                "type": "document",
                "source": {"type": "text", "media_type": "text/plain", "data": "Grüße"},
            },
        ),
        (
            Media(type="file", state={"anthropic": {"file_id": "f"}}),
            {"type": "document", "source": {"type": "file", "file_id": "f"}},
        ),
    ],
)
def test_images_and_files(media: Media, block: dict[str, Any]) -> None:
    made = turns(
        said("user", "Look", media),
        said("assistant", asked("a")),
        said("tool", Result(call_id="a", content=(media,))),
    )
    assert made[0] == ("user", ["Look", block])
    assert made[2][1][0]["content"] == [block]


@pytest.mark.parametrize(
    ("media", "what"),
    [
        (Media(type="file", data="aGk=", media_type="audio/wav"), "'audio/wav'"),
        (Media(type="image"), "that has neither a URL nor content"),
    ],
)
def test_a_file_that_the_api_does_not_take_is_refused(media: Media, what: str) -> None:
    with pytest.raises(StepError, match=what) as raised:
        turns(said("user", media))
    assert raised.value.reason == FailureReason.FAILURE_REASON_MODEL_BAD_REQUEST
    assert not raised.value.retryable


def test_tools_are_defined_and_join_those_of_the_provider() -> None:
    search = {"type": "web_search_20250305", "name": "web_search"}
    tools = [
        {"name": "add", "description": "Adds.", "parameters": {"properties": {"a": {}}}},
        {"name": "now", "description": "", "parameters": {"type": "object"}},
    ]
    assert sent(tools=tools, settings={"tools": [search]})["tools"] == [
        {
            "name": "add",
            "description": "Adds.",
            "input_schema": {"type": "object", "properties": {"a": {}}},
        },
        {"name": "now", "input_schema": {"type": "object"}},
        search,
    ]


def test_parameters_of_the_run_come_before_those_of_the_agent() -> None:
    made = sent(
        temperature=0.5,
        max_output_tokens=9,
        settings={"top_k": 5, "top_p": 0.5},
        options={"top_k": 6, "max_tokens": 7},
    )
    assert (made["temperature"], made["max_tokens"], made["top_k"], made["top_p"]) == (
        *(0.5, 7, 6, 0.5),
    )


@pytest.mark.parametrize(
    ("thinking", "temperature"),
    [
        ({"type": "enabled", "budget_tokens": 2048}, None),
        ({"type": "adaptive"}, None),
        ({"type": "disabled"}, 0.5),
    ],
)
def test_a_model_that_thinks_is_sent_no_temperature(
    thinking: dict[str, Any], temperature: float | None
) -> None:
    made = sent(temperature=0.5, settings={"thinking": thinking})
    assert made.get("temperature") == temperature
    assert made["thinking"] == thinking


TEXTS = st.sampled_from(["", " ", "\n", "Hi", " Hi ", "Grüße 𝄞"])
IDS = st.sampled_from(["a", "b", "a_2", "call:1", "call.1", "", "é" * 3])
ARGUMENTS = st.sampled_from(["", "{}", '{"a": 1}', "{", "[1]", "null"])
STATES = st.sampled_from([{}, SIGNED, SEARCHED, {"openai": {"type": "thinking"}}])
SAYABLE = st.builds(Text, text=TEXTS) | st.sampled_from(
    [
        Media(type="image", url="https://x/y.png"),
        Media(type="file", data=PDF, media_type="application/pdf"),
    ]
)
CALLS = st.builds(Call, id=IDS, name=TEXTS, arguments_json=ARGUMENTS)
RESULTS = st.builds(
    Result, call_id=IDS, content=st.lists(SAYABLE, max_size=2).map(tuple), failed=st.booleans()
)
THOUGHTS = st.builds(Reasoning, text=TEXTS, state=STATES)


def messages_of(role: Role, parts: st.SearchStrategy[Any]) -> st.SearchStrategy[Message]:
    several = st.lists(parts, max_size=4).map(tuple)
    return st.builds(Message, role=st.just(role), parts=several)


MESSAGES = st.one_of(
    messages_of("system", SAYABLE),
    messages_of("user", SAYABLE),
    messages_of("assistant", SAYABLE | CALLS | THOUGHTS),
    messages_of("tool", RESULTS),
)


@settings(deadline=None)
@given(st.lists(MESSAGES, max_size=8))
def test_the_api_can_take_any_conversation(messages: list[Message]) -> None:
    made = sent(*messages)
    _validate(made)
    roles = [turn["role"] for turn in made["messages"]]
    assert roles == [("user", "assistant")[number % 2] for number in range(len(roles))]
    waiting: list[str] = []
    called: list[str] = []
    for turn in made["messages"]:
        content = turn["content"]
        assert content
        kinds = [block["type"] for block in content]
        results = [block for block in content if block["type"] == "tool_result"]
        assert kinds[: len(results)] == ["tool_result"] * len(results)
        assert sorted(waiting) == sorted(block["tool_use_id"] for block in results)
        assert not waiting or turn["role"] == "user"
        waiting = [block["id"] for block in content if block["type"] == "tool_use"]
        called += waiting
        if turn["role"] == "assistant":
            assert kinds[-1] != "thinking"
            assert not {"image", "document"} & set(kinds)
        for block in _with_inner(content):
            if block["type"] == "text":
                assert block["text"].strip()
            if block["type"] == "tool_use":
                assert re.fullmatch("[a-zA-Z0-9_-]{1,128}", block["name"])
                assert isinstance(block["input"], dict)
    assert not waiting
    assert len(set(called)) == len(called)
    assert all(re.fullmatch("[a-zA-Z0-9_-]+", one) for one in called)
    last = made["messages"][-1]
    if last["role"] == "assistant" and last["content"][-1]["type"] == "text":
        assert last["content"][-1]["text"] == last["content"][-1]["text"].rstrip()


def _validate(made: dict[str, Any]) -> None:
    """Hold a request to the types of Anthropic's own package."""
    _walk(BODY.validate_python(made))


def _walk(value: Any) -> None:
    """Go through the value: what pydantic makes of an Iterable is validated as it is read."""
    if isinstance(value, Mapping):
        value = list(value.values())
    if isinstance(value, Iterable) and not isinstance(value, str | bytes):
        for one in value:
            _walk(one)


def _with_inner(content: list[dict[str, Any]]) -> list[dict[str, Any]]:
    return [*content, *(inner for block in content for inner in block.get("content", ()))]
