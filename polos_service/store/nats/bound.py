"""The bounds of the queue: how many runs may be queued, over all projects and by each one."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from polos_client.errors import TooManyRuns
from polos_service.quotas import Quota, Quotas
from polos_service.store import NewRun
from polos_service.store.nats.jetstream import JetStream
from polos_service.store.nats.lines import Line
from polos_service.store.nats.records import Records
from polos_service.store.nats.subjects import WORK, token
from polos_service.store.nats.usage import Usage
from polos_service.store.refusals import too_many
from polos_service.store.usage import check_queued

COUNT_PERIOD = 1.0
"""Seconds for which a count is good: replicas may let a few more in meanwhile."""


class Bound:
    """The bound of the queue, as one replica sees it."""

    def __init__(self, jetstream: JetStream, most: int, past_queue: Callable[[], int]) -> None:
        self._jetstream = jetstream
        self._most = most
        self._past_queue = past_queue
        self._queued = 0
        self._until = 0.0

    async def enter(self) -> None:
        """Count one more run, which is about to be queued.

        Raises:
            TooManyRuns: as many runs are queued as may be.

        """
        now = asyncio.get_running_loop().time()
        if self._queued >= self._most or now >= self._until:
            self._queued = await self._count()
            self._until = now + COUNT_PERIOD
        if self._queued >= self._most:
            raise too_many(self._most)
        self._queued += 1

    async def _count(self) -> int:
        """Return how many items nobody holds; exact only where it matters."""
        info = await self._jetstream.request(f"STREAM.INFO.{WORK}")
        items = int(info["state"]["messages"]) - self._past_queue()
        return items - await self._held_items() if items >= self._most else items

    async def _held_items(self) -> int:
        held = seen = 0
        while True:
            page = await self._jetstream.request(f"CONSUMER.LIST.{WORK}", {"offset": seen})
            consumers = page["consumers"] or []
            held += sum(int(one["num_ack_pending"]) for one in consumers)
            seen += len(consumers)
            if not consumers or seen >= page["total"]:
                return held


class ProjectBound:
    """How many runs each project may have queued, as one replica sees it.

    Runs that have been delivered once and were released do not count.
    """

    def __init__(self, jetstream: JetStream) -> None:
        self._jetstream = jetstream
        self._counts: dict[str, tuple[float, int]] = {}
        """By project, until when a count is good as a time of the loop, and the count."""

    async def enter(self, project: str, quota: Quota) -> None:
        """Count one more run of a project, which is about to be queued.

        Raises:
            QuotaExceeded: as many are queued as may be.

        """
        now = asyncio.get_running_loop().time()
        until, queued = self._counts.get(project, (0.0, 0))
        if now >= until or (quota.queued is not None and queued >= quota.queued):
            counted = await self._count(project)
            former, queued = until, self._counts.get(project, (0.0, 0))[1]
            if self._counts.get(project, (0.0, 0))[0] == former:  # nobody has counted meanwhile
                until, queued = now + COUNT_PERIOD, counted
        check_queued(project, quota, queued)
        self._counts[project] = (until, queued + 1)

    async def _count(self, project: str) -> int:
        queued = seen = 0
        while True:
            page = await self._jetstream.request(f"CONSUMER.LIST.{WORK}", {"offset": seen})
            consumers = page["consumers"] or []
            for one in consumers:
                if project_of(str(one["config"].get("filter_subject", ""))) == token(project):
                    queued += int(one["num_pending"])
            seen += len(consumers)
            if not consumers or seen >= page["total"]:
                return queued


class Admission:
    """Lets new runs into the queue. The start of a run that exists is always let in."""

    def __init__(
        self, bound: Bound, projects: ProjectBound, usage: Usage, records: Records, quotas: Quotas
    ) -> None:
        self._bound = bound
        self._projects = projects
        self._usage = usage
        self._records = records
        self._quotas = quotas

    async def enter(self, run: NewRun) -> None:
        """Count a run that is about to be created.

        Raises:
            QuotaExceeded: its project has reached a limit.
            TooManyRuns: as many runs are queued as may be.

        """
        quota = self._quotas.of(run.project)
        limited = quota.queued is not None or quota.starts_per_minute is not None
        if limited and await self._records.reserved(run):
            return
        try:
            await self._bound.enter()
        except TooManyRuns:
            if not await self._records.reserved(run):
                raise
            return
        if quota.queued is not None:
            await self._projects.enter(run.project, quota)
        if quota.starts_per_minute is not None:
            await self._usage.start(run.project, quota, run.create_time)


def project_of(subject: str) -> str:
    """Return the token of the project whose items a subject selects; empty if there is none."""
    try:
        return Line.of(subject).project
    except ValueError:
        return ""
