"""A round with a file: a service that dies and comes back, and runs that stream meanwhile."""

from __future__ import annotations

import asyncio
import signal
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path

from chaos.base import BaseRound, Result
from chaos.places import OUTSIDE, Place
from chaos.plan import Death, RoundPlan
from chaos.provider import Provider
from chaos.readers import Readers
from chaos.service import Service, environment
from chaos.story import Log, logs_of

STUCK = 10.0
"""Seconds in which nothing happens to any run, with the service up, after which they hang.
Less than the 15 s of a heartbeat, which would heal a wake-up that was lost."""


async def play(plan: RoundPlan, provider: Provider, bug: str = "", stuck: float = STUCK) -> Result:
    """Play a round and return what came out of it."""
    provider.expect(plan.runs)
    with tempfile.TemporaryDirectory(prefix="polos-chaos-") as name:
        game = Round(plan, provider, Path(name), bug, stuck)
        try:
            return await game.play()
        finally:
            await game.service.end()


class Round(BaseRound):
    """A round while it is played.

    Attributes:
        service: the service, which dies.

    """

    def __init__(
        self, plan: RoundPlan, provider: Provider, folder: Path, bug: str, stuck: float
    ) -> None:
        ledger = folder / "ledger"
        super().__init__(
            runs=plan.runs,
            cuts=plan.cuts,
            lives=len(plan.deaths) + 1,
            provider=provider,
            ledger=ledger,
            stuck=stuck,
        )
        self._deaths = plan.deaths
        self._file = folder / "runs.db"
        self.service = Service(
            folder, f"sqlite://{self._file}", environment(provider.url, bug, ledger)
        )
        self._marks_read = 0

    def _ports(self, number: int) -> Sequence[int]:  # noqa: ARG002 - there is only this one
        return [self.service.port]

    def _output(self) -> str:
        return self.service.output()

    async def _live_and_die(self, readers: Readers) -> None:
        """Start the service and see it die, as often as the plan says."""
        for death, life in zip(self._deaths, self._lives, strict=False):
            life.set()
            await self.service.start(death.faults)
            if not await self.service.ended(death.patience):
                await self._strike(death)
            self._read_marks()
        self._lives[-1].set()
        if not await self.service.start():
            raise RuntimeError(f"the service does not start:\n{self.service.output()}")
        readers.progress = asyncio.get_running_loop().time()

    async def _strike(self, death: Death) -> None:
        """End a process from outside."""
        place = death.place if death.place in OUTSIDE else Place.KILL
        self._struck(place, self._in_flight())
        await self.service.end(signal.SIGTERM if place is Place.RESTART else signal.SIGKILL)

    def _read_marks(self) -> None:
        """Count the faults inside the process that has died; one of them may have killed it."""
        marks = self.service.marks()
        for place, _ in marks[self._marks_read :]:
            if place != Place.STOLEN:
                self._struck(Place(place), self._in_flight())
        self._marks_read = len(marks)

    async def _logs(self) -> Mapping[str, Log]:
        await self.service.end()
        by_id = {story.run_id: story for story in self._stories}
        for place, run_id in self.service.marks():
            if place == Place.STOLEN and run_id in by_id:
                self._struck(Place.STOLEN, [by_id[run_id]])
        return logs_of(self._file)
