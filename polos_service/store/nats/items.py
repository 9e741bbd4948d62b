"""Work items: what a message of the queue says, and one that was given to this replica."""

from __future__ import annotations

from dataclasses import dataclass

import orjson
from nats.aio.msg import Msg
from pydantic import TypeAdapter

from polos_service.store.nats.lines import WORK_TOKENS, Line
from polos_service.store.nats.messages import NotOurs, StoredMessage
from polos_service.store.nats.records import Number
from polos_service.store.nats.subjects import token

ACK = "$JS.ACK."
"""How the subject begins on which a delivered item is answered."""

ACK_TOKENS = 9
"""Tokens of that subject, if it names no domain."""

LINE_DELIVERIES = 1_000_000_000
"""What is added to the deliveries of an item of a line that is not shared with former versions.
These may queue the same run once more, and take it from its holder if their own item was delivered
more often than the holder's."""


@dataclass(frozen=True, slots=True)
class Queued:
    """What a message of the queue says: a run that has not ended, and its deadline, if any."""

    project: str
    run_id: str
    deadline: int | None

    @classmethod
    def of(cls, message: StoredMessage | Msg) -> Queued:
        """Return what a message says; what a newer version adds behind it is ignored."""
        found = orjson.loads(message.data)
        if not isinstance(found, list):
            raise NotOurs("it is not a work item")
        project, run_id, deadline = QUEUED.validate_python(tuple(found[:3]), strict=True)
        tokens = message.subject.split(".")
        if len(tokens) != WORK_TOKENS or tokens[3:] != [token(project), token(run_id)]:
            raise NotOurs("it is the work item of another run than its subject says")
        return cls(project, run_id, deadline)


QUEUED: TypeAdapter[tuple[str, str, int | None]] = TypeAdapter(tuple[str, str, Number | None])
"""Reads the members of a message of the queue."""


@dataclass(frozen=True, slots=True)
class WorkItem:
    """A run that JetStream has given to this replica, until it falls silent.

    Attributes:
        sequence: the queue's for its message.
        delivery: how often it was given to somebody, this time included; in a line that is not
            shared with former versions, LINE_DELIVERIES more.

    """

    project: str
    run_id: str
    line: Line
    reply: str
    sequence: int
    delivery: int

    @classmethod
    def of(cls, message: Msg) -> WorkItem:
        """Return the item that JetStream delivered.

        Raises:
            ValueError: it is not one of ours.

        """
        _, deliveries, sequence = acknowledged(message.reply)
        queued = Queued.of(message)
        line = Line.of(message.subject)
        delivery = deliveries + (0 if line.shared else LINE_DELIVERIES)
        return cls(queued.project, queued.run_id, line, message.reply, sequence, delivery)

    @property
    def stray(self) -> bool:
        """Whether a former version has queued it: in the line of another project."""
        return token(self.project) != self.line.project


def acknowledged(reply: str) -> tuple[str, int, int]:
    """Return what the subject names on which an item is answered.

    That is the consumer, how often it was delivered, and the queue's sequence for it.

    Raises:
        ValueError: it is not such a subject.

    """
    parts = reply.split(".")
    if len(parts) < ACK_TOKENS:
        raise NotOurs("it was not delivered by JetStream")
    # Behind $JS.ACK a server may name its domain and account.
    at = 3 if len(parts) == ACK_TOKENS else 5
    return parts[at], int(parts[at + 1]), int(parts[at + 2])
