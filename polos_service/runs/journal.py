"""What a log says about the steps of its runs: the fold that recovery starts from."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

import orjson
from google.protobuf.message import Message

from polos.v1.error_pb2 import FailureReason
from polos.v1.event_pb2 import Event, Resumed, StepFinish, StepRetry, Suspended, WaitKind
from polos_service.limits import PIECE_LIMIT
from polos_service.runs.frame import decode
from polos_service.runs.lineage import Lineage, Origin
from polos_service.runs.said import NOTHING, SAYS, Said, Saying, pieces
from polos_service.runs.totals import TreeTotals
from polos_service.store import Entry

ENDS = frozenset({"agent_finish", "workflow_finish", "error", "run_cancelled"})
"""The names of the payloads that end a run, a child as well as the root."""

WAITS = {
    WaitKind.WAIT_KIND_TIMER: "timer",
    WaitKind.WAIT_KIND_SUSPEND: "suspend",
    WaitKind.WAIT_KIND_APPROVAL: "approval",
    WaitKind.WAIT_KIND_RUN: "run",
}
"""What kind of step a wait is."""

PROGRESS = frozenset({"step_finish", "resumed", "workflow_retry"})
"""The names of the payloads that tell that a run gets on."""

ANSWERED = frozenset({"suspend", "approval"})
"""The kinds of waits that end by an answer."""

UNANSWERED = frozenset({WaitKind.WAIT_KIND_TIMER, WaitKind.WAIT_KIND_RUN})
"""The waits that nobody can answer."""

STEP_CANCELLED = FailureReason.FAILURE_REASON_STEP_CANCELLED

COUNTED = frozenset({"step_finish", "step_retry"})
"""The names of the payloads that tell what a model call used, or that it is void."""

INTERRUPTED = frozenset({STEP_CANCELLED, FailureReason.FAILURE_REASON_PROCESS_RESTARTED})
"""Why a step begins anew that has not failed."""


def private_line(step_key: str, private: Any, child: str | None = None) -> bytes:
    """Return what is stored beside a step's finish and never served; lines concatenate.

    Args:
        step_key: the step.
        private: JSON values by name, or JSON text of such as an `orjson.Fragment`.
        child: id of the child run that the step belongs to; None if it is a step of the root
            run. The line of such a step has the form that version 0.1.0 writes and reads.

    Raises:
        TypeError: a value is not a JSON value.

    """
    if child is None:
        return orjson.dumps({"step": step_key, "private": private}) + b"\n"
    return orjson.dumps({"run": child, "key": step_key, "private": private}) + b"\n"


def private_lines(
    step_key: str, attempt: int, private: Mapping[str, Any], child: str | None = None
) -> Iterator[bytes]:
    """Yield what `private_line` returns, cut into lines of at most PIECE_LIMIT bytes.

    They are stored beside several events of the attempt, in order; version 0.1.0 passes over
    them. There is one line, that of `private_line`, if it is short enough.

    Raises:
        TypeError: a value is not a JSON value.

    """
    whole = orjson.dumps(private)
    if len(whole) <= PIECE_LIMIT - ROOM:
        yield private_line(step_key, orjson.Fragment(whole), child)
        return
    told = {"run": child, "step": step_key, "attempt": attempt}
    # A character of JSON text takes two at most where the text stands in JSON text itself.
    for piece in pieces(whole.decode(), PIECE_LIMIT // 2 - ROOM):
        yield orjson.dumps({"piece": {**told, "json": piece}}) + b"\n"


def child_line(child: str, definition: bytes, deadline: int | None) -> bytes:
    """Return what is stored beside the first event of a child run."""
    told = {"child": child, "definition": definition.decode(), "deadline": deadline}
    return orjson.dumps(told) + b"\n"


def definition_in(lines: bytes, child: str) -> bytes:
    """Return the definition of a child from private lines; nothing if none of them has it."""
    begin = orjson.dumps({"child": child})[:-1] + b","
    for line in lines.split(b"\n"):
        if line.startswith(begin):
            return str(orjson.loads(line)["definition"]).encode()
    return b""


ROOM = 8 * 1024
"""Bytes of a line that are left for what tells where a piece belongs."""


@dataclass(slots=True)
class Journal:
    """The fold of one run's events.

    Attributes:
        lineage: the run; None before its first event.
        start_time: when it started, in nanoseconds since the epoch; 0 before its first event.
        end: the payload of its last event; None if that is not there.
        definition: what a child was started with; empty at the root run.
        deadline: when a child must have ended, in nanoseconds since the epoch; None: never.
        finished: how every step ended that has ended, by key.
        attempts: the attempt that each step begun has reached, by key.
        kinds: the kind of each step or wait begun, by key.
        private: what was stored beside the finish of a step, by key.
        sayings: what the last attempt of a step told before its end, by key.
        kept: what was stored beside those events: the attempt and the pieces, by key.
        failures: how often each step begun has failed and was to be tried again, by key.
        starts: when the attempt begins that a failure was followed by, by key; in nanoseconds
            since the epoch.
        waits: every wait begun, by key, with the sequence of its event.
        resumed: how every wait has ended that has ended, by key.
        results: the sequence of the event that ended a step or a wait, by key.
        times: when a step or a wait began, and once a wait has ended, when it did, by key; in
            nanoseconds since the epoch.
        given_up: how long the code waited for what it gave up, in nanoseconds, by key.
        interrupted: the steps and waits that were given up or had not ended when the run's
            function last started over.
        retries: how often the run's function has started over.

    """

    lineage: Lineage | None = None
    start_time: int = 0
    end: Message | None = None
    definition: bytes = b""
    deadline: int | None = None
    finished: dict[str, StepFinish] = field(default_factory=dict)
    attempts: dict[str, int] = field(default_factory=dict)
    kinds: dict[str, str] = field(default_factory=dict)
    private: dict[str, Mapping[str, Any]] = field(default_factory=dict)
    sayings: dict[str, Saying] = field(default_factory=dict)
    kept: dict[str, tuple[int, list[str]]] = field(default_factory=dict)
    failures: dict[str, int] = field(default_factory=dict)
    starts: dict[str, int] = field(default_factory=dict)
    waits: dict[str, tuple[int, Suspended]] = field(default_factory=dict)
    resumed: dict[str, Resumed] = field(default_factory=dict)
    results: dict[str, int] = field(default_factory=dict)
    times: dict[str, int] = field(default_factory=dict)
    given_up: dict[str, int] = field(default_factory=dict)
    interrupted: set[str] = field(default_factory=set)
    retries: int = 0

    @property
    def started(self) -> bool:
        """Whether the log has any event of the run."""
        return self.lineage is not None

    def add(self, event: Event) -> None:  # noqa: C901 - a case for each kind of event
        """Take the run's next event into account."""
        if self.lineage is None:
            self.lineage = Lineage.of(event)
            self.start_time = event.create_time.ToNanoseconds()
        match event.WhichOneof("payload"):
            case kind if kind in SAYS:
                key = getattr(event, kind).step_key
                saying = self.sayings.get(key)
                if saying is None:
                    saying = self.sayings[key] = Saying()
                saying.add(kind, event)
            case "step_start":
                started = event.step_start
                self.attempts[started.step_key] = started.attempt
                self._begin(started.step_key, started.step_type, event)
            case "step_retry":
                self._retry(event.step_retry)
            case "step_finish":
                finish = self._finish(event.step_finish)
                failure = finish.failure.reason if finish.HasField("failure") else None
                self._end(finish.step_key, event, given_up=failure == STEP_CANCELLED)
            case "suspended":
                waiting = Suspended()
                waiting.CopyFrom(event.suspended)
                self.waits[waiting.step_key] = event.sequence, waiting
                self._begin(waiting.step_key, WAITS.get(waiting.kind, "unknown"), event)
            case "resumed":
                over = self.resumed[event.resumed.step_key] = Resumed()
                over.CopyFrom(event.resumed)
                self._end(over.step_key, event, given_up=is_given_up(over))
                self.times[over.step_key] = event.create_time.ToNanoseconds()
            case "workflow_retry":
                self._start_over()
            case kind if kind in ENDS:
                told: Message = getattr(event, kind)
                self.end = type(told)()
                self.end.CopyFrom(told)

    def _begin(self, key: str, kind: str, event: Event) -> None:
        self.kinds[key] = kind
        self.times[key] = event.create_time.ToNanoseconds()

    def _end(self, key: str, event: Event, *, given_up: bool) -> None:
        self.results[key] = event.sequence
        self.interrupted.discard(key)
        if given_up:
            now = event.create_time.ToNanoseconds()
            self.given_up[key] = now - self.times.get(key, now)

    def _start_over(self) -> None:
        """Take it that the run's function begins anew: what it gave up is not over for it.

        A wait that somebody could have answered stays given up: it takes no other answer.
        """
        self.retries += 1
        self.interrupted.update(self.given_up, self.kinds.keys() - self.results.keys())
        for key in [key for key in self.given_up if self.kinds[key] not in ANSWERED]:
            del self.given_up[key], self.results[key]
            self.finished.pop(key, None)
            self.resumed.pop(key, None)
            self.waits.pop(key, None)

    def _retry(self, told: StepRetry) -> None:
        self.attempts[told.step_key] = told.attempt
        self.sayings.pop(told.step_key, None)
        self.starts.pop(told.step_key, None)
        if told.reason not in INTERRUPTED:
            self.failures[told.step_key] = self.failures.get(told.step_key, 0) + 1
            if told.HasField("start_time"):
                self.starts[told.step_key] = told.start_time.ToNanoseconds()

    def _finish(self, told: StepFinish) -> StepFinish:
        # A copy: the event keeps those that came with it in memory, pieces of text for example.
        finish = self.finished[told.step_key] = StepFinish()
        finish.CopyFrom(told)
        saying = self.sayings.pop(told.step_key, None)
        if saying is not None and (needed := saying.needed(finish)) is not None:
            self.sayings[told.step_key] = needed
        return finish

    def keep(self, piece: Mapping[str, Any]) -> None:
        """Take a piece of what is stored beside the events of a step into account."""
        key, attempt = piece["step"], piece["attempt"]
        if self.kept.get(key, (0, []))[0] < attempt:
            self.kept[key] = attempt, []
        self.kept[key][1].append(piece["json"])

    def settle(self) -> None:
        """Forget what steps told that have not finished: their next attempt begins anew."""
        self.sayings = {key: one for key, one in self.sayings.items() if key in self.finished}
        self.kept = {key: one for key, one in self.kept.items() if key in self.finished}

    def take_said(self, key: str) -> Said:
        """Return what a finished step told before its end, and forget it."""
        saying = self.sayings.pop(key, None)
        return NOTHING if saying is None else saying.whole()

    def take_private(self, key: str) -> Mapping[str, Any]:
        """Return what is stored with a finished step, and forget it; empty if nothing is."""
        attempt, kept = self.kept.pop(key, (0, []))
        if attempt and attempt == self.finished[key].attempt:
            found: Mapping[str, Any] = orjson.loads("".join(kept))
            return found
        return self.private.pop(key, {})


