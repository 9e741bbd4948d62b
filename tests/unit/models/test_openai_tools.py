"""The provider `openai` over real HTTP: tool calls from fragments."""

from __future__ import annotations

from typing import Any

import orjson
import pytest

from polos.v1.event_pb2 import FinishReason
from polos_service.models.remote import Remote
from tests.support.mock_answers import call, delta, finish, say
from tests.support.mock_provider import MockProvider
from tests.support.models import ask


async def test_a_tool_call_is_put_together_from_its_fragments(
    provider: MockProvider, model: Remote
) -> None:
    provider.reply(
        say("Let me see."),
        call("add", {"a": 1, "b": 22}, call_id="call_1", pieces=5),
        call("sub", {"a": "ü"}, call_id="call_2", index=1, pieces=2),
    )
    answer, _ = await ask(model)
    assert [(one.id, one.name, orjson.loads(one.arguments_json)) for one in answer.calls] == [
        ("call_1", "add", {"a": 1, "b": 22}),
        ("call_2", "sub", {"a": "ü"}),
    ]
    assert answer.finish_reason == FinishReason.FINISH_REASON_TOOL_CALLS
    assert answer.text == "Let me see."


def fragment(**fields: Any) -> dict[str, Any]:
    function = {name: fields.pop(name) for name in ("name", "arguments") if name in fields}
    return {**fields, "function": function}


@pytest.mark.parametrize(
    "fragments",
    [
        pytest.param(
            [
                [fragment(index=0, id="x", name="f", arguments="[1")],
                [fragment(index=1, id="y", name="g", arguments="[2")],
                [fragment(index=0, arguments="]"), fragment(index=1, arguments="]")],
            ],
            id="interleaved",
        ),
        pytest.param(
            [
                [fragment(index=0, id="x", name="f", arguments="[1")],
                [fragment(index=0, id="x", name="f", arguments="]")],
                [fragment(index=1, id="y", name="g", arguments="[2]")],
            ],
            id="id and name repeated",
        ),
        pytest.param(
            [
                [
                    fragment(id="x", name="f", arguments="[1]"),
                    fragment(id="y", name="g", arguments="[2]"),
                ],
            ],
            id="whole, without an index",
        ),
        pytest.param(
            [
                [fragment(id="x", name="f", arguments="[1")],
                [fragment(arguments="]")],
                [fragment(id="y", name="g")],
                [fragment(arguments="[2]")],
            ],
            id="pieces without an index",
        ),
        pytest.param(
            [
                [fragment(index=0, id="x", name="f", arguments="[1]")],
                [fragment(index=0, id="y", name="g", arguments="[2]")],
            ],
            id="every call has index 0",
        ),
    ],
)
async def test_tool_calls_of_every_shape_are_understood(
    provider: MockProvider, model: Remote, fragments: list[list[dict[str, Any]]]
) -> None:
    provider.reply(*[delta(tool_calls=some) for some in fragments], finish("tool_calls"))
    answer, _ = await ask(model)
    calls = [(one.id, one.name, one.arguments_json) for one in answer.calls]
    assert calls == [("x", "f", "[1]"), ("y", "g", "[2]")]


async def test_calls_without_ids_and_arguments_get_ids_of_their_own_and_an_empty_object(
    provider: MockProvider, model: Remote
) -> None:
    provider.reply(delta(tool_calls=[fragment(name="f"), fragment(name="f")]), finish("tool_calls"))
    answer, _ = await ask(model)
    assert [(one.name, one.arguments_json) for one in answer.calls] == [("f", "{}")] * 2
    assert len({one.id for one in answer.calls if one.id}) == 2


async def test_broken_arguments_are_handed_on_as_the_model_wrote_them(
    provider: MockProvider, model: Remote
) -> None:
    provider.reply(call("add", '{"a": '))
    answer, _ = await ask(model)
    assert answer.calls[0].arguments_json == '{"a": '
