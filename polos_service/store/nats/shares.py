"""How many runs each project holds at all replicas, as far as they tell each other.

The rule of fairness uses it, and the limit of runs at once: what is late or lost makes a share or
the limit less exact, and nothing else.
"""

from __future__ import annotations

import asyncio
import uuid
from collections import Counter
from collections.abc import Callable, Mapping

import orjson
from nats.aio.msg import Msg
from pydantic import TypeAdapter

from polos_service.cancelling import cancel_until_done
from polos_service.store.nats.jetstream import JetStream
from polos_service.store.nats.records import Number
from polos_service.store.nats.subjects import HELD

SHARES: TypeAdapter[dict[str, int]] = TypeAdapter(dict[str, Number])
"""Reads what a replica tells: how many runs it holds, by the project's token."""


class Shares:
    """What this replica holds, and what the others have told of late."""

    def __init__(self, jetstream: JetStream, claim_timeout: float) -> None:
        self._jetstream = jetstream
        self._own: Callable[[], Mapping[str, int]] = dict
        self._told: Callable[[], None] = lambda: None
        self._patience = claim_timeout
        self._name = uuid.uuid4().hex
        self._others: dict[str, tuple[float, Mapping[str, int]]] = {}
        """By replica, until when it counts as a time of the loop, and what it holds."""
        self._telling: asyncio.Task[None] | None = None

    async def start(
        self, own: Callable[[], Mapping[str, int]], period: float, told: Callable[[], None]
    ) -> None:
        """Listen to the others, and tell them each so many seconds what `own` returns.

        `told` is called as often, and when another one has told something.
        """
        self._own = own
        self._told = told
        await self._jetstream.subscribe(f"{HELD}.*", self._hear)
        self._telling = asyncio.create_task(self._tell(period), name="polos-shares")

    async def close(self) -> None:
        """Tell nothing more: the others forget what this replica held."""
        if self._telling is not None:
            await cancel_until_done({self._telling})

    def held(self) -> Mapping[str, int]:
        """Return how many runs each project holds, by its token."""
        total = Counter(self._own())
        now = asyncio.get_running_loop().time()
        for until, held in self._others.values():
            if until > now:
                total.update(held)
        return total

    async def _tell(self, period: float) -> None:
        told: Mapping[str, int] = {}
        while True:
            held = self._own()
            if held or told:  # once more, when it holds nothing
                await self._jetstream.publish(f"{HELD}.{self._name}", orjson.dumps(held))
            told = held
            self._told()
            await asyncio.sleep(period)

    async def _hear(self, message: Msg) -> None:
        name = message.subject.rpartition(".")[2]
        if name == self._name:
            return
        now = asyncio.get_running_loop().time()
        for other in [one for one, (until, _) in self._others.items() if until <= now]:
            del self._others[other]
        try:
            held = SHARES.validate_json(message.data, strict=True)
        except ValueError:
            return
        self._others[name] = (now + self._patience, held)
        self._told()
