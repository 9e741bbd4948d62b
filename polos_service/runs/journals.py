"""What a log says about its runs, root and children: the fold that recovery starts from."""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping
from dataclasses import dataclass, field
from typing import Any

import orjson

from polos.v1.event_pb2 import Event, Resumed, Suspended, WaitKind
from polos_service.runs.frame import decode
from polos_service.runs.journal import Journal, awaited_run
from polos_service.runs.lineage import Lineage, Origin
from polos_service.runs.totals import TreeTotals
from polos_service.store import Entry

PROGRESS = frozenset({"step_finish", "resumed", "workflow_retry"})
"""The names of the payloads that tell that a run gets on."""

COUNTED = frozenset({"step_finish", "step_retry"})
"""The names of the payloads that tell what a model call used, or that it is void."""


@dataclass(slots=True)
class TimeWaited:
    """The fold of the waits of a tree into the time for which any of them was open."""

    open: set[tuple[str, str]] = field(default_factory=set)
    before: int = 0
    since: int = 0

    def add(self, event: Event) -> None:
        """Take an event that begins or ends a wait into account."""
        time = event.create_time.ToNanoseconds()
        waited = bool(self.open)
        if event.HasField("suspended"):
            self.open.add((event.run_id, event.suspended.step_key))
        else:
            self.open.discard((event.run_id, event.resumed.step_key))
        if self.open and not waited:
            self.since = time
        elif waited and not self.open:
            self.before += time - self.since

    def until(self, now: int) -> int:
        """Return the nanoseconds up to `now`."""
        return self.before + (now - self.since if self.open else 0)


class Journals:
    """The fold of a log: a journal for the root run and for each of its children.

    A child is found by the attempt that began it, and an attempt that was retried is never
    looked up again: so a retry leaves behind all that was begun under the attempt before.

    Attributes:
        root: the root run's journal.
        totals: what the model calls add up to.
        claims: claims since the last event of PROGRESS, without those whose release lost
            nothing.
        former_holder: the process (`HOST:PID`) that held the run before the last claim and has not
            released it; empty if it has, if that is not known, or if there was none.
        damage: the first error met in reading the log; empty if there was none.
        size: bytes of the log, private parts included.

    """

    def __init__(self, root: str, damage: str = "") -> None:
        """Begin with an empty log of this root run."""
        self._waited = TimeWaited()
        self.root = Journal()
        self.totals = TreeTotals(root)
        self.claims = 0
        self.former_holder = ""
        self._holder = ""
        self.damage = damage
        self.size = 0
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
            journals.size += len(entry.data) + len(entry.private)
            try:
                for event in decode(entry.data):
                    journals.add(event)
                for line in entry.private.splitlines():
                    journals.add_private(orjson.loads(line))
            except Exception as error:  # noqa: BLE001 - whatever is in it, the run can end
                journals.damage = journals.damage or f"{type(error).__name__}: {error}"
        for journal in journals._runs.values():
            journal.settle()
        return journals

    def resumed(self, run_id: str, step_key: str) -> Resumed | None:
        """Return how a wait of a run has ended; None if it has not."""
        journal = self._runs.get(run_id)
        return None if journal is None else journal.resumed.get(step_key)

    def has_ended(self, run_id: str) -> bool:
        """Return whether the log has the end of a run, root or child."""
        journal = self._runs.get(run_id)
        return journal is not None and journal.end is not None

    def left(self) -> dict[int, tuple[str, str]]:
        """Return the waits that children have left open which have ended: run and key, by id."""
        return {
            wait_id: (run_id, told.step_key)
            for run_id, journal in self._runs.items()
            if journal.end is not None and journal is not self.root
            for wait_id, told in journal.open_waits()
        }

    def awaited(self) -> dict[int, str]:
        """Return the runs whose ends are waited for, by the ids of the waits.

        Children that have ended count, too: when their root is cancelled, they end first, and then
        the runs that they wait for are cancelled.
        """
        return {
            wait_id: awaited_run(told)
            for journal in self._runs.values()
            for wait_id, told in journal.open_waits()
            if told.kind == WaitKind.WAIT_KIND_RUN
        }

    def open_waits(self) -> dict[int, Suspended]:
        """Return the open waits of the runs that have not ended, by their ids."""
        return {
            wait_id: told
            for journal in self._runs.values()
            if journal.end is None
            for wait_id, told in journal.open_waits()
        }

    def of(self, lineage: Lineage) -> Journal:
        """Return the journal of a run, root or child; an empty one if the log has none."""
        return self._runs.get(lineage.run_id) or Journal(lineage if lineage.origin else None)

    def child(self, origin: Origin) -> Journal | None:
        """Return the journal of the child that this attempt began; None if it began none."""
        return self._children.get(origin)

    def add(self, event: Event) -> None:
        """Take the log's next event into account."""
        journal = self._runs.get(event.run_id)
        if journal is None:
            journal = self._runs[event.run_id] = Journal()
            lineage = Lineage.of(event)
            self.totals.of(lineage)  # before those of its children, which may count first
            if lineage.origin is not None:
                self._children[lineage.origin] = journal
        journal.add(event)
        kind = event.WhichOneof("payload")
        if kind in COUNTED and journal.lineage is not None:
            self.totals.of(journal.lineage).add(getattr(event, kind))
        if kind in PROGRESS:
            self.claims = 0
        if kind in {"suspended", "resumed"}:
            self._waited.add(event)

    def waited(self, now: int) -> int:
        """Return for how many nanoseconds, up to now, any wait of the tree was open."""
        return self._waited.until(now)

    def add_private(self, line: Mapping[str, Any]) -> None:
        """Take a private line into account: a step's, or that of a claim frame."""
        if "step" in line:
            self.root.private[line["step"]] = line["private"]
        elif "run" in line:
            self._runs[line["run"]].private[line["key"]] = line["private"]
        elif "child" in line:
            begun = self._runs[line["child"]]
            begun.definition, begun.deadline = line["definition"].encode(), line["deadline"]
        elif "piece" in line:
            run = line["piece"]["run"]
            (self.root if run is None else self._runs[run]).keep(line["piece"])
        elif "lost" in line:
            raise ValueError(f"events were lost with the rows {line['lost']['rows']} of the spool")
        elif "claim" in line:
            self.claims += 1
            self.former_holder, self._holder = self._holder, line["claim"].get("writer", "")
        elif "released" in line:
            self._holder = ""
            if not line["released"].get("failed"):
                self.claims = max(0, self.claims - 1)
