"""The provider `anthropic` survives whatever stands in the events."""

from __future__ import annotations

import contextlib
import json
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st

from polos_service.errors import StepError
from polos_service.models.anthropic.answer import MessageEvents
from polos_service.models.anthropic.turns import turns_of
from polos_service.models.draft import Draft
from polos_service.models.failures import Failures
from polos_service.models.messages import Message, Part, Text

KINDS = (
    *("content_block_delta", "content_block_start", "content_block_stop", "message"),
    *("message_delta", "message_start", "message_stop", "ping", "error", "new"),
)
BLOCKS = ("text", "thinking", "redacted_thinking", "tool_use", "server_tool_use", "new")
NAMES = (
    *("text", "thinking", "signature", "partial_json", "citation", "citations", "id", "name"),
    *("input", "stop_reason", "stop_details", "explanation", "usage", "content", "block"),
    *("input_tokens", "output_tokens", "output_tokens_details"),
)
LEAVES = (
    st.none()
    | st.booleans()
    | st.integers(-1, 2)
    | st.sampled_from([2**70, 0.5, "", "a", "\ud83d", "\ude00", "{", "{}", '{"a":1}', "refusal"])
)
VALUES = st.recursive(
    LEAVES,
    lambda inner: (
        st.lists(inner, max_size=2) | st.dictionaries(st.sampled_from(NAMES), inner, max_size=3)
    ),
    max_leaves=4,
)


def objects(*kinds: str) -> st.SearchStrategy[Any]:
    """Return objects of these kinds with any members, and now and then anything else."""
    members = st.dictionaries(st.sampled_from(NAMES), VALUES, max_size=4)
    kind = st.fixed_dictionaries({"type": st.sampled_from(kinds)})
    return st.builds(lambda one, two: {**one, **two}, members, kind) | VALUES


EVENTS = st.builds(
    lambda one, two: {**one, **two},
    st.fixed_dictionaries(
        {},
        optional={
            "type": st.sampled_from(KINDS) | VALUES,
            "index": st.integers(0, 2) | VALUES,
            "delta": objects("text_delta", "input_json_delta", "new_delta"),
            "content_block": objects(*BLOCKS),
            "message": objects("message"),
        },
    ),
    st.dictionaries(st.sampled_from(NAMES), VALUES | st.lists(objects(*BLOCKS)), max_size=2),
)


@settings(deadline=None)
@given(st.lists(EVENTS, max_size=8))
def test_events_are_read_or_fail_as_a_step_and_text_is_not_lost(events: list[Any]) -> None:
    failures = Failures("mock", "mock", ())
    draft = Draft(failures, "anthropic")
    reader = MessageEvents(draft, failures)
    heard = ""
    with contextlib.suppress(StepError):
        for event in [*events, {"type": "message_stop"}]:
            heard += reader.take(json.dumps(event).encode())[0]
        answer = draft.answer(None)
        assert answer.text.startswith(heard)
        assert_can_go_back(list(answer.parts))


def assert_can_go_back(parts: list[Part]) -> None:
    said = Message(role="user", parts=(Text(text="Hi"),))
    json.dumps(turns_of([said, Message(role="assistant", parts=tuple(parts)), said], "anthropic"))
