"""Root runs that wait for the end of others, of every replica.

Each has a message below the run that it waits for. Whoever ends that run reads them behind the
end of its log, and whoever waits looks at the log behind its own message: so one of both sees the
other. They are told before the record of the run says that it has ended, and before its work item
is acknowledged: whoever finds either tells them again.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from contextlib import suppress
from typing import Any

from polos_client.errors import RunExpired, RunNotFound
from polos_service.store import Command, end_of
from polos_service.store.nats.frames import Head
from polos_service.store.nats.jetstream import Conflict, JetStream
from polos_service.store.nats.log import Log
from polos_service.store.nats.messages import NotOurs, StoredMessage
from polos_service.store.nats.records import Life, Record, Records
from polos_service.store.nats.subjects import WATCHERS, log_subject, watcher_subject, watchers_of

Order = Callable[[str, str, Command], Awaitable[Any]]
"""Puts a command into the inbox of a root run of a project, and wakes it."""

AT_ONCE = 64
"""Watchers of a run that are told of its end at once."""


class Watchers:
    """The bucket of those who wait for the ends of runs."""

    def __init__(self, jetstream: JetStream, log: Log, records: Records, order: Order) -> None:
        self._jetstream = jetstream
        self._log = log
        self._records = records
        self._order = order

    async def watch(self, project: str, run_id: str, root: str) -> bool:
        """Have a run's end told to a root run; False if it has ended.

        Raises:
            RunExpired, RunNotFound: there is no such run.

        """
        record = await self._records.get(project, run_id)
        if record.life is not Life.OPEN:
            return False
        subject = watcher_subject(project, run_id, root)
        with suppress(Conflict):  # it waits for it already
            await self._jetstream.put_value(
                watcher_in, WATCHERS, subject, root.encode(), revision=0
            )
        last = await self._log.last(log_subject(project, run_id))
        if last is None or not last.head.outcome:
            await self._records.get(project, run_id)  # removed meanwhile?
            return True
        await self._jetstream.purge(WATCHERS, subject)
        return False

    async def any(self, project: str, run_id: str) -> bool:
        """Return whether any root run is told of a run's end."""
        return await self._jetstream.last(WATCHERS, watchers_of(project, run_id)) is not None

    async def finish(self, record: Record, head: Head) -> Record:
        """Tell those who wait that a run has ended, then write it into its record.

        Raises:
            StoreUnavailable: the record is not written; the next call tells those who are left.

        """
        every = watchers_of(record.project, record.run_id)
        while found := await self._jetstream.page_or_next(WATCHERS, every, 1, count=AT_ONCE):
            telling = (self._tell(record, message) for message in found)
            for failure in await asyncio.gather(*telling, return_exceptions=True):
                if failure is not None:
                    raise failure
        return await self._records.finish(record, head)

    async def _tell(self, record: Record, message: StoredMessage) -> None:
        """Tell one watcher that a run has ended, then forget the watcher."""
        root = self._jetstream.foreign.read(watcher_in, message)
        if root is not None:
            with suppress(RunExpired, RunNotFound):  # it was removed meanwhile
                await self._order(record.project, root, end_of(record.run_id, root))
        await self._jetstream.purge(WATCHERS, message.subject)

    async def settled(self, project: str, run_id: str) -> Record:
        """Return a run's record; if the log tells of its end, the record does then.

        Raises:
            RunExpired, RunNotFound: there is no such run.

        """
        record = await self._records.get(project, run_id)
        if record.life is Life.OPEN:
            last = await self._log.last(log_subject(project, run_id))
            if last is not None and last.head.outcome:
                return await self.finish(record, last.head)
        return record

    async def remove(self, project: str, run_id: str) -> None:
        """Remove what is left of those who waited for a run."""
        await self._jetstream.purge(WATCHERS, watchers_of(project, run_id))


def watcher_in(message: StoredMessage) -> str:
    """Return the root run that a message tells of.

    Raises:
        ValueError: it is not one of ours.

    """
    root = message.data.decode()
    if not root or "KV-Operation" in message.headers:
        raise NotOurs("it names no run")
    return root
