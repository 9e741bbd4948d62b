"""What is known of a run besides its log: its record, its definition and its request id.

A record is written when the run is created, when it has ended, and when it is removed.
Whether an open run is queued, held or ended, only its log tells. Each `of` raises ValueError
for a message that is not one of ours.
"""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import Callable
from contextlib import suppress
from dataclasses import asdict, dataclass, replace
from dataclasses import fields as members_of
from enum import StrEnum
from time import time_ns
from typing import Annotated, TypeVar

import orjson
from pydantic import Field, TypeAdapter

from polos_client.errors import StoreUnavailable
from polos_service.store import ENDED, NewRun, Parent
from polos_service.store.nats.frames import Head
from polos_service.store.nats.jetstream import Conflict, JetStream
from polos_service.store.nats.messages import NotOurs, StoredMessage
from polos_service.store.nats.subjects import (
    DEFINITIONS,
    REQUESTS,
    RUNS,
    definition_subject,
    definition_subjects,
    request_subject,
    run_subject,
    step_subject,
    steps_of,
)
from polos_service.store.refusals import expired, not_found, reused

T = TypeVar("T")

Number = Annotated[int, Field(ge=0, lt=1 << 63)]
"""A count, a sequence, or nanoseconds since the epoch: what protobuf's int64 holds."""

LOOKS = 3
"""Looks for a record until it is believed that there is none."""

LOOK_PAUSE = 1.0
"""Seconds between two looks for a record."""

PIECE = 200
"""Messages that one request brings."""

PIECE_BYTES = 512 * 1024
"""Bytes of a definition in one message: NATS takes 1 MiB at most by default."""

PIECE_SUM = "Polos-Piece"
"""The header of a definition's piece: its SHA-256, as hex. Pieces of older versions have none."""


class DefinitionLost(StoreUnavailable):
    """A piece of a run's definition is not there, or not what was stored."""


class Life(StrEnum):
    """How far a record is."""

    OPEN = "open"
    ENDED = "ended"
    DELETING = "deleting"
    EXPIRING = "expiring"
    EXPIRED = "expired"


REMOVED = frozenset({Life.EXPIRING, Life.EXPIRED})
"""The lives of a run that retention removes, or has removed."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Record:
    """A run's record. Times are nanoseconds since the epoch.

    Attributes:
        digest: of the request's payload, as hex.
        pieces: how many messages hold the definition.
        life: how far it is.
        outcome: the state that the run ended in; 0 if it is open.
        latest: the terminal event's sequence; 0 if it is open.
        parent: the step that has started it; None if a caller has.
        input_preview: the beginning of its input; empty if lists do not show it.
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
    parent: Parent | None = None
    input_preview: str = ""
    revision: int = 0

    @classmethod
    def of(cls, message: StoredMessage) -> Record:
        """Return the record that a message holds; fields that a newer version added are ignored."""
        record = RECORD.validate_json(message.data, strict=True)
        if run_subject(record.project, record.run_id) != message.subject:
            raise NotOurs("it is the record of another run than its subject says")
        if record.life is Life.ENDED and not (record.outcome in ENDED and record.finish_time):
            raise NotOurs("it is the record of a run that ended, without how or when")
        digest, _, added = record.digest.partition(" ")
        if added:
            told = ADDED.validate_json(added, strict=True)
            record = replace(
                record, digest=digest, parent=told.parent, input_preview=told.input_preview
            )
        return replace(record, revision=message.sequence)

    def encode(self) -> bytes:
        """Return the record as a message's payload."""
        fields = asdict(self)
        del fields["revision"]
        added = {one.name: fields.pop(one.name) for one in members_of(Added)}
        if any(added.values()):
            fields["digest"] += f" {orjson.dumps(added).decode()}"
        return orjson.dumps(fields)


@dataclass(frozen=True, kw_only=True, slots=True)
class Added:
    """What a record has that 0.1.0 does not know; see `Record`.

    It is stored as JSON behind the digest and a space: 0.1.0 reads no record with a member that it
    does not know, and copies the digest unread when it writes the record again.
    """

    parent: Parent | None = None
    input_preview: str = ""


