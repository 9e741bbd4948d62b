"""Direct gets: many messages of a stream in one request, from any replica."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass

from nats.aio.msg import Msg
from nats.errors import Error

from polos_service.store.nats.connection import Away, Connection
from polos_service.store.nats.stored import Stored, from_replica

END = ("204", "404")
"""The status at the end of the answer, and of one without a message."""

PAGE = 1024 * 1024
"""Bytes that one request asks for at most; one message more may come."""


@dataclass(frozen=True, slots=True)
class Page:
    """What a request brings; `more` tells that there is more behind it."""

    messages: list[Stored]
    more: bool


async def direct(client: Connection, subject: str, payload: bytes, timeout: float) -> Page:
    """Return what a direct get brings; `timeout` is in seconds, for each message.

    Raises:
        Away: it did not come to its end.
        TimeoutError: nothing came in that time.

    """
    client.expect()
    found: list[Stored] = []
    connections = client.stats["reconnects"]
    async with replies(client) as (inbox, queue):
        await client.publish(subject, payload, reply=inbox)
        while True:
            message = await asyncio.wait_for(queue.get(), timeout)
            headers = message.headers or {}
            stored = from_replica(message.data, headers)
            status = headers.get("Status")
            if stored is not None:  # whatever status its writer put among its headers
                found.append(stored)
            elif status is None:
                continue  # no answer of JetStream
            elif status not in END:
                raise Away(f"a direct get ended with status {status}")
            elif client.stats["reconnects"] != connections:
                raise Away("the connection was lost, and maybe a part of the answer with it")
            else:
                return Page(found, more=headers.get("Nats-Num-Pending", "0") != "0")


@asynccontextmanager
async def replies(client: Connection) -> AsyncIterator[tuple[str, asyncio.Queue[Msg]]]:
    """Give a subject that nobody else uses, and what is published there."""
    queue: asyncio.Queue[Msg] = asyncio.Queue()

    async def take(message: Msg) -> None:
        queue.put_nowait(message)

    inbox = client.new_inbox()
    subscription = await client.subscribe(inbox, cb=take)
    try:
        yield inbox, queue
    finally:
        with suppress(Error):
            await subscription.unsubscribe()
