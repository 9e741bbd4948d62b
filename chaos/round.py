"""Plays a round: a store, a service that dies and comes back, and runs that stream meanwhile."""

from __future__ import annotations

import asyncio
import contextlib
import signal
import tempfile
from collections import Counter
from collections.abc import Iterator
from contextlib import AsyncExitStack
from dataclasses import dataclass, field
from pathlib import Path

from chaos.check import wrong
from chaos.link import Link
from chaos.places import OUTSIDE, Place
from chaos.plan import CLIENTS, Death, RoundPlan
from chaos.provider import Provider
from chaos.readers import PatientClient, Readers
from chaos.service import Service
from chaos.story import Story, effects_of, logs_of
from polos import events

STUCK = 10.0
"""Seconds in which nothing happens to any run, with the service up, after which they hang.
Less than the 15 s of a heartbeat, which would heal a wake-up that was lost."""


@dataclass(slots=True)
class Result:
    """What came out of a round.

    Attributes:
        runs: how many there were.
        trials: how many of them met a fault.
        events: how many events their logs have.
        faults: the faults, by place.
        hits: the runs that each place's faults met.
        findings: what is wrong, each with the run it is about.
        output: what the service printed.

    """

    runs: int = 0
    trials: int = 0
    events: int = 0
    faults: Counter[Place] = field(default_factory=Counter)
    hits: Counter[Place] = field(default_factory=Counter)
    findings: list[str] = field(default_factory=list)
    output: str = ""


async def play(plan: RoundPlan, provider: Provider, bug: str = "", stuck: float = STUCK) -> Result:
    """Play a round and return what came out of it."""
    provider.expect(plan.runs)
    with tempfile.TemporaryDirectory(prefix="polos-chaos-") as folder:
        service = Service(Path(folder), provider.url, bug)
        try:
            return await Round(plan, provider, service, stuck).play()
        finally:
            await service.end()


class Round:
    """A round while it is played."""

    def __init__(self, plan: RoundPlan, provider: Provider, service: Service, stuck: float) -> None:
        self._plan = plan
        self._provider = provider
        self._service = service
        self._stuck = stuck
        self._stories = [Story(run) for run in plan.runs]
        self._lives = [asyncio.Event() for _ in range(len(plan.deaths) + 1)]
        self._faults: Counter[Place] = Counter()
        self._seen: Counter[int] = Counter()
        self._cutting: list[asyncio.Task[None]] = []
        self._marks_read = 0

    async def play(self) -> Result:
        """Play it."""
        async with AsyncExitStack() as stack:
            enter = stack.enter_async_context
            links = [await enter(Link(self._service.port)) for _ in range(CLIENTS)]
            clients = [await enter(PatientClient(link.address)) for link in links]
            readers = Readers(lambda story: self._saw(story, links))
            tasks = [
                asyncio.create_task(
                    readers.live(story, clients[story.plan.client], self._lives[story.plan.life])
                )
                for story in self._stories
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
        await self._service.end()
        return self._result()

    async def _end(
        self, tasks: list[asyncio.Task[None]], lives: asyncio.Task[None], readers: Readers
    ) -> None:
        """Wait until every run has ended, or nothing happens any more."""
        loop = asyncio.get_running_loop()
        pending = set(tasks)
        while pending:
            _, pending = await asyncio.wait(pending, timeout=0.2)
            if not lives.done() or lives.exception() is not None:
                readers.progress = loop.time()  # the service is not up for good yet
            if lives.done() and lives.exception() is not None:
                return
            if loop.time() - readers.progress > self._stuck:
                return

    async def _live_and_die(self, readers: Readers) -> None:
        """Start the service and see it die, as often as the plan says."""
        for death, life in zip(self._plan.deaths, self._lives, strict=False):
            life.set()
            await self._service.start(death.faults)
            if not await self._service.ended(death.patience):
                await self._strike(death)
            self._read_marks()
        self._lives[-1].set()
        if not await self._service.start(""):
            raise RuntimeError(f"the service does not start:\n{self._service.output()}")
        readers.progress = asyncio.get_running_loop().time()

    async def _strike(self, death: Death) -> None:
        """End a process from outside."""
        place = death.place if death.place in OUTSIDE else Place.KILL
        self._struck(place, self._in_flight())
        await self._service.end(signal.SIGTERM if place is Place.RESTART else signal.SIGKILL)

    def _saw(self, story: Story, links: list[Link]) -> None:
        """Count what a client's readers have seen, and cut its link where it is time."""
        client = story.plan.client
        self._seen[client] += 1
        for cut in self._plan.cuts:
            if cut.client == client and cut.after == self._seen[client]:
                mine = (one for one in self._in_flight() if one.plan.client == client)
                self._struck(cut.place, mine)
                self._cutting.append(asyncio.create_task(links[client].suffer(cut)))

    def _in_flight(self) -> Iterator[Story]:
        return (story for story in self._stories if story.begun and not story.done)

    def _struck(self, place: Place, stories: Iterator[Story]) -> None:
        self._faults[place] += 1
        for story in stories:
            story.faults[place] += 1

    def _read_marks(self) -> None:
        """Count the faults inside the process that has died; one of them may have killed it."""
        marks = self._service.marks()
        for place, _ in marks[self._marks_read :]:
            if place != Place.STOLEN:
                self._struck(Place(place), self._in_flight())
        self._marks_read = len(marks)

    async def _replay(self) -> None:
        """Read every run that has ended once more, straight from the service."""
        async with PatientClient(f"127.0.0.1:{self._service.port}") as client:
            for story in self._stories:
                if story.done:
                    log = events.stream_workflow(client, workflow_run_id=story.run_id)
                    with contextlib.suppress(TimeoutError):
                        async with asyncio.timeout(self._stuck):
                            story.replayed = [event.proto async for event in log]

    def _result(self) -> Result:
        logs = logs_of(self._service.store)
        effects = effects_of(self._service.ledger)
        result = Result(runs=len(self._stories), output=self._service.output())
        by_id = {story.run_id: story for story in self._stories}
        for place, run_id in self._service.marks():
            if place == Place.STOLEN and run_id in by_id:
                self._struck(Place.STOLEN, iter([by_id[run_id]]))
        for story in self._stories:
            log = logs.get(story.run_id)
            if log is None:
                told = story.problems or ["lost: the file has no such run"]
                result.findings += [f"{story.plan.name}: {one}" for one in told]
                continue
            for cursor in filter(log.inside, story.cursors):
                self._struck(Place.CURSOR, iter([story] if cursor else []))
            result.events += len(log.events)
            about = f"{story.plan.name} ({story.run_id})"
            found = wrong(story, log, effects, self._provider.asked)
            result.findings += [f"{about}: {one}" for one in found]
        if extra := set(logs) - set(by_id):
            result.findings.append(f"twice: nobody asked for the runs {sorted(extra)}")
        result.faults = self._faults
        result.trials = sum(bool(story.faults) for story in self._stories)
        for story in self._stories:
            result.hits.update(story.faults.keys())
        return result
