"""A lease: a claim as its holder knows it, and the marks that it writes into the log."""

from __future__ import annotations

import asyncio
import json
import uuid
from collections.abc import Mapping
from dataclasses import dataclass, field
from time import time, time_ns

from polos_service.errors import Fenced
from polos_service.store import Claim
from polos_service.store.nats.frames import Head, LogEnd, Mark, Parked
from polos_service.store.nats.inbox import InboxView
from polos_service.store.nats.items import LINE_DELIVERIES, WorkItem
from polos_service.store.nats.messages import seconds_of
from polos_service.store.nats.records import Record
from polos_service.store.nats.subjects import log_subject


@dataclass(eq=False, slots=True)
class Lease:
    """A claim that this replica holds, as far as it knows.

    Attributes:
        name: names the claim in the log.
        sequence: the stream's number for the log's last message.
        latest: the newest event.
        start: when the run's first claim began, in nanoseconds since the epoch.
        inbox: what was read of the run's inbox.
        item: the work item; None if the claim was taken past the queue.
        proven: time of the loop at which it was last seen to hold.

    """

    record: Record
    claim: Claim
    subject: str
    name: str
    sequence: int
    latest: int
    start: int
    inbox: InboxView
    item: WorkItem | None
    proven: float
    lost: bool = False
    over: bool = False
    appending: asyncio.Lock = field(default_factory=asyncio.Lock)

    def head(
        self,
        mark: Mark,
        first: int,
        last: int,
        *,
        size: int = 0,
        outcome: int = 0,
        parked: Parked | None = None,
        left: str = "",
    ) -> Head:
        """Return the head of a message that this claim writes."""
        return Head(
            first=first,
            last=last,
            epoch=self.claim.epoch,
            size=size,
            start=self.start,
            claim=self.name,
            mark=mark,
            delivery=self.item.delivery if self.item else 0,
            outcome=outcome,
            parked=parked,
            left=left,
        )


def taken(
    record: Record,
    last: LogEnd | None,
    item: WorkItem | None,
    definition: bytes,
    inbox: InboxView,
) -> Lease:
    """Return a claim on a run that begins behind the last message of its log."""
    before = last.head if last is not None else None
    claim = Claim(
        project=record.project,
        run_id=record.run_id,
        workflow_id=record.workflow_id,
        epoch=before.epoch + 1 if before else 1,
        latest=before.last if before else 0,
        create_time=record.create_time,
        deadline=record.deadline,
        definition=definition,
        commands=tuple(inbox.commands),
        parent=record.parent,
    )
    return Lease(
        record=record,
        claim=claim,
        subject=log_subject(record.project, record.run_id),
        name=uuid.uuid4().hex,
        sequence=last.sequence if last else 0,
        latest=claim.latest,
        start=before.start if before else time_ns(),
        inbox=inbox,
        item=item,
        proven=now(),
    )


def stale(item: WorkItem, last: LogEnd) -> bool:
    """Whether somebody holds the run who got its item at this delivery, or at a later one.

    So it is for a replica that was stopped when the item came, and finds it afterwards.
    """
    return last.head.held and last.head.delivery >= item.delivery


def held_past_queue(last: LogEnd, claim_timeout: float) -> bool:
    """Whether somebody holds the run without its item, and wrote not long ago."""
    age = time() - seconds_of(last.time)
    return last.head.held and not last.head.delivery and age < claim_timeout


def held_by_former(item: WorkItem, last: LogEnd) -> bool:
    """Whether somebody holds the run with another item, which a former version has queued."""
    delivery = last.head.delivery
    return last.head.held and 0 < delivery < LINE_DELIVERIES < item.delivery


def line(mark: Mapping[str, object]) -> bytes:
    """Return a mark as the journal reads it."""
    return json.dumps(mark).encode() + b"\n"


def fenced(claim: Claim) -> Fenced:
    """Return the error for a claim that was lost."""
    return Fenced(f"The claim {claim.epoch} on run {claim.run_id} was lost.")


def now() -> float:
    """Return the loop's time, in seconds."""
    return asyncio.get_running_loop().time()
