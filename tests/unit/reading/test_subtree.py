"""One child out of its root's log: it has all of its events, in order, whatever stands beside."""

from __future__ import annotations

import random
from dataclasses import dataclass, field

import pytest

from polos.v1 import event_pb2 as pb
from polos_service.reading.subtree import Subtree
from polos_service.runs.frame import Encoder, split
from polos_service.runs.lineage import Lineage, Origin, number_of
from polos_service.store import Frame, Slice
from tests.support.family import below

ROOT = "root"


@dataclass
class Written:
    """A log that is written at random: runs begin runs, and their texts look like ids.

    Attributes:
        events: the events, encoded, each with the branches that it belongs to.
        runs: those that have begun, by their branches.

    """

    chance: random.Random
    events: list[tuple[bytes, frozenset[int]]] = field(default_factory=list)
    runs: list[tuple[Lineage, frozenset[int]]] = field(default_factory=list)

    def add(self, run: Lineage, branches: frozenset[int], *, begins: bool = False) -> None:
        others = [one.run_id for one, _ in self.runs] or [ROOT]
        text = "".join(self.chance.choices(others, k=self.chance.randint(0, 3)))
        looks_like_one = pb.Event(run_id=self.chance.choice(others)).SerializeToString().decode()
        payload = (
            pb.AgentStart(agent_id=text)
            if begins
            else pb.TextDelta(content=text + looks_like_one, step_key=looks_like_one)
        )
        number = len(self.events) + 1
        self.events.append((Encoder(run).encode(payload, sequence=number, time=1), branches))

    def begin(self) -> None:
        above, branches = self.chance.choice(self.runs)
        number = len(self.events) + 1
        run = Lineage(f"{ROOT}:{number}", "sub", Origin(above.run_id, "k" * (number % 3), 1))
        self.runs.append((run, branches | {number}))
        self.add(*self.runs[-1], begins=True)

    def frames(self) -> list[Frame]:
        """Return the log in frames of some events each."""
        frames: list[Frame] = []
        at = 0
        while at < len(self.events):
            some = self.events[at : at + self.chance.choice((1, 2, 5, 30))]
            data = b"".join(one for one, _ in some)
            branches = frozenset[int]().union(*(numbers for _, numbers in some))
            frames.append(Frame(first=at + 1, last=at + len(some), data=data, branches=branches))
            at += len(some)
        return frames


def written(seed: int, events: int = 150) -> Written:
    log = Written(random.Random(seed))
    log.runs.append((Lineage(ROOT, "top"), frozenset()))
    log.add(*log.runs[0], begins=True)
    while len(log.events) < events:
        if log.chance.random() < 0.1:
            log.begin()
        else:
            log.add(*log.chance.choice(log.runs))
    return log


@pytest.mark.parametrize("limit", [1, 2_000, 1 << 20])
@pytest.mark.parametrize("seed", range(6))
def test_a_child_has_the_same_events_whatever_a_store_leaves_out(seed: int, limit: int) -> None:
    log = written(seed)
    frames = log.frames()
    latest = frames[-1].last
    every = [pb.Event.FromString(split(one)[0]) for one, _ in log.events]
    for run, _ in log.runs[1:]:
        number = number_of(run.run_id)
        assert number is not None
        subtree, taken = Subtree(run.run_id), []
        while subtree.after < latest:
            left = [one for one in frames if one.last > subtree.after and one.may_hold(number)]
            part = Slice(frames=left, latest=latest, ended=False, covered=latest)
            taken += subtree.take(part, limit)
        expected = below(every, run.run_id)
        expected[-1].terminal = False
        assert taken == expected


def test_the_ids_that_begin_with_the_id_of_a_child_are_not_it() -> None:
    first, eleventh = Origin(ROOT, "a", 1), Origin(f"{ROOT}:11", "a", 1)
    runs = [Lineage(ROOT, "top"), Lineage(f"{ROOT}:1", "sub", first)]
    runs += [Lineage(f"{ROOT}:11", "sub", first), Lineage(f"{ROOT}:111", "sub", eleventh)]
    data = b"".join(
        Encoder(run).encode(pb.TextDelta(content=f"{ROOT}:1"), sequence=place, time=1)
        for place, run in enumerate(runs * 5, 1)
    )
    frame = Frame(first=1, last=20, data=data)
    part = Slice(frames=[frame], latest=20, ended=False, covered=20)
    taken = {number: Subtree(f"{ROOT}:{number}").take(part, 1 << 20) for number in (1, 11)}
    assert {one.run_id for one in taken[1]} == {f"{ROOT}:1"}
    assert len(taken[1]) == 5
    assert {one.run_id for one in taken[11]} == {f"{ROOT}:11", f"{ROOT}:111"}


def test_runs_below_one_another_that_begin_in_one_frame_are_all_found() -> None:
    above, runs = f"{ROOT}:1", []
    for number in range(2, 6):
        runs.append(Lineage(f"{ROOT}:{number}", "sub", Origin(above, "a", 1)))
        above = runs[-1].run_id
    data = b"".join(
        Encoder(run).encode(pb.AgentStart(), sequence=number, time=1)
        for number, run in enumerate(runs, 2)
    )
    part = Slice(frames=[Frame(first=2, last=5, data=data)], latest=5, ended=False, covered=5)
    for place, run in enumerate(runs):
        taken = Subtree(run.run_id).take(part, 1 << 20)
        assert [one.run_id for one in taken] == [one.run_id for one in runs[place:]]