def awaited_run(told: Suspended) -> str:
    """Return the run whose end a wait is for."""
    return str(orjson.loads(told.data_json)["run_id"])


def is_given_up(resumed: Resumed) -> bool:
    """Return whether the code gave a wait up, and does not get its end."""
    return resumed.given_up or resumed.cancelled  # former versions set that alone


class Journals:
    """The fold of a log: a journal for the root run and for each of its children.

    A child is found by the attempt that began it, and an attempt that was retried is never
    looked up again: so a retry leaves behind all that was begun under the attempt before.

    Attributes:
        root: the root run's journal.
        totals: what the model calls add up to.
        claims: claims since the last event of PROGRESS, without those whose release lost
            nothing.
        damage: the first error met in reading the log; empty if there was none.
        size: bytes of the log, private parts included.

    """

    def __init__(self, root: str, damage: str = "") -> None:
        """Begin with an empty log of this root run."""
        self._waits: set[tuple[str, str]] = set()
        self._waited = 0
        self._waits_since = 0
        self.root = Journal()
        self.totals = TreeTotals(root)
        self.claims = 0
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
            wait_id: (run_id, key)
            for run_id, journal in self._runs.items()
            if journal.end is not None and journal is not self.root
            for key, (wait_id, _) in journal.waits.items()
            if key not in journal.resumed
        }

    def awaited(self) -> dict[int, str]:
        """Return the runs whose ends are waited for, by the ids of the waits."""
        return {
            wait_id: awaited_run(told)
            for journal in self._runs.values()
            if journal.end is None
            for key, (wait_id, told) in journal.waits.items()
            if told.kind == WaitKind.WAIT_KIND_RUN and key not in journal.resumed
        }

    def open_waits(self) -> set[int]:
        """Return the ids of the open waits of the runs that have not ended."""
        return {
            wait_id
            for journal in self._runs.values()
            if journal.end is None
            for key, (wait_id, _) in journal.waits.items()
            if key not in journal.resumed
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
            self._wait(event)

    def waited(self, now: int) -> int:
        """Return for how many nanoseconds, up to now, any wait of the tree was open."""
        return self._waited + (now - self._waits_since if self._waits else 0)

    def _wait(self, event: Event) -> None:
        time = event.create_time.ToNanoseconds()
        before = bool(self._waits)
        if event.HasField("suspended"):
            self._waits.add((event.run_id, event.suspended.step_key))
        else:
            self._waits.discard((event.run_id, event.resumed.step_key))
        if self._waits and not before:
            self._waits_since = time
        elif before and not self._waits:
            self._waited += time - self._waits_since

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
        elif "released" in line and not line["released"].get("failed"):
            self.claims = max(0, self.claims - 1)
