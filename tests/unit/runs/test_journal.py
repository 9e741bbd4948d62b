"""The fold of a log that recovery starts from."""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence

import orjson
import pytest
from google.protobuf.message import Message
from hypothesis import given, settings
from hypothesis import strategies as st

from polos.v1.event_pb2 import (
    AgentFinish,
    AgentStart,
    LongAnswer,
    LongArguments,
    ReasoningDelta,
    StepFailure,
    StepFinish,
    StepRetry,
    StepStart,
    TextDelta,
    ToolCall,
    ToolCallDelta,
    ToolCallRequested,
)
from polos_service.limits import PIECE_LIMIT
from polos_service.runs.frame import Encoder
from polos_service.runs.journals import Journals
from polos_service.runs.lineage import Lineage, Origin
from polos_service.runs.private import private_line, private_lines
from polos_service.runs.said import NOTHING, Said, pieces, size_of
from polos_service.store import Entry

ROOT = Lineage("r", "w")


def event(payload: Message, lineage: Lineage = ROOT) -> bytes:
    return Encoder(lineage).encode(payload, sequence=1, time=7)


async def folded(*entries: Entry) -> Journals:
    async def history() -> AsyncIterator[Entry]:
        for entry in entries:
            yield entry

    return await Journals.load("r", history())


CLAIM = Entry(data=b"", private=b'{"claim": {"epoch": 1, "writer": "here:1"}}\n')


RELEASED = Entry(data=b"", private=b'{"released": {"epoch": 1}}\n')


async def test_a_log_of_claims_has_not_started() -> None:
    journals = await folded(CLAIM, CLAIM)
    assert (journals.claims, journals.root.started, journals.damage) == (2, False, "")


@pytest.mark.parametrize(
    "line",
    [
        b"5",
        b"{",
        b'{"released": 5}',
        b'{"step": ["a"], "private": {}}',
        b'{"step": "a"}',
        b'{"run": "r", "private": {}}',
        b'{"run": {}, "key": "a", "private": {}}',
        b"[" * 100_000,
    ],
    ids=range(8),
)
async def test_a_private_line_of_another_shape_is_damage(line: bytes) -> None:
    journals = await folded(CLAIM, Entry(data=b"", private=line + b"\n"), CLAIM)
    assert journals.damage
    assert journals.claims == 2


async def test_claims_count_until_a_step_finishes_or_they_are_released() -> None:
    finish = Entry(data=event(StepFinish(step_key="a", result_json="1")), private=b"")
    assert (await folded(CLAIM, CLAIM, finish, CLAIM)).claims == 1
    assert (await folded(CLAIM, CLAIM, RELEASED, CLAIM)).claims == 2
    assert (await folded(CLAIM, finish, RELEASED, CLAIM)).claims == 1


async def test_a_claim_that_was_not_released_has_a_former_holder() -> None:
    other = Entry(data=b"", private=b'{"claim": {"epoch": 2, "writer": "there:2"}}\n')
    failed = Entry(data=b"", private=b'{"released": {"epoch": 1, "failed": true}}\n')
    nameless = Entry(data=b"", private=b'{"claim": {"epoch": 2}}\n')
    assert (await folded(other)).former_holder == ""
    assert (await folded(CLAIM, other)).former_holder == "here:1"
    assert (await folded(CLAIM, other, CLAIM)).former_holder == "there:2"
    assert (await folded(CLAIM, RELEASED, other)).former_holder == ""
    assert (await folded(CLAIM, failed, other)).former_holder == ""
    assert (await folded(nameless, other)).former_holder == ""


async def test_a_child_s_finished_step_is_progress() -> None:
    finish = event(StepFinish(step_key="a", result_json="1"), CHILD)
    assert (await folded(CLAIM, CLAIM, Entry(data=finish, private=b""), CLAIM)).claims == 1


async def test_any_event_starts_a_run() -> None:
    journals = await folded(CLAIM, Entry(data=event(TextDelta(content="a")), private=b""))
    assert journals.root.started
    assert journals.root.start_time == 7


async def test_the_last_word_about_each_step_counts() -> None:
    data = [
        event(StepStart(step_key="a", step_type="llm", attempt=1)),
        event(StepStart(step_key="b", step_type="tool", attempt=1)),
        event(StepRetry(step_key="a", attempt=2)),
        event(StepRetry(step_key="a", attempt=3)),
        event(StepFinish(step_key="b", attempt=1, result_json="7")),
        event(StepStart(step_key="c", step_type="tool", attempt=1)),
        event(StepFinish(step_key="c", failure=StepFailure(message="no"))),
    ]
    journals = await folded(
        CLAIM, Entry(data=b"".join(data[:4]), private=b""), CLAIM,
        Entry(data=b"".join(data[4:]), private=b""),
    )  # fmt: skip
    journal = journals.root
    assert journal.attempts == {"a": 3, "b": 1, "c": 1}
    assert journal.kinds == {"a": "llm", "b": "tool", "c": "tool"}
    assert {key: one.result_json for key, one in journal.finished.items()} == {"b": "7", "c": ""}
    assert journal.finished["c"].failure.message == "no"


