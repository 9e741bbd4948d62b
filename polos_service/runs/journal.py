"""What a log says about one of its runs: its steps, its waits, and how it has ended."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

import orjson
from google.protobuf.message import Message

from polos.v1.error_pb2 import FailureReason
from polos.v1.event_pb2 import Event, Resumed, StepFinish, StepRetry, Suspended, WaitKind
from polos_service.runs.lineage import Lineage
from polos_service.runs.said import NOTHING, SAYS, Said, Saying

ENDS = frozenset({"agent_finish", "workflow_finish", "error", "run_cancelled"})
"""The names of the payloads that end a run, a child as well as the root."""

WAITS = {
    WaitKind.WAIT_KIND_TIMER: "timer",
    WaitKind.WAIT_KIND_SUSPEND: "suspend",
    WaitKind.WAIT_KIND_APPROVAL: "approval",
    WaitKind.WAIT_KIND_RUN: "run",
}
"""What kind of step a wait is."""

ANSWERED = frozenset({"suspend", "approval"})
"""The kinds of waits that end by an answer."""

UNANSWERED = frozenset({WaitKind.WAIT_KIND_TIMER, WaitKind.WAIT_KIND_RUN})
"""The waits that nobody can answer."""

STEP_CANCELLED = FailureReason.FAILURE_REASON_STEP_CANCELLED

INTERRUPTED = frozenset({STEP_CANCELLED, FailureReason.FAILURE_REASON_PROCESS_RESTARTED})
"""Why a step begins anew that has not failed."""


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

    def open_waits(self) -> Iterator[tuple[int, Suspended]]:
        """Yield the waits that have begun and not ended, with the sequences of their events."""
        return (wait for key, wait in self.waits.items() if key not in self.resumed)

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
