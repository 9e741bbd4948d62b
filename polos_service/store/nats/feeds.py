"""The logs that readers of this replica follow: one feed for each, however many read it.

A feed hears of each message that JetStream stored, as the stream republishes their heads. So
a reader that is up to date makes no request, and new frames are read once for all readers.
The log's last message shows what a feed has missed, after a reconnect for example.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass, field

from nats.aio.msg import Msg
from nats.aio.subscription import Subscription
from nats.errors import Error

from polos_client.errors import RunExpired, RunNotFound, StoreUnavailable
from polos_service.cancelling import cancel_until_done
from polos_service.logs import get_logger
from polos_service.store import Frame, Key
from polos_service.store.nats.frames import Head, LogEnd
from polos_service.store.nats.jetstream import JetStream
from polos_service.store.nats.log import Log
from polos_service.store.nats.messages import from_replica
from polos_service.store.nats.records import Life, Records
from polos_service.store.nats.shielded import ShieldedTasks
from polos_service.store.nats.subjects import log_subject, news_subject
from polos_service.store.wakeups import Wakeups

log = get_logger(__name__)

KEPT = 256 * 1024
"""Bytes of the newest frames that a feed keeps; it always keeps the last frame."""

LINGER = 20.0
"""Seconds for which a feed without readers is kept: longer than a reader pauses between calls."""

FIRST_LOOK = 1.0
"""Seconds after which a new feed is first checked for messages that it missed."""

LATER_LOOK = 15.0
"""Seconds between any two further checks of a feed."""

LOOKS = 64
"""Checks that may be under way at a time: after a reconnect every feed has one due."""

PERIOD = 0.5
"""Seconds between two rounds through the feeds."""


@dataclass(eq=False, slots=True)
class Feed:
    """What is known of the end of a log.

    Attributes:
        key: the run.
        subject: the subject of the run's log.
        sequence: the stream's number for the log's last message.
        latest: sequence of the newest event.
        edge: sequence of the newest event when the feed began, or of the last one whose frame
            was kept since; a reader before it is replaying.
        ended: whether the log has its terminal event.
        recent: the newest frames, without a gap.
        size: bytes of these frames.
        own: the frame that this replica is appending: its news may come before its acknowledgement.
        readers: how many are waiting.
        idle_since: when the last reader left, in the loop's time.
        look_at: when the feed is checked next, in the loop's time.
        reading: held while the frames behind `edge` are read.
        news: the subscription to the log's news; None before it begins.

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
        """Return the frames behind a cursor, if the first of them is among the recent ones.

        They have `limit` bytes at most, and what of the last frame goes beyond that.
        """
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
        """Keep frames that were just read or written; those before a gap are dropped."""
        for frame in frames:
            if self.recent and frame.first != self.recent[-1].last + 1:
                self.recent.clear()
                self.size = 0
            self.recent.append(frame)
            self.size += len(frame.data)
            self.edge = frame.last
        while self.size > KEPT and len(self.recent) > 1:
            self.size -= len(self.recent.popleft().data)


