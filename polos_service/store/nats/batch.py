"""Direct gets: many messages of a stream in one request, from any replica."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress

from nats.aio.msg import Msg
from nats.errors import Error

from polos_service.store.nats.connection import Away, Connection
from polos_service.store.nats.stored import Stored, from_replica

END = ("204", "404")
"""The status at the end of the answer, and of one without a message."""


async def direct(client: Connection, subject: str, payload: bytes, timeout: float) -> list[Stored]:
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
            status = headers.get("Status")
            if status is None:
                found.append(from_replica(message, headers))
            elif status not in END:
                raise Away(f"a direct get ended with status {status}")
            elif client.stats["reconnects"] != connections:
                raise Away("the connection was lost, and maybe a part of the answer with it")
            else:
                return found


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