async def test_private_lines_concatenate_and_may_hold_any_text() -> None:
    first = {"thought": "a\nb\r\n\u2028\x85", "n": [1, None, {"x": 1.5}]}
    lines = private_line("llm:1", first) + private_line("llm:2", {"y": 2})
    journals = await folded(Entry(data=event(TextDelta(content="a")), private=lines))
    assert journals.root.private == {"llm:1": first, "llm:2": {"y": 2}}


CHILD = Lineage("r:2", "sub", Origin("r", "ask", 1))


async def test_the_same_key_in_a_child_is_another_step() -> None:
    data = [
        event(StepStart(step_key="llm:1", step_type="llm", attempt=1)),
        event(AgentStart(), CHILD),
        event(StepStart(step_key="llm:1", step_type="llm", attempt=1), CHILD),
        event(StepRetry(step_key="llm:1", attempt=2), CHILD),
        event(StepFinish(step_key="llm:1", attempt=2, result_json="2"), CHILD),
        event(AgentFinish(), CHILD),
    ]
    private = private_line("llm:1", {"of": "root"}) + private_line("llm:1", {"of": "child"}, "r:2")
    journals = await folded(Entry(data=b"".join(data), private=private))
    assert journals.root.attempts == {"llm:1": 1}
    assert journals.root.finished == {}
    assert journals.root.private == {"llm:1": {"of": "root"}}
    assert journals.root.end is None
    child = journals.child(Origin("r", "ask", 1))
    assert child is not None
    assert child.lineage == CHILD
    assert child.attempts == {"llm:1": 2}
    assert child.finished["llm:1"].result_json == "2"
    assert child.private == {"llm:1": {"of": "child"}}
    assert child.end is not None


async def test_a_child_is_found_by_the_attempt_that_began_it_and_by_no_other() -> None:
    journals = await folded(Entry(data=event(AgentStart(), CHILD), private=b""))
    assert journals.child(Origin("r", "ask", 1)) is not None
    for other in (Origin("r", "ask", 2), Origin("r", "other", 1), Origin("r:2", "ask", 1)):
        assert journals.child(other) is None


async def test_a_private_line_of_a_run_without_events_is_damage() -> None:
    journals = await folded(Entry(data=b"", private=private_line("a", {}, "r:9")))
    assert "r:9" in journals.damage


def test_a_root_s_private_line_is_as_0_1_0_reads_it_and_a_child_s_as_it_passes_over() -> None:
    assert orjson.loads(private_line("a", {"x": 1})) == {"step": "a", "private": {"x": 1}}
    known = {"step", "claim", "released"}
    assert not known & set(orjson.loads(private_line("a", {"x": 1}, "r:2")))


SPOKEN = [
    ReasoningDelta(step_key="llm:1", content="Hm"),
    TextDelta(step_key="llm:1", content="Hel"),
    TextDelta(step_key="llm:1", content="lo"),
    ToolCallDelta(step_key="llm:1", call=0, content="[1"),
    ToolCallDelta(step_key="llm:1", call=0, content=",2]"),
    ToolCallRequested(
        step_key="llm:1",
        tool_call=ToolCall(id="a", long_arguments=LongArguments(step_key="llm:1", call=0)),
    ),
    ToolCallRequested(step_key="llm:1", tool_call=ToolCall(id="b", arguments_json="{}")),
]


async def spoken(*ending: Message) -> Journals:
    """Return the fold of events that say something, and of these after them."""
    data = b"".join(event(one) for one in [*SPOKEN, *ending])
    return await folded(Entry(data=data, private=b""))


async def test_what_a_long_answer_says_is_kept_until_it_is_asked_for() -> None:
    journal = (await spoken(StepFinish(step_key="llm:1", long_answer=LongAnswer()))).root
    said = journal.take_said("llm:1")
    assert (said.text, said.reasoning) == ("Hello", "Hm")
    assert [(call.id, call.arguments_json) for call in said.calls] == [("a", "[1,2]"), ("b", "{}")]
    assert not journal.sayings


async def test_of_an_answer_that_its_end_tells_only_the_reasoning_is_kept() -> None:
    journal = (await spoken(StepFinish(step_key="llm:1", result_json="{}"))).root
    assert journal.take_said("llm:1") == Said(reasoning="Hm")


async def test_what_was_said_before_a_retry_or_without_an_end_is_forgotten() -> None:
    retried = await spoken(
        StepRetry(step_key="llm:1", attempt=2),
        TextDelta(step_key="llm:1", content="Bye", attempt=2),
        StepFinish(step_key="llm:1", attempt=2, long_answer=LongAnswer()),
    )
    assert retried.root.take_said("llm:1") == Said(text="Bye")
    assert (await spoken()).root.take_said("llm:1") == NOTHING


