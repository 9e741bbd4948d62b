"""Messages of streams: the forms in which JetStream answers with them, and a gate to our values.

Whoever may publish in the account can put anything under our subjects. So every message
goes through `Foreign.read`, and whoever reads goes on without those that are not ours.
"""

from __future__ import annotations

import asyncio
import base64
import re
import time
from collections import OrderedDict
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass
from datetime import datetime
from typing import Any, TypeVar

from nats.aio.msg import Msg
from nats.errors import Error

from polos_service.logs import get_logger
from polos_service.store.nats.connection import Away, Connection

T = TypeVar("T")

HEADERS_BEGIN = b"NATS/1.0\r\n"
"""What precedes the headers of a message."""

NUMBER = re.compile(r"[0-9]{1,19}")
"""A sequence as text."""

DIRECT_END = ("204", "404")
"""The status at the end of a direct get's answer, and of one without a message."""

SECOND = 1_000_000_000
"""Nanoseconds of a second."""

LOG_PERIOD = 60.0
"""Seconds between two log entries about foreign messages, at least."""

REMEMBERED = 4096
"""Foreign messages that are remembered, so that each counts once however often it is read."""

SHOWN = 200
"""Characters of a subject, and of a reason, in the service's log."""

UNKNOWN = -1
"""In place of a sequence: it is a message of a stream, and not known which of its subject."""

log = get_logger(__name__)


class NotOurs(ValueError):
    """A message is not one of ours; the text says why."""


@dataclass(frozen=True, kw_only=True, slots=True)
class StoredMessage:
    """A message of a stream. `sequence` is the stream's number for it, `time` the server's."""

    subject: str
    sequence: int
    data: bytes
    headers: Mapping[str, str]
    time: str

    @property
    def age(self) -> float:
        """Seconds since the server stored it."""
        return time.time() - seconds_of(self.time)


@dataclass(frozen=True, slots=True)
class Page:
    """What a direct get brings; `more` tells that there is more behind it."""

    messages: list[StoredMessage]
    more: bool


class Foreign:
    """Reads messages, and counts those that are not ours. `count` is how many there were."""

    def __init__(self) -> None:
        self.count = 0
        self._known: OrderedDict[tuple[str, int], None] = OrderedDict()
        self._next_log = 0.0

    def read(self, decode: Callable[[StoredMessage], T], message: StoredMessage | None) -> T | None:
        """Return what a message holds; None if there is no message, or it is not ours.

        `decode` raises ValueError (NotOurs, say) for a message that is not ours.
        """
        if message is None:
            return None
        try:
            return decode(message)
        except ValueError as error:
            self.skip(message.subject, message.sequence, str(error))
            return None

    def skip(self, subject: str, sequence: int, why: str) -> None:
        """Count a foreign message; `sequence` is 0 if no stream holds it."""
        key = (subject, sequence)
        if sequence:
            if key in self._known:
                return
            self._known[key] = None
            if len(self._known) > REMEMBERED:
                self._known.popitem(last=False)
        self.count += 1
        if time.monotonic() >= self._next_log:
            self._next_log = time.monotonic() + LOG_PERIOD
            log.warning(
                "foreign_messages_skipped",
                count=self.count,
                subject=subject[:SHOWN],
                sequence=sequence,
                why=why.partition("\n")[0][:SHOWN],
            )


def from_leader(message: Mapping[str, Any]) -> StoredMessage:
    """Return the message that a stream's leader answered with, as JSON."""
    raw = base64.b64decode(message.get("hdrs", "")).removeprefix(HEADERS_BEGIN)
    pairs = (line.partition(":") for line in raw.decode(errors="replace").split("\r\n") if line)
    return StoredMessage(
        subject=message["subject"],
        sequence=message["seq"],
        data=base64.b64decode(message.get("data", "")),
        headers={name: value.strip() for name, _, value in pairs},
        time=message["time"],
    )


def from_replica(data: bytes, headers: Mapping[str, str]) -> StoredMessage | None:
    """Return the message of a stream that these headers describe; None if they do not.

    JetStream adds them to what a direct get brings, and to what a stream republishes, in
    place of any that the message's writer gave it.
    """
    subject, sequence = headers.get("Nats-Subject"), headers.get("Nats-Sequence", "")
    stamp = headers.get("Nats-Time-Stamp")
    if subject is None or stamp is None or not NUMBER.fullmatch(sequence):
        return None
    return StoredMessage(
        subject=subject, sequence=int(sequence), data=data, headers=headers, time=stamp
    )


def seconds_of(stamp: str) -> float:
    """Return the time of a message or a stream as seconds since the epoch."""
    return datetime.fromisoformat(stamp).timestamp()


async def direct_get(client: Connection, subject: str, payload: bytes, timeout: float) -> Page:
    """Return what a direct get brings; `timeout` is in seconds, for each message.

    Raises:
        Away: it did not come to its end.
        TimeoutError: nothing came in that time.

    """
    client.expect()
    found: list[StoredMessage] = []
    connections = client.stats["reconnects"]
    async with replies(client) as (reply, queue):
        await client.publish(subject, payload, reply=reply)
        while True:
            async with asyncio.timeout(timeout):
                message = await queue.get()
            headers = message.headers or {}
            stored = from_replica(message.data, headers)
            status = headers.get("Status")
            if stored is not None:  # whatever status its writer put among its headers
                found.append(stored)
            elif status is None:
                continue  # not an answer of JetStream
            elif status not in DIRECT_END:
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

    subject = client.new_inbox()
    subscription = await client.subscribe(subject, cb=take)
    try:
        yield subject, queue
    finally:
        with suppress(Error):
            await subscription.unsubscribe()
