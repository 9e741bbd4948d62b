"""The bound of the queue: how many runs may be queued, over all projects."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from polos_service.store.nats.jetstream import JetStream
from polos_service.store.nats.subjects import WORK
from polos_service.store.refusals import too_many

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