@pytest.mark.parametrize("child", [None, "r:2"])
@pytest.mark.parametrize("value", ["a", 'é"\\\n'], ids=["plain", "escaped"])
async def test_a_private_part_that_is_cut_is_put_together_again(
    child: str | None, value: str
) -> None:
    private = {"state": value * (PIECE_LIMIT // len(value))}
    key = "\\" * 1024
    lines = list(private_lines(key, 2, private, child))
    assert len(lines) > 1
    assert all(len(line) <= PIECE_LIMIT for line in lines)
    void = list(private_lines(key, 1, {"state": "b" * PIECE_LIMIT}, child))
    lineage = CHILD if child else ROOT
    finish = event(StepFinish(step_key=key, attempt=2, result_json="1"), lineage)
    journals = await folded(
        Entry(data=event(AgentStart(), lineage), private=b"".join([*void, *lines[:1]])),
        Entry(data=finish, private=b"".join(lines[1:])),
    )
    assert not journals.damage
    journal = journals.child(CHILD.origin) if CHILD.origin and child else journals.root
    assert journal is not None
    assert journal.take_private(key) == private


def test_a_piece_of_a_private_part_is_nothing_that_0_1_0_knows() -> None:
    known = {"step", "run", "claim", "released"}
    for line in private_lines("a", 1, {"x": "y" * PIECE_LIMIT}):
        assert not known & set(orjson.loads(line))


def test_a_short_private_part_is_one_line_as_ever() -> None:
    assert list(private_lines("a", 1, {"x": 1})) == [private_line("a", {"x": 1})]


@given(st.text(max_size=40), st.integers(4, 12))
def test_pieces_fit_and_are_the_text(text: str, limit: int) -> None:
    cut = pieces(text, limit)
    assert "".join(cut) == text
    assert all(0 < size_of(piece) == len(piece.encode()) <= limit for piece in cut)


RUNS = (
    ROOT,
    CHILD,
    Lineage("r:3", "sub", Origin("r", "ask", 2)),
    Lineage("r:4", "leaf", Origin("r:2", "ask", 1)),
)
KEYS = st.sampled_from(["ask", "llm:1", "llm:1/x", "run"])
KINDS = st.sampled_from(["llm", "tool"])
ATTEMPTS = st.integers(1, 3)
PAYLOADS: st.SearchStrategy[Message] = st.one_of(
    st.builds(
        StepStart, step_key=KEYS, step_type=st.sampled_from(["llm", "tool"]), attempt=ATTEMPTS
    ),
    st.builds(StepRetry, step_key=KEYS, attempt=ATTEMPTS),
    st.builds(StepFinish, step_key=KEYS, attempt=ATTEMPTS, result_json=st.sampled_from("123")),
    st.builds(StepFinish, step_key=KEYS, attempt=ATTEMPTS, long_answer=st.just(LongAnswer())),
    st.builds(TextDelta, step_key=KEYS, content=st.sampled_from("xy")),
    st.builds(ReasoningDelta, step_key=KEYS, content=st.sampled_from("xy")),
    st.builds(ToolCallDelta, step_key=KEYS, content=st.sampled_from("xy"), call=ATTEMPTS),
    st.builds(ToolCallRequested, step_key=KEYS, tool_call=st.just(ToolCall(id="i"))),
    st.builds(AgentFinish),
)
EVENTS = st.tuples(st.sampled_from(RUNS), PAYLOADS, st.none() | st.integers(0, 9))
"""An event of a run, and what is private beside it."""


def entry(lineage: Lineage, payload: Message, value: int | None) -> Entry:
    private = b""
    if isinstance(payload, StepFinish) and value is not None:
        child = None if lineage is ROOT else lineage.run_id
        private = private_line(payload.step_key, {"value": value}, child)
    return Entry(data=event(payload, lineage), private=private)


def joined(entries: Sequence[Entry]) -> Entry:
    return Entry(
        data=b"".join(one.data for one in entries), private=b"".join(one.private for one in entries)
    )


@settings(deadline=None)
@given(events=st.lists(EVENTS, max_size=30), cut=st.integers(0, 30))
async def test_interleaved_runs_fold_as_if_each_were_alone(
    events: list[tuple[Lineage, Message, int | None]], cut: int
) -> None:
    entries = [entry(*one) for one in events]
    together = await folded(joined(entries[:cut]), CLAIM, joined(entries[cut:]))
    for lineage in RUNS:
        own = [one for one, (run, _, _) in zip(entries, events, strict=True) if run is lineage]
        alone = await folded(*own)
        if lineage.origin is None:
            assert together.root == alone.root
        else:
            assert together.child(lineage.origin) == alone.child(lineage.origin)
            assert (together.child(lineage.origin) is None) == (not own)
    assert not together.damage
