"""What the buckets hold, as values: records, reservations of request ids, pieces, inboxes.

Each `of` raises ValueError for a message that is not one of ours.
"""

from __future__ import annotations

import hashlib
from dataclasses import asdict, dataclass, replace
from enum import StrEnum
from typing import Annotated

import orjson
from pydantic import Field, TypeAdapter

from polos_service.store import ENDED
from polos_service.store.nats.foreign import NotOurs
from polos_service.store.nats.stored import Stored
from polos_service.store.nats.subjects import run_subject

Number = Annotated[int, Field(ge=0, lt=1 << 63)]
"""A count, a sequence, or nanoseconds since the epoch: what protobuf's int64 holds."""

PIECE_SUM = "Polos-Piece"
"""The header of a definition's piece: its SHA-256, as hex. Pieces of older versions have none."""


class Life(StrEnum):
    """How far a record is."""

    OPEN = "open"
    ENDED = "ended"
    DELETING = "deleting"
    EXPIRING = "expiring"
    EXPIRED = "expired"


REMOVED = frozenset({Life.EXPIRING, Life.EXPIRED})


@dataclass(frozen=True, kw_only=True, slots=True)
class Record:
    """A run's record. Times are nanoseconds since the epoch.

    Attributes:
        digest: of the request's payload, as hex.
        pieces: how many messages hold the definition.
        life: how far it is.
        outcome: the state that the run ended in; 0 if it is open.
        latest: the terminal event's sequence; 0 if it is open.
        revision: the bucket's sequence for this record; not stored.

    """

    project: str
    run_id: str
    workflow_id: str
    request_id: str | None
    digest: str
    pieces: Number
    session_id: str | None
    user_id: str | None
    streaming: bool
    create_time: Number
    deadline: Number | None
    life: Life = Life.OPEN
    outcome: Number = 0
    latest: Number = 0
    start_time: Number | None = None
    finish_time: Number | None = None
    revision: int = 0

    @classmethod
    def of(cls, message: Stored) -> Record:
        """Return the record that a message holds; fields that a newer version added are ignored."""
        record = RECORD.validate_json(message.data, strict=True)
        if run_subject(record.project, record.run_id) != message.subject:
            raise NotOurs("it is the record of another run than its subject says")
        if record.life is Life.ENDED and not (record.outcome in ENDED and record.finish_time):
            raise NotOurs("it is the record of a run that ended, without how or when")
        return replace(record, revision=message.sequence)

    def encode(self) -> bytes:
        """Return the record as a message's payload."""
        fields = asdict(self)
        del fields["revision"]
        return orjson.dumps(fields)


@dataclass(frozen=True, kw_only=True, slots=True)
class Reservation:
    """Which run a request id made. `digest` is of the request's payload, as hex."""

    run_id: str
    digest: str

    @classmethod
    def of(cls, message: Stored) -> Reservation:
        """Return the reservation that a message holds."""
        return RESERVATION.validate_json(message.data, strict=True)

    def encode(self) -> bytes:
        """Return the reservation as a message's payload."""
        return orjson.dumps(asdict(self))


RECORD = TypeAdapter(Record)
RESERVATION = TypeAdapter(Reservation)
INBOX = TypeAdapter(list[str])


def inbox_of(message: Stored) -> frozenset[str]:
    """Return the commands that an inbox's message holds."""
    return frozenset(INBOX.validate_json(message.data, strict=True))


def piece_headers(piece: bytes) -> dict[str, str]:
    """Return the headers that a piece of a definition is stored with."""
    return {PIECE_SUM: hashlib.sha256(piece).hexdigest()}


def piece_of(message: Stored) -> bytes:
    """Return the piece of a definition that a message holds."""
    if not message.data or "KV-Operation" in message.headers:
        raise NotOurs("it is a definition's piece without content")
    if message.headers.get(PIECE_SUM) not in (None, piece_headers(message.data)[PIECE_SUM]):
        raise NotOurs("it is a definition's piece with a wrong checksum")
    return message.data
