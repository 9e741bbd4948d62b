"""What is known of a run besides its log: its record, definition, request id and inbox.

A record is written when the run is created, when it has ended, and when it is removed.
Whether an open run is queued, held or ended, only its log tells.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterable
from contextlib import suppress
from dataclasses import asdict, dataclass, replace
from enum import StrEnum
from typing import Any, Self

import orjson

from polos_client.errors import StoreUnavailable
from polos_service.store import NewRun
from polos_service.store.nats.link import Conflict, Link
from polos_service.store.nats.stored import Stored
from polos_service.store.nats.subjects import (
    COMMANDS,
    DEFINITIONS,
    REQUESTS,
    RUNS,
    definition_subject,
    definition_subjects,
    inbox_subject,
    request_subject,
    run_subject,
)
from polos_service.store.refusals import expired, not_found, reused

LOOKS, LOOK_PAUSE = 3, 1.0
"""Looks for a record, and seconds between two, until it is believed that there is none."""

PIECE = 512 * 1024
"""Bytes of a definition in one message: NATS takes 1 MiB at most by default."""


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
    pieces: int
    session_id: str | None
    user_id: str | None
    streaming: bool
    create_time: int
    deadline: int | None
    life: Life = Life.OPEN
    outcome: int = 0
    latest: int = 0
    start_time: int | None = None
    finish_time: int | None = None
    revision: int = 0

    @classmethod
    def of(cls, message: Stored) -> Self:
        """Return the record that a message holds."""
        fields: dict[str, Any] = orjson.loads(message.data)
        fields["life"] = Life(fields["life"])
        return cls(**fields, revision=message.sequence)

    def encode(self) -> bytes:
        """Return the record as a message's payload."""
        fields = asdict(self)
        del fields["revision"]
        return orjson.dumps(fields)


class Records:
    """The buckets of records, definitions, request ids and commands."""

    def __init__(self, link: Link) -> None:
        self._link = link

    async def reserve(self, run: NewRun) -> str:
        """Return the id of the run that this request id makes, or has made.

        Raises:
            RequestIdReused: it made a run of another payload.

        """
        if run.request_id is None:
            return run.run_id
        subject = request_subject(run.project, run.request_id)
        mine = orjson.dumps({"run_id": run.run_id, "digest": run.digest.hex()})
        try:
            await self._put(REQUESTS, subject, mine, 0)
        except Conflict as conflict:
            made = orjson.loads(there(conflict).data)
            if made["digest"] != run.digest.hex():
                raise reused(run.request_id, made["run_id"]) from None
            return str(made["run_id"])
        return run.run_id

    async def reserved(self, run: NewRun) -> bool:
        """Return whether this run's request id made a run before."""
        if run.request_id is None:
            return False
        subject = request_subject(run.project, run.request_id)
        return await self._link.last(REQUESTS, subject) is not None

    async def create(self, run: NewRun) -> Record:
        """Store definition and record; return the record that there is then."""
        data = run.definition
        pieces = [data[start : start + PIECE] for start in range(0, len(data), PIECE)]
        for number, piece in enumerate(pieces):
            subject = definition_subject(run.project, run.run_id, number)
            with suppress(Conflict):  # a repeated start changes nothing
                await self._put(DEFINITIONS, subject, piece, 0)
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
        )
        try:
            return await self.write(record)
        except Conflict as conflict:
            return Record.of(there(conflict))

    async def write(self, record: Record) -> Record:
        """Replace the record that has this one's revision.

        Raises:
            Conflict: there is another one by now.

        """
        subject = run_subject(record.project, record.run_id)
        revision = await self._put(RUNS, subject, record.encode(), record.revision)
        return replace(record, revision=revision)

    async def find(self, project: str, run_id: str) -> Record | None:
        """Return the record, whatever its life; None if there is none."""
        message = await self._link.last(RUNS, run_subject(project, run_id))
        return None if message is None else Record.of(message)

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
        if not subjects:
            return []
        found = await self._link.batch(RUNS, {"multi_last": subjects, "batch": len(subjects)})
        return [Record.of(message) for message in found]

    async def definition(self, record: Record) -> bytes:
        """Return what the run was created with.

        Raises:
            StoreUnavailable: a piece of it is not there.

        """
        pieces = []
        for number in range(record.pieces):
            subject = definition_subject(record.project, record.run_id, number)
            message = await self._link.last(DEFINITIONS, subject)
            if message is None:  # removed meanwhile, or asked of a leader that is one no more
                raise StoreUnavailable(
                    f"NATS lacks piece {number} of the definition of run {record.run_id}."
                )
            pieces.append(message.data)
        return b"".join(pieces)

    async def commands(self, project: str, run_id: str) -> frozenset[str]:
        """Return what the run's inbox holds."""
        message = await self._link.last(COMMANDS, inbox_subject(project, run_id))
        return commands_in(message)

    async def command(self, project: str, run_id: str, kind: str) -> None:
        """Put a command into the run's inbox, once."""
        subject = inbox_subject(project, run_id)
        message = await self._link.last(COMMANDS, subject)
        while kind not in (held := commands_in(message)):
            revision = 0 if message is None else message.sequence
            try:
                await self._put(COMMANDS, subject, orjson.dumps(sorted(held | {kind})), revision)
            except Conflict as conflict:
                message = conflict.last
            else:
                return

    async def strip(self, record: Record) -> None:
        """Remove all but the record and the request id."""
        project, run_id = record.project, record.run_id
        await self._link.purge(DEFINITIONS, definition_subjects(project, run_id))
        await self._link.purge(COMMANDS, inbox_subject(project, run_id))

    async def drop(self, record: Record) -> None:
        """Remove the request id, unless it has made another run by now, then the record."""
        if record.request_id is not None:
            subject = request_subject(record.project, record.request_id)
            made = await self._link.last(REQUESTS, subject)
            if made is not None and orjson.loads(made.data)["run_id"] == record.run_id:
                await self._link.purge(REQUESTS, subject, made.sequence)
        await self._link.purge(RUNS, run_subject(record.project, record.run_id))

    async def _put(self, bucket: str, subject: str, payload: bytes, revision: int) -> int:
        return await self._link.put(
            bucket, subject, payload, expected=revision, same=lambda last: last.data == payload
        )


def there(conflict: Conflict) -> Stored:
    """Return what stands where nothing was expected."""
    if conflict.last is None:
        raise conflict
    return conflict.last


def commands_in(message: Stored | None) -> frozenset[str]:
    """Return the commands that an inbox's message holds."""
    found: Iterable[str] = () if message is None else orjson.loads(message.data)
    return frozenset(found)
