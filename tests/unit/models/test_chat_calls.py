"""Tool calls of chat completions over real HTTP, in every form that servers send them."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from polos.v1.error_pb2 import FailureReason
from polos.v1.event_pb2 import FinishReason
from polos_service.models.draft import Draft
from polos_service.models.failures import Failures
from polos_service.models.openai.chat_calls import Calls
from polos_service.models.remote import Remote
from tests.support.mock_answers import call, cut, delta, finish, raw
from tests.support.mock_provider import MockProvider
from tests.support.models import ask, failure

TOOLS = [
    {"name": name, "description": "", "parameters": {"type": "object"}}
    for name in ("f", "g", "get_weather")
]
DONE = raw(b"data: [DONE]\n\n")


def part(**fields: Any) -> dict[str, Any]:
    function = {name: fields.pop(name) for name in ("name", "arguments") if name in fields}
    return {**fields, "function": function}


ONE, TWO = ("f", {"a": 1}), ("f", {"a": 2})
F1 = part(index=0, name="f", arguments='{"a":1}')

FORMS = [
    pytest.param([[F1]], [ONE], id="whole"),
    pytest.param([[F1], [part(index=0, name="f", arguments='{"a":2}')]], [ONE, TWO], id="index 0"),
    pytest.param([[F1, part(index=0, name="f", arguments='{"a":1}')]], [ONE, ONE], id="twice"),
    pytest.param([[F1], [part(index=0, arguments='{"a":2}')]], [ONE, TWO], id="no name again"),
    pytest.param([[part(name="f", arguments='{"a":1}{"a":2}')]], [ONE, TWO], id="in one text"),
    pytest.param(
        [
            [part(id="a", name="f")],
            [part(id="b", name="f")],
            [part(id="a", arguments='{"a"')],
            [part(id="b", arguments='{"a":')],
            [part(id="a", arguments=":1}")],
            [part(id="b", arguments="2}")],
        ],
        [ONE, TWO],
        id="by id",
    ),
    pytest.param([[part(index=0, name="f", arguments={"a": 1})]], [ONE], id="object"),
    pytest.param([[part(index=0, name="f", arguments="null")]], [("f", {})], id="null"),
    pytest.param([[part(index=0, name="f", arguments=None)]], [("f", {})], id="None"),
    pytest.param([[part(index=0, name="f", arguments='"{\\"a\\":1}"')]], [ONE], id="text in text"),
    pytest.param(
        [[part(index=0, name="get_")], [part(index=0, name="weather", arguments="{}")]],
        [("get_weather", {})],
        id="name in pieces",
    ),
    pytest.param(
        [[part(id="x", name="get_")], [part(id="x", name="get_weather", arguments="{}")]],
        [("get_weather", {})],
        id="name that grows",
    ),
    pytest.param(
        [[part(index=0, name="f", arguments=text)] for text in ('{"a"', ":", "1}")],
        [ONE],
        id="name in each fragment",
    ),
    pytest.param(
        [[part(index=0, id="x", name="f", arguments=text)] for text in ('{"a"', ":", "1}", "")],
        [ONE],
        id="id and name in each fragment",
    ),
    pytest.param(
        [[part(index=0, id=i, name="f", arguments=t)] for i, t in (("x", '{"a"'), ("y", ":1}"))],
        [ONE],
        id="another id in each fragment",
    ),
    pytest.param([F1], [ONE], id="not a list"),
    pytest.param([[[F1]]], [ONE], id="list in a list"),
    pytest.param([[{"index": 0, "name": "f", "arguments": '{"a":1}'}]], [ONE], id="flat"),
    pytest.param([[{"function": "f", "arguments": {"a": 1}}]], [ONE], id="function is a name"),
    pytest.param([[{**F1, "id": None, "type": None}, None]], [ONE], id="nulls"),
    pytest.param(
        [[part(index="0", name="f", arguments='{"a"')], [part(index="0", arguments=":1}")]],
        [ONE],
        id="index in a text",
    ),
    pytest.param(
        [
            [part(index=0, id="x", name="f", arguments='{"a"')],
            [part(index=0, arguments='{"a":')],
            [part(index=0, arguments='{"a":1}')],
        ],
        [ONE],
        id="each fragment repeats",
    ),
    pytest.param(
        [[part(index=0, name="f", arguments='{"a":')], [part(index=0, arguments='{"a":1}}')]],
        [("f", {"a": {"a": 1}})],
        id="looks like a repetition",
    ),
    pytest.param(
        [[part(index=0, id="x", name="f", arguments="{}")], [part(index=0, arguments='{"a":1}')]],
        [ONE],
        id="an empty object first",
    ),
    pytest.param(
        [[part(index=0, id="x", name="f", arguments='{"a":1}')]] * 2, [ONE], id="told twice"
    ),
    pytest.param(
        [[part(index=i, id="x", name="f", arguments=f'{{"a":{i + 1}}}')] for i in (0, 1)],
        [ONE, TWO],
        id="one id for two calls",
    ),
    pytest.param([[F1, {}], [{}]], [ONE], id="empty fragments"),
]


@pytest.mark.parametrize("reason", ["tool_calls", "tool_call", "STOP", "TOOL_CALLS", "xyz", None])
@pytest.mark.parametrize(("fragments", "expected"), FORMS)
async def test_calls_are_made_whatever_their_form_and_the_finish_reason(
    provider: MockProvider, model: Remote, fragments: Any, expected: Any, reason: str | None
) -> None:
    ending = [finish(reason)] if reason else [DONE, cut()]
    provider.reply(*[delta(tool_calls=some) for some in fragments], *ending)
    answer, _ = await ask(model, tools=TOOLS)
    calls = [(one.name, json.loads(one.arguments_json)) for one in answer.calls]
    assert calls == expected
    assert answer.finish_reason == FinishReason.FINISH_REASON_TOOL_CALLS
    assert len({one.id for one in answer.calls}) == len(calls)


async def test_a_legacy_function_call_is_a_call(provider: MockProvider, model: Remote) -> None:
    provider.reply(
        delta(function_call={"name": "f", "arguments": ""}),
        delta(function_call={"arguments": '{"a":'}),
        delta(function_call={"arguments": "1}"}),
        finish("function_call"),
    )
    answer, _ = await ask(model, tools=TOOLS)
    assert [(one.name, one.arguments_json) for one in answer.calls] == [("f", '{"a":1}')]


@pytest.mark.parametrize("reason", ["length", "content_filter", "MAX_TOKENS"])
async def test_a_cut_or_filtered_answer_makes_no_call(
    provider: MockProvider, model: Remote, reason: str
) -> None:
    provider.reply(call("f", '{"a": 1}'), finish(reason))
    answer, _ = await ask(model, tools=TOOLS)
    assert not answer.calls


async def test_without_done_a_missing_finish_reason_is_a_cut(
    provider: MockProvider, model: Remote
) -> None:
    provider.reply(call("f", {"a": 1}), cut())
    failed = await failure(model)
    assert failed.reason == FailureReason.FAILURE_REASON_MODEL_CUT_SHORT


async def test_an_answer_that_ends_in_a_call_and_has_none_is_malformed(
    provider: MockProvider, model: Remote
) -> None:
    provider.reply(delta(content=""), finish("tool_calls"))
    failed = await failure(model)
    assert failed.reason == FailureReason.FAILURE_REASON_MODEL_MALFORMED
    assert failed.retryable


async def test_unknown_members_of_a_call_are_kept(provider: MockProvider, model: Remote) -> None:
    extra = {"google": {"thought_signature": "abc"}}
    provider.reply(
        delta(tool_calls=[{**part(index=0, id="x", name="f", arguments="{}")}]),
        delta(tool_calls=[{"index": 0, "extra_content": extra, "function": {"signature": "s"}}]),
        finish("tool_calls"),
    )
    answer, _ = await ask(model, tools=TOOLS)
    assert answer.calls[0].state == {
        "openai": {"extra_content": extra, "function": {"signature": "s"}}
    }


_OBJECT = st.dictionaries(
    st.text(max_size=5),
    st.recursive(
        st.none() | st.integers(-9, 9) | st.text(max_size=6),
        lambda inner: (
            st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=3), inner, max_size=3)
        ),
        max_leaves=6,
    ),
    min_size=1,
    max_size=3,
)


@settings(max_examples=200, deadline=None)
@given(first=_OBJECT, second=_OBJECT, size=st.integers(1, 12), ids=st.booleans())
def test_arguments_are_put_together_however_they_are_cut(
    first: dict[str, Any], second: dict[str, Any], size: int, *, ids: bool
) -> None:
    failures = Failures("host", "model", ())
    draft = Draft(failures, "openai")
    calls = Calls(draft, failures, TOOLS)
    for number, (name, told) in enumerate((("f", first), ("g", second))):
        head: dict[str, Any] = {"id": f"c{number}", "index": number} if ids else {}
        calls.take([{**head, "function": {"name": name, "arguments": ""}}])
        text = json.dumps(told)
        index = {"index": number} if ids else {}
        for at in range(0, len(text), size):
            calls.take([{**index, "function": {"arguments": text[at : at + size]}}])
    assert calls.are_whole()
    calls.settle()
    found = [(one.name, json.loads(one.content.getvalue())) for one in draft.calls]
    assert found == [("f", first), ("g", second)]
