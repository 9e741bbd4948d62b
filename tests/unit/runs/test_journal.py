"""The fold of a log that recovery starts from."""

from __future__ import annotations

from collections.abc import AsyncIterator

from google.protobuf.message import Message

from polos.v1.event_pb2 import StepFailure, StepFinish, StepRetry, StepStart, TextDelta
from polos_service.runs.frame import Encoder
from polos_service.runs.journal import Journal, private_line
from polos_service.store import Entry


def event(payload: Message) -> bytes:
    return Encoder("r", "w").encode(payload, sequence=1, time=0)


async def folded(*entries: Entry) -> Journal:
    async def history() -> AsyncIterator[Entry]:
        for entry in entries:
            yield entry

    return await Journal.load(history())


CLAIM = Entry(data=b"", private=b'{"claim": {"epoch": 1, "writer": "here:1"}}\n')


RELEASED = Entry(data=b"", private=b'{"released": {"epoch": 1}}\n')


async def test_a_log_of_claims_has_not_started() -> None:
    assert await folded(CLAIM, CLAIM) == Journal(claims=2)


async def test_claims_count_until_a_step_finishes_or_they_are_released() -> None:
    finish = Entry(data=event(StepFinish(step_key="a", result_json="1")), private=b"")
    assert (await folded(CLAIM, CLAIM, finish, CLAIM)).claims == 1
    assert (await folded(CLAIM, CLAIM, RELEASED, CLAIM)).claims == 2
    assert (await folded(CLAIM, finish, RELEASED, CLAIM)).claims == 1


async def test_any_event_starts_a_run() -> None:
    journal = await folded(CLAIM, Entry(data=event(TextDelta(content="a")), private=b""))
    assert journal.started


async def test_the_last_word_about_each_step_counts() -> None:
    data = [
        event(StepStart(step_key="a", attempt=1)),
        event(StepStart(step_key="b", attempt=1)),
        event(StepRetry(step_key="a", attempt=2)),
        event(StepRetry(step_key="a", attempt=3)),
        event(StepFinish(step_key="b", attempt=1, result_json="7")),
        event(StepStart(step_key="c", attempt=1)),
        event(StepFinish(step_key="c", failure=StepFailure(message="no"))),
    ]
    journal = await folded(
        CLAIM, Entry(data=b"".join(data[:4]), private=b""), CLAIM,
        Entry(data=b"".join(data[4:]), private=b""),
    )  # fmt: skip
    assert journal.attempts == {"a": 3, "b": 1, "c": 1}
    assert {key: one.result_json for key, one in journal.finished.items()} == {"b": "7", "c": ""}
    assert journal.finished["c"].failure.message == "no"


async def test_private_lines_concatenate_and_may_hold_any_text() -> None:
    first = {"thought": "a\nb\r\n\u2028\x85", "n": [1, None, {"x": 1.5}]}
    lines = private_line("llm:1", first) + private_line("llm:2", {"y": 2})
    journal = await folded(Entry(data=event(TextDelta(content="a")), private=lines))
    assert journal.private == {"llm:1": first, "llm:2": {"y": 2}}
