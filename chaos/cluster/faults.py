"""Fault points inside a replica: places around what the store on NATS does."""

from __future__ import annotations

from typing import Any

from chaos.faults import Faults, Original, around, watch_waits
from chaos.places import Place
from polos_service.store.nats.frames import Head, Mark
from polos_service.store.nats.log import Log
from polos_service.store.nats.queue import Queue
from polos_service.store.nats.records import Records
from polos_service.store.nats.store import NatsStore


def watch_nats(faults: Faults) -> None:
    """Put places around appends and starts, and around what is done for waits."""
    watch_waits(faults, NatsStore)

    @around(Log, "append")
    async def _(original: Original, log: Log, subject: str, head: Head, *more: Any) -> int:
        if head.outcome:
            faults.at(Place.TERMINAL)
        sequence: int = await original(log, subject, head, *more)
        faults.at(stored(head))
        return sequence

    @around(Records, "create")
    async def _(original: Original, *args: Any) -> Any:
        faults.at(Place.START)  # the request id is reserved, and there is no record
        return await original(*args)

    @around(Queue, "put")
    async def _(original: Original, *args: Any, **options: Any) -> None:
        await original(*args, **options)
        faults.at(Place.START_ACK)


def stored(head: Head) -> Place:
    """Return the place right behind storing a message."""
    if head.outcome:
        return Place.TERMINAL_ACK
    return Place.CLAIM if head.mark is Mark.CLAIMED else Place.APPEND_ACK
