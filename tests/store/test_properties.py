"""Log and folds under any interleaving, against a model that has nothing of their code."""

from __future__ import annotations

import asyncio
import copy
import shutil
import tempfile
from collections.abc import Awaitable
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import TypeVar
from unittest.mock import patch

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    precondition,
    rule,
)

from polos.v1.event_pb2 import Event, StepFinish
from polos.v1.run_pb2 import RunState
from polos_client.calls.stream import _chunk
from polos_client.fold import RunAccumulator
from polos_service.errors import Fenced
from polos_service.runs.frame import Encoder, cut, decode
from polos_service.runs.journals import Journals
from polos_service.runs.lineage import Lineage
from polos_service.runs.private import private_line
from polos_service.store import Claim, Command, Frame
from polos_service.store.sqlite import SqliteStore, spool
from tests.support.runs import DONE
from tests.support.stores import ALL, COMPLETED, cancel, first_claim, new_run, soon
from tests.support.talk import LANES, Talk

T = TypeVar("T")

QUEUED = RunState.RUN_STATE_QUEUED
RUNNING = RunState.RUN_STATE_RUNNING

PICK = st.integers(0, 11)
"""Picks one of at most a few: the same chance for each of 2, 3 or 4."""

MOVES = st.lists(st.tuples(st.sampled_from(LANES), st.integers(0, 5)), min_size=1, max_size=6)


@dataclass
class Expected:
    """A run, as the model has it."""

    run_id: str
    state: RunState.ValueType = QUEUED
    epoch: int = 0
    events: list[bytes] = field(default_factory=list)
    inbox: list[Command] = field(default_factory=list)
    talk: Talk = field(default_factory=Talk)


@dataclass
class Written:
    """A frame that was put together on a copy of the run's talk."""

    frame: Frame
    private: bytes
    events: list[bytes]
    talk: Talk


def written(run: Expected, moves: list[tuple[str, int]], *, last: bool) -> Written:
    """Put the next frame of a run together."""
    talk, events, private = copy.deepcopy(run.talk), [], b""
    payloads = [talk.move(*move) for move in moves] + ([DONE] if last else [])
    for sequence, payload in enumerate(payloads, len(run.events) + 1):
        events.append(
            Encoder(Lineage(run.run_id, "agent")).encode(
                payload,
                sequence=sequence,
                time=sequence,
                terminal=payload is DONE,
            )
        )
        if isinstance(payload, StepFinish) and payload.step_key in talk.private:
            private += private_line(payload.step_key, talk.private[payload.step_key])
    first = len(run.events) + 1
    outcome = COMPLETED if last else None
    frame = Frame(first=first, last=first + len(events) - 1, data=b"".join(events), outcome=outcome)
    return Written(frame, private, events, talk)


