"""A model of what a run says: legal events in any order, and what they add up to."""

from __future__ import annotations

import json
from dataclasses import dataclass, field

from google.protobuf.message import Message

from polos.v1.event_pb2 import StepFinish, StepRetry, StepStart, TextDelta

LANES = ("llm", "jot", "note")
"""Steps that may be open at once: the model calls, one after the other, and two tools."""


@dataclass
class Talk:
    """A run so far.

    Attributes:
        texts: what each model call says that is not void, in order.
        finished: the attempt in which each step ended, by key.
        attempts: the attempt that each step has reached, by key.
        private: what was stored beside the ends of model calls, by key.

    """

    texts: dict[str, str] = field(default_factory=dict)
    finished: dict[str, int] = field(default_factory=dict)
    attempts: dict[str, int] = field(default_factory=dict)
    private: dict[str, dict[str, int]] = field(default_factory=dict)
    _count: dict[str, int] = field(default_factory=lambda: dict.fromkeys(LANES, 1))
    _open: set[str] = field(default_factory=set)

    @property
    def text(self) -> str:
        """What stands of the text."""
        return "".join(self.texts.values())

    def move(self, lane: str, move: int) -> Message:
        """Return the next event of a lane: its step begins, speaks, begins anew or ends."""
        key = f"{lane}:{self._count[lane]}"
        if key not in self._open:
            self._open.add(key)
            self.attempts[key] = 1
            return StepStart(step_key=key, step_type=kind(lane), attempt=1)
        if move == 0:
            return self._retry(key)
        if move == 1 or lane != "llm":
            return self._finish(lane, key)
        return self._say(key, move)

    def _say(self, key: str, move: int) -> TextDelta:
        word = f"{key}/{self.attempts[key]}/{move} "
        self.texts[key] = self.texts.get(key, "") + word
        return TextDelta(content=word, step_key=key, step=1, attempt=self.attempts[key])

    def _retry(self, key: str) -> StepRetry:
        self.attempts[key] += 1
        self.texts.pop(key, None)
        return StepRetry(step_key=key, attempt=self.attempts[key])

    def _finish(self, lane: str, key: str) -> StepFinish:
        self._open.discard(key)
        self._count[lane] += 1
        self.finished[key] = self.attempts[key]
        if lane == "llm":
            self.private[key] = {"attempt": self.attempts[key]}
        result = {"content": self.texts.get(key, "")}
        return StepFinish(
            step_key=key,
            step_type=kind(lane),
            attempt=self.attempts[key],
            result_json=json.dumps(result),
        )


def kind(lane: str) -> str:
    """Return the type of a lane's steps."""
    return "llm" if lane == "llm" else "tool"