@dataclass(frozen=True, kw_only=True, slots=True)
class Reservation:
    """Which run a request id or a step made. `digest` is of the request's payload, as hex."""

    run_id: str
    digest: str

    @classmethod
    def of(cls, message: StoredMessage) -> Reservation:
        """Return the reservation that a message holds."""
        return RESERVATION.validate_json(message.data, strict=True)

    def encode(self) -> bytes:
        """Return the reservation as a message's payload."""
        return orjson.dumps(asdict(self))


RECORD = TypeAdapter(Record)
"""Reads records."""

ADDED = TypeAdapter(Added)
"""Reads what is behind the digests of records."""

RESERVATION = TypeAdapter(Reservation)
"""Reads reservations."""


class Records:
    """The buckets of records, definitions and request ids."""

    def __init__(self, jetstream: JetStream) -> None:
        self._jetstream = jetstream

    async def reserve(self, run: NewRun) -> str:
        """Return the id of the run that this request id or step makes, or has made.

        Raises:
            RequestIdReused: it made a run of another payload.

        """
        subject = reservation_subject(run)
        if subject is None:
            return run.run_id
        mine = Reservation(run_id=run.run_id, digest=run.digest.hex())
        try:
            await self._jetstream.put_value(
                Reservation.of, REQUESTS, subject, mine.encode(), revision=0
            )
        except Conflict as conflict:
            made = self._there(Reservation.of, conflict)
            if made.digest != mine.digest:
                raise reused(run, made.run_id) from None
            return made.run_id
        return run.run_id

    async def reserved(self, run: NewRun) -> bool:
        """Return whether this run's request id or step made a run before."""
        subject = reservation_subject(run)
        if subject is None:
            return False
        return await self._jetstream.value(Reservation.of, REQUESTS, subject) is not None

    async def started_by(self, project: str, root: str) -> list[str]:
        """Return the ids of the runs that were started by the steps in the log of a root run."""
        subjects = await self._jetstream.subjects(REQUESTS, steps_of(project, root))
        found: list[str] = []
        for start in range(0, len(subjects), PIECE):
            piece = subjects[start : start + PIECE]
            async for message in self._jetstream.lasts(REQUESTS, piece):
                made = self._jetstream.foreign.read(Reservation.of, message)
                if made is not None:
                    found.append(made.run_id)
        return found

    async def create(self, run: NewRun) -> Record:
        """Store definition and record; return the record that there is then."""
        data = run.definition
        pieces = [data[start : start + PIECE_BYTES] for start in range(0, len(data), PIECE_BYTES)]
        for number, piece in enumerate(pieces):
            subject = definition_subject(run.project, run.run_id, number)
            with suppress(Conflict):  # a repeated start changes nothing
                await self._jetstream.put_value(
                    piece_of,
                    DEFINITIONS,
                    subject,
                    piece,
                    revision=0,
                    headers={PIECE_SUM: hashlib.sha256(piece).hexdigest()},
                )
        record = Record(
            project=run.project,
            run_id=run.run_id,
            workflow_id=run.workflow_id,
            request_id=run.request_id,
            digest=run.digest.hex(),
            pieces=len(pieces),
            session_id=run.session_id,
            user_id=run.user_id,
            streaming=run.streaming,
            create_time=run.create_time,
            deadline=run.deadline,
            parent=run.parent,
            input_preview=run.input_preview,
        )
        try:
            return await self.write(record)
        except Conflict as conflict:
            return self._there(Record.of, conflict)

    async def write(self, record: Record) -> Record:
        """Replace the record that has this one's revision.

        Raises:
            Conflict: there is another one by now.

        """
        subject = run_subject(record.project, record.run_id)
        revision = await self._jetstream.put_value(
            Record.of, RUNS, subject, record.encode(), revision=record.revision
        )
        return replace(record, revision=revision)

    async def set_deadline(self, record: Record, deadline: int | None) -> Record:
        """Give an open run another deadline, and return its record."""
        while record.deadline != deadline and record.life is Life.OPEN:
            try:
                record = await self.write(replace(record, deadline=deadline))
            except Conflict as conflict:
                record = self._there(Record.of, conflict)
        return record

    async def finish(self, record: Record, head: Head) -> Record:
        """Write into an open run's record what the last head of its log says: it has ended."""
        ended = replace(
            record,
            life=Life.ENDED,
            outcome=head.outcome,
            latest=head.last,
            start_time=head.start,
            finish_time=time_ns(),
        )
        try:
            return await self.write(ended)
        except Conflict as conflict:
            return self._jetstream.foreign.read(Record.of, conflict.last) or ended

    async def find(self, project: str, run_id: str) -> Record | None:
        """Return the record, whatever its life; None if there is none."""
        return await self._jetstream.value(Record.of, RUNS, run_subject(project, run_id))

    async def sought(self, project: str, run_id: str) -> Record | None:
        """Find the record, and believe only after a while that there is none.

        A leader that was stopped, and does not know yet that there is another, may say so.
        """
        for _ in range(LOOKS - 1):
            record = await self.find(project, run_id)
            if record is not None:
                return record
            await asyncio.sleep(LOOK_PAUSE)
        return await self.find(project, run_id)

    async def open(self, project: str, run_id: str) -> bool:
        """Return whether there is the run, and its record does not say that it has ended."""
        record = await self.find(project, run_id)
        return record is not None and record.life is Life.OPEN

    async def get(self, project: str, run_id: str) -> Record:
        """Return the record of a run that is open or has ended.

        Raises:
            RunExpired: it was removed by `expire`.
            RunNotFound: there is no such run.

        """
        record = await self.find(project, run_id)
        if record is None or record.life is Life.DELETING:
            raise not_found(run_id)
        if record.life in REMOVED:
            raise expired(run_id)
        return record

    async def many(self, subjects: list[str]) -> list[Record]:
        """Return the records under these subjects that there are, from any replica."""
        found = [
            self._jetstream.foreign.read(Record.of, message)
            async for message in self._jetstream.lasts(RUNS, subjects)
        ]
        return [record for record in found if record is not None]

    async def definition(self, record: Record) -> bytes:
        """Return what the run was created with.

        Raises:
            DefinitionLost: a piece of it is not there.

        """
        pieces = []
        for number in range(record.pieces):
            subject = definition_subject(record.project, record.run_id, number)
            piece = await self._jetstream.value(piece_of, DEFINITIONS, subject)
            if piece is None:  # removed meanwhile, or asked of a leader that is one no more
                raise DefinitionLost(
                    f"NATS lacks piece {number} of the definition of run {record.run_id}. "
                    "Restore the bucket, or cancel the run."
                )
            pieces.append(piece)
        return b"".join(pieces)

    async def strip(self, record: Record) -> None:
        """Remove the definition."""
        subjects = definition_subjects(record.project, record.run_id)
        await self._jetstream.purge(DEFINITIONS, subjects)

    async def drop(self, record: Record) -> None:
        """Remove what made the run, unless it has made another one by now, then the record."""
        subject = reservation_subject(record)
        if subject is not None:
            message = await self._jetstream.last(REQUESTS, subject)
            made = self._jetstream.foreign.read(Reservation.of, message)
            if message is not None and made is not None and made.run_id == record.run_id:
                await self._jetstream.purge(REQUESTS, subject, message.sequence)
        await self._jetstream.purge(RUNS, run_subject(record.project, record.run_id))

    def _there(self, decode: Callable[[StoredMessage], T], conflict: Conflict) -> T:
        """Return what stands where nothing was expected."""
        found = self._jetstream.foreign.read(decode, conflict.last)
        if found is None:
            raise conflict
        return found


def reservation_subject(run: NewRun | Record) -> str | None:
    """Return where it is kept that a request id or a step made this run; None if none did."""
    if run.parent is not None:
        return step_subject(run.project, run.parent)
    return None if run.request_id is None else request_subject(run.project, run.request_id)


def piece_of(message: StoredMessage) -> bytes:
    """Return the piece of a definition that a message holds."""
    if not message.data or "KV-Operation" in message.headers:
        raise NotOurs("it is a definition's piece without content")
    if message.headers.get(PIECE_SUM) not in (None, hashlib.sha256(message.data).hexdigest()):
        raise NotOurs("it is a definition's piece with a wrong checksum")
    return message.data
