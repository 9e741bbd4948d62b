"""Answers of megabytes: a model that gives them, and what must hold of their logs."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import orjson

from polos.v1.event_pb2 import Event, FinishReason
from polos_service.limits import EVENT_LIMIT, PIECE_LIMIT
from polos_service.models import Model, ModelAnswer, ModelRequest, Output
from polos_service.models.messages import Call, Message, Part, Reasoning, Text
from polos_service.runs.frame import decode
from polos_service.store import Entry

MIB = 1024 * 1024

LONG = 4 * MIB
"""Bytes of what is long."""

ASKS = FinishReason.FINISH_REASON_TOOL_CALLS
STOP = FinishReason.FINISH_REASON_STOP

DONE = ModelAnswer(parts=[Text(text="Done.")], finish_reason=STOP)


def filler(size: int, mark: str = 'ab é"\\\n') -> str:
    """Return a text of about so many bytes, some of which JSON has to escape."""
    return (mark * (size // len(mark.encode()) + 1))[:size]


def use(size: int, number: int = 0) -> Call:
    """Return a call of the tool `use` whose arguments have about so many bytes."""
    arguments = json.dumps({"text": f"{number}" + "x" * size}, ensure_ascii=False)
    return Call(id=f"call_{number}", name="use", arguments_json=arguments)


def answers() -> Mapping[str, ModelAnswer]:
    """Return long answers of each kind, each of which asks for the tool `use`."""
    opaque: Mapping[str, Any] = {"mock": {"signature": filler(LONG)}}
    thought = Reasoning(text="Hm. ", state={"mock": {"signature": "s" * 1000}})
    kinds: Mapping[str, Sequence[Part]] = {
        "text": [Text(text=filler(LONG)), use(10)],
        "reasoning": [Reasoning(text=filler(LONG)), thought, Text(text="So: "), use(10)],
        "one call": [Text(text="So: "), use(LONG)],
        "eight calls": [use(400 * 1024, number) for number in range(8)],
        "state": [Reasoning(text="Hm.", state=opaque), Text(text="So: "), use(10)],
        "all": [thought, Text(text=filler(LONG // 4)), thought, *(use(MIB, n) for n in range(3))],
    }
    return {
        kind: ModelAnswer(parts=parts, state={"mock": {"id": "m1"}}, finish_reason=ASKS)
        for kind, parts in kinds.items()
    }


@dataclass
class Talker(Model):
    """A model that gives an answer, in pieces, and then another one.

    Attributes:
        first: the answer in the first turn.
        then: that in each later one.
        piece: characters of each piece.
        stop_after: pieces after which it never goes on; None: it does not stop.
        requests: what it was asked.
        stuck: set when it has stopped.

    """

    first: ModelAnswer
    then: ModelAnswer = DONE
    piece: int = 100_000
    stop_after: int | None = None
    requests: list[ModelRequest] = field(default_factory=list)
    apis: Collection[str] = ()
    stuck: asyncio.Event = field(default_factory=asyncio.Event)

    def check(self, options: Mapping[str, Any], api: str | None = None) -> Mapping[str, str]:
        return {}

    async def answer(self, request: ModelRequest, output: Output) -> ModelAnswer:
        self.requests.append(request)
        answer = self.first if request.turn == 1 else self.then
        said = 0
        for part in answer.parts:
            if not isinstance(part, Text | Reasoning):
                continue
            tell = output.text if isinstance(part, Text) else output.reasoning
            for at in range(0, len(part.text), self.piece):
                if said == self.stop_after:
                    self.stuck.set()
                    await asyncio.Event().wait()
                said += 1
                await tell(part.text[at : at + self.piece])
        return answer

    async def close(self) -> None:
        """Close nothing."""

    @property
    def conversation(self) -> list[Message]:
        """The messages of the last call."""
        return list(self.requests[-1].messages)


def assert_bounded(entries: Sequence[Entry], size: int) -> None:
    """Assert that events and private lines are as small as they must be, and all of them too.

    Args:
        entries: the log.
        size: bytes of what it records.

    """
    for entry in entries:
        assert all(len(line) <= PIECE_LIMIT for line in entry.private.splitlines(keepends=True))
        for event in decode(entry.data):
            assert event.ByteSize() <= EVENT_LIMIT
    stored = sum(len(entry.data) + len(entry.private) for entry in entries)
    assert stored <= 1.5 * size + 64 * 1024, "something is stored twice"


def size_of(answer: ModelAnswer) -> int:
    """Return about how many bytes an answer has."""
    return len(orjson.dumps(answer.parts))


def texts(events: Sequence[Event]) -> list[str]:
    """Return the pieces of text."""
    return [event.text_delta.content for event in events if event.HasField("text_delta")]


def thoughts(events: Sequence[Event]) -> list[str]:
    """Return the pieces of reasoning."""
    return [event.reasoning_delta.content for event in events if event.HasField("reasoning_delta")]
