"""What is known of a run besides its log: its record, definition, request id and inbox.

A record is written when the run is created, when it has ended, and when it is removed.
Whether an open run is queued, held or ended, only its log tells.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import replace
from typing import TypeVar

import orjson

from polos_client.errors import StoreUnavailable
from polos_service.store import Command, NewRun
from polos_service.store.nats.link import Conflict, Link
from polos_service.store.nats.record import (
    REMOVED,
    Life,
    Record,
    Reservation,
    inbox_of,
    piece_headers,
    piece_of,
)
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

T = TypeVar("T")

LOOKS, LOOK_PAUSE = 3, 1.0
"""Looks for a record, and seconds between two, until it is believed that there is none."""

PIECE = 512 * 1024
"""Bytes of a definition in one message: NATS takes 1 MiB at most by default."""


class DefinitionLost(StoreUnavailable):
    """A piece of a run's definition is not there, or not what was stored."""


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
        mine = Reservation(run_id=run.run_id, digest=run.digest.hex())
        try:
            await self._put(REQUESTS, subject, mine.encode(), 0, decode=Reservation.of)
        except Conflict as conflict:
            made = self._there(Reservation.of, conflict)
            if made.digest != mine.digest:
                raise reused(run.request_id, made.run_id) from None
            return made.run_id
        return run.run_id

    async def reserved(self, run: NewRun) -> bool:
        """Return whether this run's request id made a run before."""
        if run.request_id is None:
            return False
        subject = request_subject(run.project, run.request_id)
        return await self._last(Reservation.of, REQUESTS, subject) is not None

    async def create(self, run: NewRun) -> Record:
        """Store definition and record; return the record that there is then."""
        data = run.definition
        pieces = [data[start : start + PIECE] for start in range(0, len(data), PIECE)]
        for number, piece in enumerate(pieces):
            subject = definition_subject(run.project, run.run_id, number)
            with suppress(Conflict):  # a repeated start changes nothing
                await self._put(
                    DEFINITIONS, subject, piece, 0, decode=piece_of, headers=piece_headers(piece)
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
        revision = await self._put(
            RUNS, subject, record.encode(), record.revision, decode=Record.of
        )
        return replace(record, revision=revision)

    def read(self, message: Stored | None) -> Record | None:
        """Return the record that a message holds; None if there is none, or it is not ours."""
        return self._link.foreign.read(Record.of, message)

    async def find(self, project: str, run_id: str) -> Record | None:
        """Return the record, whatever its life; None if there is none."""
        return await self._last(Record.of, RUNS, run_subject(project, run_id))

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
            self._link.foreign.read(Record.of, message)
            async for message in self._link.lasts(RUNS, subjects)
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
            piece = await self._last(piece_of, DEFINITIONS, subject)
            if piece is None:  # removed meanwhile, or asked of a leader that is one no more
                raise DefinitionLost(
                    f"NATS lacks piece {number} of the definition of run {record.run_id}. "
                    "Restore the bucket, or cancel the run."
                )
            pieces.append(piece)
        return b"".join(pieces)

    async def commands(self, project: str, run_id: str) -> tuple[Command, ...]:
        """Return what the run's inbox holds."""
        found = await self._last(inbox_of, COMMANDS, inbox_subject(project, run_id))
        return tuple(Command(id=kind, kind=kind, run_id=run_id) for kind in sorted(found or ()))

    async def command(self, project: str, run_id: str, kind: str) -> None:
        """Put a command into the run's inbox, once."""
        subject = inbox_subject(project, run_id)
        message = await self._link.last(COMMANDS, subject)
        while kind not in (held := self._link.foreign.read(inbox_of, message) or frozenset()):
            revision = 0 if message is None else message.sequence
            payload = orjson.dumps(sorted(held | {kind}))
            try:
                await self._put(COMMANDS, subject, payload, revision, decode=inbox_of)
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
            message = await self._link.last(REQUESTS, subject)
            made = self._link.foreign.read(Reservation.of, message)
            if message is not None and made is not None and made.run_id == record.run_id:
                await self._link.purge(REQUESTS, subject, message.sequence)
        await self._link.purge(RUNS, run_subject(record.project, record.run_id))

    async def _last(self, decode: Callable[[Stored], T], bucket: str, subject: str) -> T | None:
        return self._link.foreign.read(decode, await self._link.last(bucket, subject))

    async def _put(
        self,
        bucket: str,
        subject: str,
        payload: bytes,
        revision: int,
        *,
        decode: Callable[[Stored], object],
        headers: Mapping[str, str] | None = None,
    ) -> int:
        """Store a value where `revision` is the last; what is not ours there is replaced."""
        while True:
            try:
                return await self._link.put(
                    bucket,
                    subject,
                    payload,
                    expected=revision,
                    same=lambda last: last.data == payload,
                    headers=headers,
                )
            except Conflict as conflict:
                last = conflict.last
                if last is None or self._link.foreign.read(decode, last) is not None:
                    raise
                revision = last.sequence

    def _there(self, decode: Callable[[Stored], T], conflict: Conflict) -> T:
        """Return what stands where nothing was expected."""
        found = self._link.foreign.read(decode, conflict.last)
        if found is None:
            raise conflict
        return found
