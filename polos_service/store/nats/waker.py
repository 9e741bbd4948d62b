"""Wakes suspended runs at their time: each replica knows all alarms, and queues what is due.

Alarms are read as they come, once a second. Where several replicas wake a run, one of them queues
it, and an alarm stays until another claim has begun. So none is lost with a replica.
"""

from __future__ import annotations

import asyncio
from collections.abc import Collection, Mapping
from time import time_ns

from polos_client.errors import StoreUnavailable
from polos_service.cancelling import cancel_until_done
from polos_service.logs import get_logger
from polos_service.store.nats.agenda import Agenda
from polos_service.store.nats.frames import LogEnd
from polos_service.store.nats.messages import SECOND, StoredMessage
from polos_service.store.nats.parking import Alarm
from polos_service.store.nats.parts import Parts
from polos_service.store.nats.records import Life
from polos_service.store.nats.subjects import ALARMS, EVERY_ALARM, log_subject, run_subject

PIECE = 200
"""Runs that are woken together."""

LOOK = 1.0
"""Seconds after which alarms that others have set are read, and the clock is looked at, in case it
was set."""

LOOK_AGAIN = 5 * SECOND
"""Nanoseconds after which a run that was woken is looked at again."""

log = get_logger(__name__)


class Waker:
    """Wakes the suspended runs of every replica, as one replica does it."""

    def __init__(self, parts: Parts) -> None:
        self._parts = parts
        self._agenda = Agenda(parts.jetstream, ALARMS, EVERY_ALARM, self._entry_of)
        self._sooner = asyncio.Event()
        self._task: asyncio.Task[None] | None = None

    def start(self) -> None:
        """Begin to wake."""
        self._task = asyncio.create_task(self._run(), name="polos-wake")

    async def close(self) -> None:
        """Wake nothing more."""
        if self._task is not None:
            await cancel_until_done({self._task})

    def look(self) -> None:
        """Take note that a run was suspended."""
        self._sooner.set()

    async def _run(self) -> None:
        while True:
            self._sooner.clear()
            try:
                more = await self._agenda.read()
                await self._wake_due()
                if more:
                    continue
            except StoreUnavailable as error:
                log.warning("wake_failed", error=str(error))
                await asyncio.sleep(LOOK)
            except Exception:
                log.exception("wake_failed")
                await asyncio.sleep(LOOK)
            try:
                async with asyncio.timeout(self._pause()):
                    await self._sooner.wait()
            except TimeoutError:
                pass

    def _pause(self) -> float:
        """Return after how many seconds the next look is due."""
        first = self._agenda.first
        return LOOK if first is None else min(LOOK, max(0.0, (first - time_ns()) / SECOND))

    async def _entry_of(self, message: StoredMessage) -> tuple[int, Alarm] | None:
        alarm = self._parts.jetstream.foreign.read(Alarm.of, message)
        return None if alarm is None else (alarm.wake_at, alarm)

    async def _wake_due(self) -> None:
        now = time_ns()
        while due := self._agenda.due(now, PIECE):
            over: set[Alarm] = set()
            try:
                over = await self._wake(due)
            finally:
                for one in due:
                    if one not in over:
                        self._agenda.add(now + LOOK_AGAIN, one)

    async def _wake(self, due: Collection[Alarm]) -> set[Alarm]:
        """Queue these runs, as far as they are parked; return the alarms that are over."""
        lasts = await self._parts.log.lasts([*{log_of(one) for one in due}])
        ends = [(one, lasts.get(log_of(one))) for one in due]
        parked = {
            one: last
            for one, last in ends
            if last is not None and last.head.parked and last.head.epoch == one.epoch
        }
        await self._queue(parked)
        over = {one for one, last in ends if await self._over(one, last)}
        await self._remove(over)
        return over

    async def _queue(self, parked: Mapping[Alarm, LogEnd]) -> None:
        subjects = [run_subject(one.project, one.run_id) for one in parked]
        records = {
            (record.project, record.run_id): record
            for record in await self._parts.records.many(subjects)
            if record.life is Life.OPEN
        }
        items = await self._parts.queue.items_of(records.values())
        wakings = []
        for one, last in parked.items():
            key = (one.project, one.run_id)
            there = items.get(key)
            # That of the park may be there still: then the park is under way, or was cut off.
            if key in records and (there is None or last.head.parked_item == there):
                wakings.append(self._parts.parking.wake(records[key], last.head))
        await asyncio.gather(*wakings)

    async def _over(self, alarm: Alarm, last: LogEnd | None) -> bool:
        """Return whether the run goes on, or is gone.

        A log that ends before the park is one of a replica of the stream that is behind.
        """
        if last is None:
            return not await self._parts.records.open(alarm.project, alarm.run_id)
        return last.head.epoch > alarm.epoch or bool(last.head.outcome)

    async def _remove(self, alarms: Collection[Alarm]) -> None:
        """Remove alarms that are over, unless whoever went on has done so."""
        subjects = [one.subject for one in alarms]
        async for message in self._parts.jetstream.lasts(ALARMS, subjects):
            await self._parts.jetstream.purge(ALARMS, message.subject)


def log_of(alarm: Alarm) -> str:
    """Return the subject of the log of an alarm's run."""
    return log_subject(alarm.project, alarm.run_id)
