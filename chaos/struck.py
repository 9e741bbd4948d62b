"""A round in which blows from outside fall on a system of processes, one after the other."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Mapping, Sequence
from contextlib import AbstractAsyncContextManager
from pathlib import Path
from typing import Protocol

from nats.js import JetStreamContext

from chaos.base import BaseRound, Result
from chaos.cluster.logs import left_behind, logs_in
from chaos.cluster.plan import Blow, ClusterPlan
from chaos.link import Link
from chaos.places import Place
from chaos.plan import PATIENCE
from chaos.provider import Provider
from chaos.readers import Readers
from chaos.story import Log, Story


class System(Protocol):
    """What is struck."""

    @property
    def problems(self) -> Sequence[str]:
        """What its processes did that they must not."""
        ...

    def output(self) -> str:
        """Return what the processes of the service printed."""
        ...

    def jetstream(self) -> AbstractAsyncContextManager[JetStreamContext]:
        """Connect to what it stores in."""
        ...

    async def suffer(self, blow: Blow) -> None:
        """Let a blow happen, and return when all is up again."""
        ...


class StruckRound(BaseRound):
    """A round while it is played."""

    def __init__(
        self, plan: ClusterPlan, provider: Provider, system: System, ledger: Path, stuck: float
    ) -> None:
        super().__init__(
            runs=plan.runs,
            cuts=plan.cuts,
            lives=len(plan.blows) + 1,
            provider=provider,
            ledger=ledger,
            stuck=stuck,
        )
        self._blows = plan.blows
        self._system = system
        self._left = 0
        self._enough = asyncio.Event()
        self._queue: list[str] = []

    def _output(self) -> str:
        return self._system.output()

    async def _live_and_die(self, readers: Readers) -> None:
        """Deal one blow after the other."""
        for blow, life in zip(self._blows, self._lives, strict=False):
            await self._deal(blow, life)
        self._lives[-1].set()
        readers.progress = asyncio.get_running_loop().time()

    async def _deal(self, blow: Blow, life: asyncio.Event) -> None:
        """Deal a blow from outside when readers have seen so many events."""
        self._left = blow.after
        self._enough.clear()
        life.set()
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(self._enough.wait(), PATIENCE)
        self._struck(blow.place, self._in_flight())
        await self._system.suffer(blow)

    def _saw(self, story: Story, links: list[Link]) -> None:
        super()._saw(story, links)
        self._left -= 1
        if self._left <= 0:
            self._enough.set()

    async def _logs(self) -> Mapping[str, Log]:
        async with self._system.jetstream() as stream:
            if all(story.done for story in self._stories):
                self._queue = await left_behind(stream)
            logs = await logs_in(stream)
        for story in self._stories:
            for _ in range(logs[story.run_id].takeovers if story.run_id in logs else 0):
                self._struck(Place.TAKEOVER, [story])
        return logs

    def _result(self, logs: Mapping[str, Log]) -> Result:
        result = super()._result(logs)
        result.findings += [*self._queue, *self._system.problems]
        return result