class LogMachine(RuleBasedStateMachine):
    """Appends, crashes, commands, releases, and claims and reads by anybody."""

    def __init__(self) -> None:
        super().__init__()
        self.stack = ExitStack()
        self.folder = Path(self.stack.enter_context(tempfile.TemporaryDirectory()))
        self.runner = self.stack.enter_context(asyncio.Runner())
        self.crashes = 0
        self.known: list[Expected] = []
        self.claims: list[tuple[Expected, Claim]] = []

    def do(self, work: Awaitable[T]) -> T:
        return self.runner.run(soon(work))

    def run_of(self, pick: int) -> Expected:
        return self.known[pick % len(self.known)]

    def holds(self, held: tuple[Expected, Claim]) -> bool:
        run, claim = held
        return run.state == RUNNING and claim.epoch == run.epoch

    def holders(self) -> list[tuple[Expected, Claim]]:
        return [held for held in self.claims if self.holds(held)]

    def queued(self) -> list[Expected]:
        return [run for run in self.known if run.state == QUEUED]

    @initialize(bound=st.sampled_from([0, 300, 2000, ALL]), large=st.sampled_from([100, ALL]))
    def begin(self, bound: int, large: int) -> None:
        self.stack.enter_context(patch.object(spool, "SPOOL_LIMIT", bound))
        self.stack.enter_context(patch.object(spool, "LARGE", large))
        self.store = self.do(SqliteStore.open(self.folder / "0" / "runs.db"))
        for _ in range(2):
            self.create()
            self.claim_the_oldest()

    @precondition(lambda self: len(self.known) < 4)
    @rule()
    def create(self) -> None:
        self.known.append(Expected(self.do(self.store.create(new_run()))))

    @precondition(lambda self: self.queued())
    @rule()
    def claim_the_oldest(self) -> None:
        self.took(self.queued()[0], self.do(first_claim(self.store, ["agent"])))

    @rule(pick=PICK)
    def claim_it(self, pick: int) -> None:
        run = self.run_of(pick)
        claim = self.do(self.store.claim_run("default", run.run_id))
        assert (claim is not None) == (run.state == QUEUED)
        if claim is not None:
            self.took(run, claim)

    def took(self, run: Expected, claim: Claim) -> None:
        run.state = RUNNING
        assert claim.run_id == run.run_id
        assert claim.epoch > run.epoch, "an epoch is never used again"
        assert claim.latest == len(run.events)
        assert list(claim.commands) == run.inbox
        run.epoch = claim.epoch
        self.claims.append((run, claim))
        self.agree(run, self.do(Journals.load(run.run_id, self.store.history(claim))))

    @precondition(lambda self: self.holders())
    @rule(pick=PICK, moves=MOVES, ending=st.integers(0, 7))
    def append(self, pick: int, moves: list[tuple[str, int]], ending: int) -> None:
        holders = self.holders()
        run, claim = holders[pick % len(holders)]
        new = written(run, moves, last=ending == 7)
        self.do(self.store.append(claim, new.frame, new.private))
        run.events += new.events
        run.talk = new.talk
        run.state = COMPLETED if new.frame.outcome else RUNNING

    @precondition(lambda self: len(self.claims) > len(self.holders()))
    @rule(pick=PICK, moves=MOVES)
    def append_without_the_claim(self, pick: int, moves: list[tuple[str, int]]) -> None:
        stale = [held for held in self.claims if not self.holds(held)]
        run, claim = stale[pick % len(stale)]
        new = written(run, moves, last=False)
        with pytest.raises(Fenced):
            self.do(self.store.append(claim, new.frame, new.private))

    @precondition(lambda self: self.holders())
    @rule(pick=PICK, gap=st.sampled_from([-2, -1, 1, 2]))
    def append_elsewhere(self, pick: int, gap: int) -> None:
        run, claim = self.holders()[pick % len(self.holders())]
        first = len(run.events) + 1 + gap
        with pytest.raises(ValueError, match="cannot follow"):
            self.do(self.store.append(claim, Frame(first=first, last=first, data=b"never")))

    @precondition(lambda self: self.claims)
    @rule(pick=PICK)
    def release(self, pick: int) -> None:
        held = self.claims[pick % len(self.claims)]
        self.do(self.store.release(held[1]))
        if self.holds(held):
            held[0].state = QUEUED

    @rule(pick=PICK, number=st.integers(0, 3), payload=st.binary(max_size=3))
    def command(self, pick: int, number: int, payload: bytes) -> None:
        run = self.run_of(pick)
        sent = Command(id=str(number), kind="note", run_id=run.run_id, payload=payload)
        sent = sent if number else cancel(run.run_id)
        self.do(self.store.command("default", run.run_id, sent))
        if run.state != COMPLETED and sent.id not in {one.id for one in run.inbox}:
            run.inbox.append(sent)

    @precondition(lambda self: self.holders())
    @rule(pick=PICK, seen=st.integers(0, 3))
    def obey(self, pick: int, seen: int) -> None:
        run, claim = self.holders()[pick % len(self.holders())]
        if seen < len(run.inbox):
            assert list(self.do(self.store.commands(claim, seen))) == run.inbox[seen:]

    @rule()
    def crash(self) -> None:
        """The next process opens what a killed one has left: its files, as they stand."""
        before = self.folder / str(self.crashes)
        self.crashes += 1
        after = self.folder / str(self.crashes)
        after.mkdir()
        for name in ("runs.db", "runs.db-wal"):
            shutil.copy(before / name, after / name)
        self.do(self.store.close())
        self.store = self.do(SqliteStore.open(after / "runs.db"))
        for run in self.known:
            run.state = QUEUED if run.state == RUNNING else run.state

    @rule(pick=PICK, cursor=st.integers(0, 40), limit=st.sampled_from([1, 100, 1000, ALL]))
    def read(self, pick: int, cursor: int, limit: int) -> None:
        """Any cursor leads, piece by piece, to all that follows it."""
        run = self.run_of(pick)
        cursor, seen = min(cursor, len(run.events)), b""
        after = cursor
        while after < len(run.events):
            part = self.do(self.store.read("default", run.run_id, after, limit))
            assert part.latest == len(run.events)
            data = b"".join(one.data for one in part.frames)
            seen += cut(data, after + 1 - part.frames[0].first, ALL)[0]
            after = part.frames[-1].last
        assert seen == b"".join(run.events[cursor:])

    @rule(pick=PICK, cursor=st.integers(0, 40))
    def wait(self, pick: int, cursor: int) -> None:
        """Nobody waits for what is there, or will never come."""
        run = self.run_of(pick)
        if cursor < len(run.events) or run.state == COMPLETED:
            self.do(self.store.wait("default", run.run_id, cursor))

    @invariant()
    def records_tell_the_log(self) -> None:
        for run in self.known:
            record = self.do(self.store.get("default", run.run_id))
            assert (record.state, record.latest) == (run.state, len(run.events))

    @invariant()
    def the_folds_are_those_of_the_model(self) -> None:
        for run in self.known:
            events = decode(b"".join(run.events))
            folded = RunAccumulator(run.run_id)
            if events:
                folded.add(events)
            assert folded.text == run.talk.text
            assert (folded.outcome is not None) == (run.state == COMPLETED)
            assert chunked(events) == run.talk.texts

    def agree(self, run: Expected, journals: Journals) -> None:
        """Assert that the fold which recovery starts from is what the model has."""
        journal = journals.root
        assert journal.started == bool(run.events)
        assert {key: one.attempt for key, one in journal.finished.items()} == run.talk.finished
        assert journal.attempts == run.talk.attempts
        assert journal.private == run.talk.private

    def teardown(self) -> None:
        with self.stack:
            self.do(self.store.close())


def chunked(events: list[Event]) -> dict[str, str]:
    """Return what a program has that follows `text_chunks` as documented."""
    told: set[str] = set()
    texts: dict[str, str] = {}
    folded = RunAccumulator(events[0].run_id if events else "")
    for event in events:
        folded.add([event])
        chunk = _chunk(event, told, folded)
        if chunk is not None and chunk.reset:
            texts.pop(chunk.step_key)
        elif chunk is not None:
            texts[chunk.step_key] = texts.get(chunk.step_key, "") + chunk
    return texts


EXAMPLES = 15
"""Examples here; `make test-peers` tries many more."""

LogMachine.TestCase.settings = settings(
    max_examples=EXAMPLES, stateful_step_count=40, deadline=None
)
test_any_interleaving_keeps_log_and_folds = LogMachine.TestCase
