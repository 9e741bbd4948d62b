"""The Responses API: whatever part of the events is sent, the answer is the same."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st

from polos_service.models import ModelAnswer, ModelRequest
from polos_service.models.draft import Draft
from polos_service.models.failures import Failures
from polos_service.models.messages import Message, Reasoning, Text
from polos_service.models.openai.responses_answer import Events
from polos_service.models.openai.responses_request import body
from tests.support.mock_responses import Event, Item, call, events, say, think, think_aloud

PIECES = st.lists(st.text(min_size=1, max_size=8), min_size=1, max_size=4)

KINDS: list[Callable[[str, list[str]], Item]] = [
    lambda name, pieces: say(*pieces, item_id=f"msg_{name}"),
    lambda name, pieces: think(*pieces, item_id=f"rs_{name}", encrypted=f"secret {name}"),
    lambda name, pieces: think_aloud(*pieces, item_id=f"rs_{name}"),
    lambda name, pieces: call("f", {"a": pieces}, call_id=f"call_{name}", item_id=f"fc_{name}"),
]

OUTPUTS = st.lists(st.tuples(st.sampled_from(KINDS), PIECES), min_size=1, max_size=5).map(
    lambda made: [
        make(str(number), [f"{number}{piece}" for piece in pieces])
        for number, (make, pieces) in enumerate(made)
    ]
)


def read(told: list[Event]) -> tuple[ModelAnswer, str, str]:
    """Return the answer to these events, and the text and reasoning that readers get."""
    failures = Failures("host", "mock", ())
    draft = Draft(failures, "openai")
    reader = Events(draft, failures)
    text = thoughts = ""
    for event in told:
        said, thought = reader.take(json.dumps(event).encode())
        text += said
        thoughts += thought or ""
    assert reader.over
    return draft.answer(None), text, thoughts


def assert_same(told: list[Event], output: list[Item]) -> None:
    """Assert that the answer to these events is this output, and goes back as it.

    What comes late stands where it came, for readers and in the answer alike.
    """
    answer, text, thoughts = read(told)
    whole, _, all_thoughts = read(events(*output))
    assert text == "".join(part.text for part in answer.parts if isinstance(part, Text))
    assert thoughts == "".join(part.text for part in answer.parts if isinstance(part, Reasoning))
    assert Counter(text) == Counter(whole.text)
    assert sorted(answer.calls, key=lambda one: one.id) == whole.calls
    if (text, thoughts) == (whole.text, all_thoughts):
        message = Message(role="assistant", parts=tuple(answer.parts), state=answer.state)
        back = body(ModelRequest(model="mock", messages=[message]), "openai")["input"]
        assert back == [one.done for one in output]


@settings(deadline=None, max_examples=50)
@given(OUTPUTS, st.data())
def test_whatever_is_left_out(output: list[Item], data: st.DataObject) -> None:
    told = events(*output)
    kept: list[Event] = []
    texts: dict[Any, bool] = {}
    for event in told[:-1]:
        place = tuple(event.get(name) for name in ("output_index", "summary_index"))
        if event["type"].endswith(".delta"):
            # Servers leave out all of a text, or its end.
            texts[place] = texts.get(place, True) and data.draw(st.booleans())
            if texts[place]:
                kept.append(event)
        elif data.draw(st.booleans()):
            kept.append(event)
    assert_same([*kept, told[-1]], output)


@settings(deadline=None, max_examples=50)
@given(OUTPUTS, st.sets(st.sampled_from(["output_index", "item_id", "content_index"])))
def test_whatever_is_not_numbered(output: list[Item], names: set[str]) -> None:
    told = [
        {name: value for name, value in event.items() if name not in names}
        for event in events(*output)
    ]
    assert_same(told, output)
