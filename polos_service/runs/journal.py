"""What a run's log says about its steps: the fold that recovery starts from."""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping
from dataclasses import dataclass, field
from typing import Any

import orjson
from google.protobuf.message import DecodeError

from polos.v1.event_pb2 import Event, StepFinish
from polos_service.runs.frame import decode
from polos_service.store import Entry


def private_line(step_key: str, private: Mapping[str, Any]) -> bytes:
    """Return what is stored beside a step's finish and never served; lines concatenate."""
    return orjson.dumps({"step": step_key, "private": private}) + b"\n"


@dataclass(slots=True)
class Journal:
    """The fold of a log.

    Attributes:
        started: True if the log has any event.
        finished: the last word of every step that ended, by key.
        attempts: the attempt that each step begun has reached, by key.
        private: what was stored beside the finish of a step, by key.
        claims: claims since the last step that finished, without those whose release lost
            nothing.
        damage: what cannot be read of the log, in a sentence; empty if nothing is wrong.

    """

    started: bool = False
    finished: dict[str, StepFinish] = field(default_factory=dict)
    attempts: dict[str, int] = field(default_factory=dict)
    private: dict[str, Mapping[str, Any]] = field(default_factory=dict)
    claims: int = 0
    damage: str = ""

    @classmethod
    async def load(cls, history: AsyncIterator[Entry]) -> Journal:
        """Fold a whole log. What cannot be read of it is left out, and `damage` says so."""
        journal = cls()
        async for entry in history:
            try:
                for event in decode(entry.data):
                    journal.add(event)
                for line in entry.private.splitlines():
                    journal.add_private(orjson.loads(line))
            except (DecodeError, ValueError, TypeError, LookupError) as error:
                journal.damage = journal.damage or f"{type(error).__name__}: {error}"
        return journal

    def add(self, event: Event) -> None:
        """Take the next event into account."""
        self.started = True
        match event.WhichOneof("payload"):
            case "step_start":
                self.attempts[event.step_start.step_key] = event.step_start.attempt
            case "step_retry":
                self.attempts[event.step_retry.step_key] = event.step_retry.attempt
            case "step_finish":
                self.finished[event.step_finish.step_key] = event.step_finish
                self.claims = 0

    def add_private(self, line: Mapping[str, Any]) -> None:
        """Take a private line into account: a step's, or that of a claim frame."""
        if "step" in line:
            self.private[line["step"]] = line["private"]
        elif "claim" in line:
            self.claims += 1
        elif "released" in line and not line["released"].get("failed"):
            self.claims = max(0, self.claims - 1)
