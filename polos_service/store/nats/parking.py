"""Suspended runs: parked by their holder, queued again by a command or at their time.

A run is suspended if its log ends with the mark of a park and it has no work item. So it is
parked in this order: the mark, the alarm, a look at its inbox for what has come meanwhile, and
its item is removed. Whoever gets that item before completes the order. To wake the run is to
queue it, and as a run has one item at most, it is woken once, whoever else wakes it.
"""

from __future__ import annotations

from contextlib import suppress
from dataclasses import dataclass
from typing import Self

import orjson
from pydantic import TypeAdapter

from polos_service.store.nats.frames import Head, LogEnd
from polos_service.store.nats.inbox import Inbox, InboxView
from polos_service.store.nats.jetstream import Conflict, JetStream
from polos_service.store.nats.messages import NotOurs, StoredMessage
from polos_service.store.nats.queue import Queue
from polos_service.store.nats.records import Number, Record
from polos_service.store.nats.subjects import ALARMS, alarm_subject, alarms_of


@dataclass(frozen=True, slots=True, order=True)
class Alarm:
    """When a run is woken that the claim with this epoch has suspended.

    Attributes:
        wake_at: in nanoseconds since the epoch.

    """

    wake_at: int
    project: str
    run_id: str
    epoch: int

    @classmethod
    def of(cls, message: StoredMessage) -> Self:
        """Return the alarm that a message holds; what a newer version adds behind it is ignored.

        Raises:
            ValueError: it is not one of ours.

        """
        found = orjson.loads(message.data)
        if not isinstance(found, list):
            raise NotOurs("it is not an alarm")
        alarm = cls(*MEMBERS.validate_python(tuple(found[:4]), strict=True))
        if alarm.subject != message.subject:
            raise NotOurs("it is the alarm of another run than its subject says")
        return alarm

    @property
    def subject(self) -> str:
        """Where it is kept."""
        return alarm_subject(self.project, self.run_id, self.epoch)

    def encode(self) -> bytes:
        """Return the alarm as a message's payload."""
        return orjson.dumps([self.wake_at, self.project, self.run_id, self.epoch])


MEMBERS: TypeAdapter[tuple[int, str, str, int]] = TypeAdapter(tuple[Number, str, str, Number])
"""Reads the members of an alarm's message."""


class Parking:
    """Parks runs, and wakes them."""

    def __init__(self, jetstream: JetStream, inbox: Inbox, queue: Queue) -> None:
        self._jetstream = jetstream
        self._inbox = inbox
        self._queue = queue

    async def complete(self, record: Record, head: Head) -> None:
        """Do what follows the mark of a park, which has this head; again is as once."""
        parked = head.parked
        if parked is None:
            return
        if parked.wake_at:
            alarm = Alarm(parked.wake_at, record.project, record.run_id, head.epoch)
            with suppress(Conflict):  # it is set
                await self._jetstream.put_value(
                    Alarm.of, ALARMS, alarm.subject, alarm.encode(), revision=0
                )
        view = InboxView()
        await self._inbox.look(record.project, record.run_id, view)
        if len(view.commands) > parked.seen:
            await self.wake(record, head)
        else:
            await self._queue.remove(record, only=parked.item)

    async def wake(self, record: Record, head: Head) -> None:
        """Queue a run whose log ends with this head, if it is parked."""
        if head.parked is not None:
            await self._queue.put(record, replaced=head.parked.item)

    async def forget(self, project: str, run_id: str, last: LogEnd) -> None:
        """Remove the alarm of a run that was claimed behind the mark of its park."""
        if last.head.parked is not None and last.head.parked.wake_at:
            await self._jetstream.purge(ALARMS, alarm_subject(project, run_id, last.head.epoch))

    async def remove(self, project: str, run_id: str) -> None:
        """Remove all alarms of a run."""
        await self._jetstream.purge(ALARMS, alarms_of(project, run_id))