class Feeds:
    """The feeds of a replica."""

    def __init__(
        self,
        jetstream: JetStream,
        log: Log,
        records: Records,
        wakeups: Wakeups,
        tasks: ShieldedTasks,
    ) -> None:
        self._jetstream = jetstream
        self._log = log
        self._records = records
        self._wakeups = wakeups
        self._tasks = tasks
        self._feeds: dict[Key, Feed] = {}
        self._opening: dict[Key, asyncio.Task[Feed]] = {}
        self._looks = asyncio.Semaphore(LOOKS)
        self._round: asyncio.Task[None] | None = None

    def start(self) -> None:
        """Check feeds, and retire those without readers, from now on."""
        self._round = asyncio.create_task(self._maintain(), name="polos-feeds")
        self._jetstream.on_return(self._look_soon)

    async def close(self) -> None:
        """Stop checking and retiring feeds."""
        if self._round is not None:
            await cancel_until_done({self._round})

    async def of(self, project: str, run_id: str) -> Feed:
        """Return the feed of a run; one of a run that has ended does not stay.

        Raises:
            RunExpired: it was removed by `expire`.
            RunNotFound: there is no such run.
            StoreUnavailable: NATS does not answer.

        """
        key = (project, run_id)
        feed = self._feeds.get(key)
        if feed is not None:
            return feed
        opening = self._opening.get(key)
        if opening is None:
            opening = self._opening[key] = self._tasks.begin(self._open(key))
            opening.add_done_callback(lambda _: self._opening.pop(key))
        return await asyncio.shield(opening)

    async def read(self, feed: Feed, after: int, limit: int) -> list[Frame]:
        """Return frames behind a cursor; the newest are read once for all readers.

        They have `limit` bytes at most, and what of the last frame goes beyond that.

        Raises:
            StoreUnavailable: NATS does not answer.

        """
        found = feed.after(after, limit)
        if found:
            return found
        if after < feed.edge:
            return await self._log.read(feed.subject, after, limit)
        async with feed.reading:
            found = feed.after(after, limit)
            if not found:
                found = await self._log.read(feed.subject, after, limit)
                feed.keep(found)
            return found

    async def wait(self, feed: Feed, after: int) -> None:
        """Wait for an event behind a cursor, or until the feed is retired."""
        feed.readers += 1
        try:
            while feed.latest <= after and self._feeds.get(feed.key) is feed:
                event = self._wakeups.event(("log", *feed.key))
                await event.wait()
        finally:
            feed.readers -= 1
            feed.idle_since = asyncio.get_running_loop().time()

    def follow(self, key: Key, wake: Callable[[], None]) -> Callable[[], None]:
        """Have `wake` called at the news of a log, whose feed stays meanwhile."""
        return self._wakeups.follow(("log", *key), wake)

    def writing(self, key: Key, head: Head, frame: Frame) -> None:
        """Remember a frame that this replica is about to append."""
        feed = self._feeds.get(key)
        if feed is not None:
            feed.own = (head, frame)

    def written(self, key: Key, head: Head, sequence: int) -> None:
        """Let readers know of a frame that this replica has appended."""
        feed = self._feeds.get(key)
        if feed is not None:
            self._advance(feed, head, sequence)

    async def look(self, feed: Feed) -> bool:
        """Learn from the log's leader what was not heard here; return whether there is a log.

        Raises:
            StoreUnavailable: NATS does not answer.

        """
        last = await self._log.last(feed.subject)
        if last is not None:
            self._advance(feed, last.head, last.sequence)
        return last is not None

    def forget(self, key: Key) -> None:
        """Make the readers of a run that was removed look again."""
        self._retire(key)
        self._wakeups.notify(("log", *key))

    async def _open(self, key: Key) -> Feed:
        subject = log_subject(*key)
        now = asyncio.get_running_loop().time()
        feed = Feed(key, subject, idle_since=now, look_at=now + FIRST_LOOK)

        async def hear(message: Msg) -> None:
            stored = from_replica(message.data, message.headers or {})
            if stored is None:
                self._jetstream.foreign.skip(message.subject, 0, "no stream published it")
            last = self._jetstream.foreign.read(LogEnd.of, stored)
            if last is not None:
                self._advance(feed, last.head, last.sequence)

        # First listen, then look: what is stored in between is heard.
        feed.news = await self._jetstream.subscribe(news_subject(subject), hear)
        try:
            record, last = await asyncio.gather(self._records.get(*key), self._log.last(subject))
        except BaseException:
            await unsubscribe(feed)
            raise
        if last is not None:
            self._advance(feed, last.head, last.sequence)
        feed.edge = feed.latest
        if record.life is Life.ENDED or feed.ended:
            feed.ended, feed.latest = True, max(feed.latest, record.latest)
            await unsubscribe(feed)
        else:
            self._feeds[key] = feed
        return feed

    def _advance(self, feed: Feed, head: Head, sequence: int) -> None:
        if sequence <= feed.sequence:
            return
        feed.sequence = sequence
        if feed.own is not None and feed.own[0] == head:
            if feed.own[1].first == feed.edge + 1:
                feed.keep([feed.own[1]])
            feed.own = None
        grown = head.last > feed.latest
        feed.latest = max(feed.latest, head.last)
        feed.ended = feed.ended or head.outcome != 0
        if feed.ended:
            self._retire(feed.key)
        if grown or feed.ended:
            self._wakeups.notify(("log", *feed.key))

    def _retire(self, key: Key) -> None:
        feed = self._feeds.pop(key, None)
        if feed is not None:
            self._tasks.spawn(unsubscribe(feed))

    def _look_soon(self) -> None:
        for feed in self._feeds.values():
            feed.look_at = 0.0

    async def _maintain(self) -> None:
        while True:
            await asyncio.sleep(PERIOD)
            now = asyncio.get_running_loop().time()
            due = []
            for feed in list(self._feeds.values()):
                if feed.readers or self._wakeups.followed(("log", *feed.key)):
                    feed.idle_since = now
                if now - feed.idle_since > LINGER:
                    self._retire(feed.key)
                elif feed.look_at <= now:
                    feed.look_at = now + LATER_LOOK
                    due.append(self._look(feed))
            for outcome in await asyncio.gather(*due, return_exceptions=True):
                if isinstance(outcome, Exception):
                    log.error("look_failed", exc_info=outcome)

    async def _look(self, feed: Feed) -> None:
        """Check a feed; forget it if its run was removed."""
        async with self._looks:
            with suppress(StoreUnavailable):
                if await self.look(feed):
                    return
                try:
                    await self._records.get(*feed.key)
                except (RunNotFound, RunExpired):
                    self.forget(feed.key)


async def unsubscribe(feed: Feed) -> None:
    """End a feed's subscription."""
    if feed.news is not None:
        with suppress(Error):
            await feed.news.unsubscribe()
