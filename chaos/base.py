"""What every round has: clients behind links, runs that stream, and what came out of them."""

from __future__ import annotations

import asyncio
import contextlib
from abc import ABC, abstractmethod
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import AsyncExitStack
from dataclasses import dataclass, field
from pathlib import Path

from chaos.apart import wrong_apart
from chaos.check import wrong
from chaos.link import Link
from chaos.places import Place
from chaos.plan import CLIENTS, Cut
from chaos.provider import Provider
from chaos.readers import PatientClient, Readers
from chaos.story import Log, Story, effects_of
from chaos.work import RunPlan
from polos import events

LONGEST = 300.0
"""Seconds that a round may take; what is left then never ends: it starts children for ever, say."""


@dataclass(slots=True)
class Tally:
    """What is counted, in a round or in several.

    Attributes:
        runs: how many there were.
        trials: how many of them met a fault.
        events: how many events their logs have.
        faults: the faults, by place.
        hits: the runs that each place's faults met.
        findings: what is wrong, each with the run it is about.

    """

    runs: int = 0
    trials: int = 0
    events: int = 0
    faults: Counter[Place] = field(default_factory=Counter)
    hits: Counter[Place] = field(default_factory=Counter)
    findings: list[str] = field(default_factory=list)


@dataclass(slots=True)
class Result(Tally):
    """What came out of a round; `output` is what the service printed."""

    output: str = ""


class BaseRound(ABC):
    """A round while it is played. A life is a time in which some of the runs are started."""

    def __init__(
        self,
        *,
        runs: Sequence[RunPlan],
        cuts: Sequence[Cut],
        lives: int,
        provider: Provider,
        ledger: Path,
        stuck: float,
    ) -> None:
        """Play these runs; after `stuck` seconds in which nothing happens to any, they hang."""
        self._cuts = cuts
        self._provider = provider
        self._ledger = ledger
        self._stuck = stuck
        self._stories = [Story(run) for run in runs]
        self._lives = [asyncio.Event() for _ in range(lives)]
        self._faults: Counter[Place] = Counter()
        self._seen: Counter[int] = Counter()
        self._cutting: list[asyncio.Task[None]] = []

    @abstractmethod
    def _ports(self, number: int) -> Sequence[int]:
        """Return the ports that one of the clients, or a replay, tries one after the other."""

    @abstractmethod
    async def _live_and_die(self, readers: Readers) -> None:
        """Begin one life after the other, and let happen to the service what is planned."""

    @abstractmethod
    async def _logs(self) -> Mapping[str, Log]:
        """Return what the store has, and count the faults that only now are known."""

    @abstractmethod
    def _output(self) -> str:
        """Return what the service printed."""

    async def play(self) -> Result:
        """Play it."""
        async with AsyncExitStack() as stack:
            enter = stack.enter_async_context
            links = [await enter(Link(*self._ports(number))) for number in range(CLIENTS)]
            clients = [await enter(PatientClient(link.address)) for link in links]
            readers = Readers(self._stories, lambda story: self._saw(story, links))
            tasks = [
                asyncio.create_task(readers.live(story, clients, self._lives[story.plan.life]))
                for story in tuple(self._stories)
            ]
            lives = asyncio.create_task(self._live_and_die(readers))
            try:
                await self._end(tasks, lives, readers)
            finally:
                tasks += [lives, *self._cutting]
                for task in tasks:
                    task.cancel()
                outcomes = await asyncio.gather(*tasks, return_exceptions=True)
            raised = [one for one in outcomes if isinstance(one, Exception)]
            if raised:
                raise ExceptionGroup("the harness itself failed", raised)
            await self._replay()
        return self._result(await self._logs())

    async def _end(
        self, tasks: list[asyncio.Task[None]], lives: asyncio.Task[None], readers: Readers
    ) -> None:
        """Wait until every run has ended, nothing happens any more, or it has taken too long."""
        loop = asyncio.get_running_loop()
        latest = loop.time() + LONGEST
        pending = set(tasks)
        while pending:
            _, pending = await asyncio.wait(pending, timeout=0.2)
            if not lives.done() or lives.exception() is not None:
                readers.progress = loop.time()  # the service is not up for good yet
            if lives.done() and lives.exception() is not None:
                return
            if loop.time() - readers.progress > self._stuck or loop.time() > latest:
                return

    def _saw(self, story: Story, links: list[Link]) -> None:
        """Count what a client's readers have seen, and cut its link where it is time."""
        client = story.plan.client
        self._seen[client] += 1
        for cut in self._cuts:
            if cut.client == client and cut.after == self._seen[client]:
                mine = (one for one in self._in_flight() if one.plan.client == client)
                self._struck(cut.place, mine)
                self._cutting.append(asyncio.create_task(links[client].suffer(cut)))

    def _in_flight(self) -> Iterator[Story]:
        return (story for story in self._stories if story.begun and not story.done)

    def _struck(self, place: Place, stories: Iterable[Story]) -> None:
        self._faults[place] += 1
        for story in stories:
            story.faults[place] += 1

    async def _replay(self) -> None:
        """Read every run that has ended once more, straight from the service."""
        for number in range(CLIENTS):
            async with PatientClient(f"127.0.0.1:{self._ports(number)[0]}") as client:
                for story in self._stories[number::CLIENTS]:
                    if story.done:
                        await self._read_again(story, client)

    async def _read_again(self, story: Story, client: PatientClient) -> None:
        log = events.stream_workflow(client, workflow_run_id=story.run_id)
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(self._stuck):
                story.replayed = [event.proto async for event in log]

    def _result(self, logs: Mapping[str, Log]) -> Result:
        effects = effects_of(self._ledger)
        result = Result(runs=len(self._stories), output=self._output())
        for story in self._stories:
            log = logs.get(story.run_id)
            if log is None:
                told = story.problems or ["lost: the store has no such run"]
                result.findings += [f"{story.plan.name}: {one}" for one in told]
                continue
            for cursor in filter(log.inside, story.cursors):
                self._struck(Place.CURSOR, [story] if cursor else [])
            result.events += len(log.events)
            about = f"{story.plan.name} ({story.run_id})"
            found = wrong(story, log, effects, self._provider.asked)
            result.findings += [f"{about}: {one}" for one in found]
        result.findings += wrong_apart(self._stories, logs)
        if extra := set(logs) - {story.run_id for story in self._stories}:
            result.findings.append(f"twice: nobody asked for the runs {sorted(extra)}")
        result.faults = self._faults
        result.trials = sum(bool(story.faults) for story in self._stories)
        for story in self._stories:
            result.hits.update(story.faults.keys())
        return result
