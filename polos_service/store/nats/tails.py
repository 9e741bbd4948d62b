"""The logs that readers of this replica follow: one tail each, however many read it.

A tail hears of each message that JetStream stored (the stream republishes their heads),
so a reader that has all asks nobody. It reads new frames once, for all its readers. What
it may have missed, after a reconnect say, it finds in the log's last message.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field

from nats.aio.msg import Msg
from nats.aio.subscription import Subscription
from nats.errors import Error

from polos_client.errors import RunExpired, RunNotFound, StoreUnavailable
from polos_service.logs import get_logger
from polos_service.store import Frame
from polos_service.store.nats.background import Background
from polos_service.store.nats.ends import Last
from polos_service.store.nats.head import Head
from polos_service.store.nats.link import Link
from polos_service.store.nats.log import Log
from polos_service.store.nats.record import Life
from polos_service.store.nats.records import Records
from polos_service.store.nats.stored import from_replica
from polos_service.store.nats.subjects import log_subject, news_subject
from polos_service.store.wakeups import Wakeups

log = get_logger(__name__)

Key = tuple[str, str]
"""Project and id of a run."""

KEPT = 256 * 1024
"""Bytes of its newest frames that a tail keeps, the last frame in any case."""

LINGER = 20.0
"""Seconds that a tail without readers stays: longer than a reader is silent for."""

FIRST_LOOK, LATER_LOOK = 1.0, 15.0
"""Seconds after which a tail looks whether it missed something, at first and then."""

LOOKS = 64
"""Looks at a time: after a reconnect every tail is to look."""

PERIOD = 0.5
"""Seconds between two rounds through the tails."""


@dataclass(eq=False, slots=True)
class Tail:
    """What is known of the end of a log.

    Attributes:
        sequence: the stream's number for the last message.
        latest: the newest event.
        edge: the newest event when the tail began, or whose frame was read since; readers
            before it are replaying.
        recent: the newest frames, without a gap.
        own: what this replica appends now: its news may come before its acknowledgement.
        readers: how many wait.
        idle_since, look_at: times of the loop.

    """

    key: Key
    subject: str
    sequence: int = 0
    latest: int = 0
    edge: int = 0
    ended: bool = False
    recent: deque[Frame] = field(default_factory=deque)
    size: int = 0
    own: tuple[Head, Frame] | None = None
    readers: int = 0
    idle_since: float = 0.0
    look_at: float = 0.0
    reading: asyncio.Lock = field(default_factory=asyncio.Lock)
    news: Subscription | None = None

    def after(self, cursor: int, limit: int) -> list[Frame]:
        """Return the frames behind a cursor, if the first of them is among the recent ones."""
        if not self.recent or self.recent[0].first > cursor + 1:
            return []
        found: list[Frame] = []
        size = 0
        for frame in self.recent:
            if frame.last > cursor and (size < limit or not found):
                found.append(frame)
                size += len(frame.data)
        return found

    def keep(self, frames: Sequence[Frame]) -> None:
        """Keep frames that were read or written now."""
        for frame in frames:
            if self.recent and frame.first != self.recent[-1].last + 1:
                self.recent.clear()
                self.size = 0
            self.recent.append(frame)
            self.size += len(frame.data)
            self.edge = frame.last
        while self.size > KEPT and len(self.recent) > 1:
            self.size -= len(self.recent.popleft().data)


class Tails:
    """The tails of a replica."""

    def __init__(
        self, link: Link, log: Log, records: Records, signals: Wakeups, background: Background
    ) -> None:
        self._link = link
        self._log = log
        self._records = records
        self._signals = signals
        self._background = background
        self._tails: dict[Key, Tail] = {}
        self._opening: dict[Key, asyncio.Task[Tail]] = {}
        self._looks = asyncio.Semaphore(LOOKS)
        self._round: asyncio.Task[None] | None = None

    def start(self) -> None:
        """Look after the tails from now on."""
        self._round = asyncio.create_task(self._look_after(), name="polos-tails")
        self._link.on_return(self._look_soon)

    async def close(self) -> None:
        """Stop looking after them."""
        if self._round is not None:
            self._round.cancel()
            await asyncio.wait({self._round})

    async def of(self, project: str, run_id: str) -> Tail:
        """Return the tail of a run; one of a run that has ended does not stay.

        Raises:
            RunExpired: it was removed by `expire`.
            RunNotFound: there is no such run.

        """
        key = (project, run_id)
        tail = self._tails.get(key)
        if tail is not None:
            return tail
        opening = self._opening.get(key)
        if opening is None:
            opening = self._opening[key] = self._background.begin(self._open(key))
            opening.add_done_callback(lambda _: self._opening.pop(key))
        return await asyncio.shield(opening)

    async def read(self, tail: Tail, after: int, limit: int) -> list[Frame]:
        """Return frames behind a cursor; the newest are read once for all who follow."""
        found = tail.after(after, limit)
        if found:
            return found
        if after < tail.edge:
            return await self._log.read(tail.subject, after, limit)
        async with tail.reading:
            found = tail.after(after, limit)
            if not found:
                found = await self._log.read(tail.subject, after, limit)
                tail.keep(found)
            return found

    async def wait(self, tail: Tail, after: int) -> None:
        """Wait for an event behind a cursor, or until the tail is one no more."""
        with self._reader(tail):
            while tail.latest <= after and self._tails.get(tail.key) is tail:
                event = self._signals.event(("log", *tail.key))
                await event.wait()

    def writing(self, key: Key, head: Head, frame: Frame) -> None:
        """Have a frame at hand that this replica is about to append."""
        tail = self._tails.get(key)
        if tail is not None:
            tail.own = (head, frame)

    def written(self, key: Key, head: Head, sequence: int) -> None:
        """Take a frame into account that this replica has appended."""
        tail = self._tails.get(key)
        if tail is not None:
            self._advance(tail, head, sequence)

    async def look(self, tail: Tail) -> bool:
        """Learn from the log's leader what was not heard here; return whether there is a log.

        Raises:
            StoreUnavailable: NATS does not answer.

        """
        last = await self._log.last(tail.subject)
        if last is not None:
            self._advance(tail, last.head, last.sequence)
        return last is not None

    def forget(self, key: Key) -> None:
        """Send the readers of a run that was removed to look again."""
        self._retire(key)
        self._signals.notify(("log", *key))

    async def _open(self, key: Key) -> Tail:
        subject = log_subject(*key)
        now = asyncio.get_running_loop().time()
        tail = Tail(key, subject, idle_since=now, look_at=now + FIRST_LOOK)

        async def hear(message: Msg) -> None:
            stored = from_replica(message.data, message.headers or {})
            if stored is None:
                self._link.foreign.skip(message.subject, 0, "no stream published it")
            last = self._link.foreign.read(Last.of, stored)
            if last is not None:
                self._advance(tail, last.head, last.sequence)

        # First listen, then look: what is stored in between is heard.
        tail.news = await self._link.subscribe(news_subject(subject), hear)
        try:
            record, last = await asyncio.gather(self._records.get(*key), self._log.last(subject))
        except BaseException:
            await unsubscribe(tail)
            raise
        if last is not None:
            self._advance(tail, last.head, last.sequence)
        tail.edge = tail.latest
        if record.life is Life.ENDED or tail.ended:
            tail.ended, tail.latest = True, max(tail.latest, record.latest)
            await unsubscribe(tail)
        else:
            self._tails[key] = tail
        return tail

    def _advance(self, tail: Tail, head: Head, sequence: int) -> None:
        if sequence <= tail.sequence:
            return
        tail.sequence = sequence
        if tail.own is not None and tail.own[0] == head:
            if tail.own[1].first == tail.edge + 1:
                tail.keep([tail.own[1]])
            tail.own = None
        grown = head.last > tail.latest
        tail.latest = max(tail.latest, head.last)
        tail.ended = tail.ended or head.outcome != 0
        if tail.ended:
            self._retire(tail.key)
        if grown or tail.ended:
            self._signals.notify(("log", *tail.key))

    def _retire(self, key: Key) -> None:
        tail = self._tails.pop(key, None)
        if tail is not None:
            self._background.spawn(unsubscribe(tail))

    @contextmanager
    def _reader(self, tail: Tail) -> Iterator[None]:
        tail.readers += 1
        try:
            yield
        finally:
            tail.readers -= 1
            tail.idle_since = asyncio.get_running_loop().time()

    def _look_soon(self) -> None:
        for tail in self._tails.values():
            tail.look_at = 0.0

    async def _look_after(self) -> None:
        while True:
            await asyncio.sleep(PERIOD)
            now = asyncio.get_running_loop().time()
            due = []
            for tail in list(self._tails.values()):
                if not tail.readers and now - tail.idle_since > LINGER:
                    self._retire(tail.key)
                elif tail.look_at <= now:
                    tail.look_at = now + LATER_LOOK
                    due.append(self._look(tail))
            for outcome in await asyncio.gather(*due, return_exceptions=True):
                if isinstance(outcome, Exception):
                    log.error("look_failed", exc_info=outcome)

    async def _look(self, tail: Tail) -> None:
        async with self._looks:
            await self._look_now(tail)

    async def _look_now(self, tail: Tail) -> None:
        with suppress(StoreUnavailable):
            if await self.look(tail):
                return
            try:
                await self._records.get(*tail.key)
            except (RunNotFound, RunExpired):
                self.forget(tail.key)


async def unsubscribe(tail: Tail) -> None:
    """Listen no more."""
    if tail.news is not None:
        with suppress(Error):
            await tail.news.unsubscribe()
