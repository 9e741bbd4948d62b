"""The parts of a store that its replica needs for all runs."""

from __future__ import annotations

from dataclasses import dataclass

from polos_service.store.nats.inbox import Inbox
from polos_service.store.nats.jetstream import JetStream
from polos_service.store.nats.log import Log
from polos_service.store.nats.parking import Parking
from polos_service.store.nats.queue import Queue
from polos_service.store.nats.records import Records
from polos_service.store.nats.waits import WaitIndex
from polos_service.store.nats.watching import Watchers


@dataclass(frozen=True, kw_only=True, slots=True)
class Parts:
    """What a replica keeps all runs of the store with, those of other replicas included."""

    jetstream: JetStream
    log: Log
    records: Records
    inbox: Inbox
    queue: Queue
    parking: Parking
    waits: WaitIndex
    watchers: Watchers
