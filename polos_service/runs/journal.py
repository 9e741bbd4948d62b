"""What a log says about the steps of its runs: the fold that recovery starts from."""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping
from dataclasses import dataclass, field
from typing import Any

import orjson

from polos.v1.event_pb2 import Event, StepFinish
from polos_service.runs.frame import decode
from polos_service.runs.lineage import Lineage, Origin
from polos_service.store import Entry

ENDS = frozenset({"agent_finish", "workflow_finish", "error", "run_cancelled"})
"""The names of the payloads that end a run, a child as well as the root."""


def private_line(step_key: str, private: Mapping[str, Any], child: str | None = None) -> bytes:
    """Return what is stored beside a step's finish and never served; lines concatenate.

    Args:
        step_key: the step.
        private: JSON values.
        child: id of the child run that the step belongs to; None if it is a step of the root
            run. The line of such a step has the form that version 0.1.0 writes and reads.

    Raises:
        TypeError: a value is not a JSON value.

    """
    if child is None:
        return orjson.dumps({"step": step_key, "private": private}) + b"\n"
    return orjson.dumps({"run": child, "key": step_key, "private": private}) + b"\n"


@dataclass(slots=True)
class Journal:
    """The fold of one run's events.

    Attributes:
        lineage: the run; None before its first event.
        start_time: when it started, in nanoseconds since the epoch; 0 before its first event.
        ended: True if its last event is there.
        finished: how every step ended that has ended, by key.
        attempts: the attempt that each step begun has reached, by key.
        kinds: the kind of each step begun, by key.
        private: what was stored beside the finish of a step, by key.

    """

    lineage: Lineage | None = None
    start_time: int = 0
    ended: bool = False
    finished: dict[str, StepFinish] = field(default_factory=dict)
    attempts: dict[str, int] = field(default_factory=dict)
    kinds: dict[str, str] = field(default_factory=dict)
    private: dict[str, Mapping[str, Any]] = field(default_factory=dict)

    @property
    def started(self) -> bool:
        """Whether the log has any event of the run."""
        return self.lineage is not None

    def add(self, event: Event) -> None:
        """Take the run's next event into account."""
        if self.lineage is None:
            self.lineage = Lineage.of(event)
            self.start_time = event.create_time.ToNanoseconds()
        match event.WhichOneof("payload"):
            case "step_start":
                self.attempts[event.step_start.step_key] = event.step_start.attempt
                self.kinds[event.step_start.step_key] = event.step_start.step_type
            case "step_retry":
                self.attempts[event.step_retry.step_key] = event.step_retry.attempt
            case "step_finish":
                self.finished[event.step_finish.step_key] = event.step_finish
            case kind if kind in ENDS:
                self.ended = True


class Journals:
    """The fold of a log: a journal for the root run and for each of its children.

    A child is found by the attempt that began it, and an attempt that was retried is never
    looked up again: so a retry leaves behind all that was begun under the attempt before.

    Attributes:
        root: the root run's journal.
        claims: claims since the last step that finished, without those whose release lost
            nothing.
        damage: the first error met in reading the log; empty if there was none.

    """

    def __init__(self, root: str, damage: str = "") -> None:
        """Begin with an empty log of this root run."""
        self.root = Journal()
        self.claims = 0
        self.damage = damage
        self._runs = {root: self.root}
        self._children: dict[Origin, Journal] = {}

    @classmethod
    async def load(cls, root: str, history: AsyncIterator[Entry]) -> Journals:
        """Fold a whole log. An entry that cannot be read is left out, and `damage` says so.

        Raises:
            StoreUnavailable: the store cannot read the log.

        """
        journals = cls(root)
        async for entry in history:
            try:
                for event in decode(entry.data):
                    journals.add(event)
                for line in entry.private.splitlines():
                    journals.add_private(orjson.loads(line))
            except Exception as error:  # noqa: BLE001 - whatever is in it, the run can end
                journals.damage = journals.damage or f"{type(error).__name__}: {error}"
        return journals

    def child(self, origin: Origin) -> Journal | None:
        """Return the journal of the child that this attempt began; None if it began none."""
        return self._children.get(origin)

    def add(self, event: Event) -> None:
        """Take the log's next event into account."""
        journal = self._runs.get(event.run_id)
        if journal is None:
            journal = self._runs[event.run_id] = Journal()
            if (origin := Lineage.of(event).origin) is not None:
                self._children[origin] = journal
        journal.add(event)
        if event.HasField("step_finish"):
            self.claims = 0

    def add_private(self, line: Mapping[str, Any]) -> None:
        """Take a private line into account: a step's, or that of a claim frame."""
        if "step" in line:
            self.root.private[line["step"]] = line["private"]
        elif "run" in line:
            self._runs[line["run"]].private[line["key"]] = line["private"]
        elif "claim" in line:
            self.claims += 1
        elif "released" in line and not line["released"].get("failed"):
            self.claims = max(0, self.claims - 1)
