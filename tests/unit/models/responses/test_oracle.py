"""The `openai` package reads the same from the same bytes."""

from __future__ import annotations

import openai
import pytest
from openai.types.responses import Response, ResponseStreamEvent
from pydantic import TypeAdapter, ValidationError

from polos_service.models.messages import Message, Reasoning
from tests.support.mock_provider import MockProvider
from tests.support.mock_responses import (
    Item,
    call,
    events,
    item,
    responses,
    say,
    think,
    think_aloud,
)
from tests.support.models import HI
from tests.unit.models.responses.conftest import Ask
from tests.unit.models.responses.oracle import assert_valid

SEARCH = item(
    id="ws_1", type="web_search_call", status="completed", action={"type": "search", "query": "q"}
)

OUTPUTS = [
    (say("Hello", " wörld 𝄞"),),
    (say("No", ".", refusal=True),),
    (think("First.", "Second."), say("Let me see.", phase="commentary"), call("f", {"a": "ü"})),
    (think(), call("f", {}), call("g", {"a": [1]}, call_id="call_b", item_id="fc_2")),
    (SEARCH, think_aloud("Hm", "m"), say("One.", item_id="m_1"), say("Two.", item_id="m_2")),
    (),
]


@pytest.mark.parametrize("output", OUTPUTS)
def test_the_mock_sends_what_the_api_sends(output: tuple[Item, ...]) -> None:
    adapter: TypeAdapter[ResponseStreamEvent] = TypeAdapter(ResponseStreamEvent)
    for event in events(*output):
        adapter.validate_python(event)


@pytest.mark.parametrize("output", OUTPUTS)
async def test_both_read_the_same(
    provider: MockProvider, answered: Ask, output: tuple[Item, ...]
) -> None:
    provider.reply(responses(*output), size=7)
    provider.reply(responses(*output), size=7)
    answer, heard = await answered()
    theirs: list[str] = []
    thoughts: list[str] = []
    whole: Response | None = None
    async with openai.AsyncOpenAI(base_url=provider.url, api_key="k") as client:
        async for event in await client.responses.create(model="mock", input="Hi", stream=True):
            match event.type:
                case "response.output_text.delta" | "response.refusal.delta":
                    theirs.append(event.delta)
                case "response.reasoning_summary_text.done" | "response.reasoning_text.done":
                    thoughts.append(event.text)
                case "response.completed":
                    whole = event.response
    assert whole is not None
    assert heard == theirs
    ours = [part.text for part in answer.parts if isinstance(part, Reasoning) and part.text]
    assert "\n\n".join(ours) == "\n\n".join(thoughts)
    assert [(c.id, c.name, c.arguments_json) for c in answer.calls] == [
        (one.call_id, one.name, one.arguments)
        for one in whole.output
        if one.type == "function_call"
    ]
    assert answer.usage is not None
    assert whole.usage is not None
    assert answer.usage.total_tokens == whole.usage.total_tokens
    provider.reply(responses(say("ok")))
    await answered(messages=[HI, Message(role="assistant", parts=tuple(answer.parts))])
    back = provider.requests[-1].body["input"][1:]
    assert back == [one.to_dict(mode="json") for one in whole.output]


def test_the_oracle_refuses_what_is_wrong() -> None:
    good = {"model": "m", "stream": True, "input": [{"role": "user", "content": "Hi"}]}
    assert_valid(good)
    for wrong in ({"store": "?"}, {"input": [{"role": "nobody", "content": "Hi"}]}):
        with pytest.raises(ValidationError):
            assert_valid({**good, **wrong})
    with pytest.raises(AssertionError):
        assert_valid({**good, "seed": 7})
