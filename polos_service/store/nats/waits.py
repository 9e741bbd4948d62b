"""The index of open waits: each is a message, whose subject tells of which run and since when.

It is a cache of the logs. A wait that its run left behind when it ended is removed by who finds it.
The waits of a project are in the order in which they were opened: that of their messages.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import orjson
from pydantic import TypeAdapter

from polos_service.store import WaitRecord
from polos_service.store.nats.jetstream import JetStream
from polos_service.store.nats.log import Log
from polos_service.store.nats.messages import NotOurs, StoredMessage
from polos_service.store.nats.records import Number, Records
from polos_service.store.nats.subjects import (
    WAITS,
    log_subject,
    wait_at_any_time,
    wait_subject,
    waits_of,
    waits_of_project,
)

MAX_OPEN = 1000
"""Waits of a run that are returned at most."""

PIECE = 100
"""Waits of a project that one request brings at most."""

Place = tuple[int, str, int]
"""Where a wait stands among those of its project: the sequence of its message comes first."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Heading:
    """The first line of a wait's message, as JSON; what is told of it follows."""

    project: str
    run_id: str
    wait_id: Number
    create_time: Number


HEADING = TypeAdapter(Heading)
"""Reads the first line of a wait's message."""


class WaitIndex:
    """The bucket of open waits."""

    def __init__(self, jetstream: JetStream, log: Log, records: Records) -> None:
        self._jetstream = jetstream
        self._log = log
        self._records = records

    async def open(self, project: str, wait: WaitRecord) -> None:
        """Put a wait into the index, unless it is there."""
        subject = wait_subject(project, wait.run_id, wait.wait_id, wait.create_time)
        heading = {
            "project": project,
            "run_id": wait.run_id,
            "wait_id": wait.wait_id,
            "create_time": wait.create_time,
        }
        await self._jetstream.put(
            WAITS,
            subject,
            orjson.dumps(heading) + b"\n" + wait.data,
            behind=wait_at_any_time(project, wait.run_id, wait.wait_id),
            expected=0,
            same=lambda _: True,
        )

    async def close(self, project: str, run_id: str, wait_id: int) -> None:
        """Take a wait out of the index."""
        await self._jetstream.purge(WAITS, wait_at_any_time(project, run_id, wait_id))

    async def remove(self, project: str, run_id: str) -> None:
        """Take all waits of a run out of the index."""
        await self._jetstream.purge(WAITS, waits_of(project, run_id))

    async def of_run(self, project: str, run_id: str) -> list[WaitRecord]:
        """Return the waits of a run, oldest first."""
        found: list[WaitRecord] = []
        position = 0
        while len(found) < MAX_OPEN and (
            page := await self._jetstream.page(WAITS, waits_of(project, run_id), position + 1)
        ):
            read = (self._jetstream.foreign.read(wait_in, message) for message in page)
            found += [one for one in read if one is not None]
            position = page[-1].sequence
        return sorted(await self._of_open(project, found), key=lambda one: one.wait_id)[:MAX_OPEN]

    async def page(self, project: str, limit: int, after: Place | None) -> list[WaitRecord]:
        """Return the waits of a project behind a place, oldest first."""
        found: list[WaitRecord] = []
        position = 0 if after is None else after[0]
        while len(found) < limit and (
            page := await self._jetstream.page_or_next(
                WAITS,
                waits_of_project(project),
                position + 1,
                count=min(PIECE, limit - len(found)),
            )
        ):
            read = (self._jetstream.foreign.read(wait_in, message) for message in page)
            found += await self._of_open(project, [one for one in read if one is not None])
            position = page[-1].sequence
        return found

    async def _of_open(self, project: str, waits: Sequence[WaitRecord]) -> list[WaitRecord]:
        """Return the waits of runs that are open, and remove those of the others."""
        run_ids = {one.run_id for one in waits}
        lasts = await self._log.lasts([log_subject(project, one) for one in run_ids])
        over = set()
        for run_id in run_ids:
            last = lasts.get(log_subject(project, run_id))
            ended = last is not None and last.head.outcome
            if ended or (last is None and not await self._records.open(project, run_id)):
                over.add(run_id)
                await self.remove(project, run_id)
        return [one for one in waits if one.run_id not in over]


def wait_in(message: StoredMessage) -> WaitRecord:
    """Return the wait that a message holds; what a newer version adds to its heading is ignored.

    Raises:
        ValueError: it is not one of ours.

    """
    line, _, data = message.data.partition(b"\n")
    heading = HEADING.validate_json(line, strict=True)
    wait = WaitRecord(
        run_id=heading.run_id,
        wait_id=heading.wait_id,
        create_time=heading.create_time,
        data=data,
        order=message.sequence,
    )
    subject = wait_subject(heading.project, wait.run_id, wait.wait_id, wait.create_time)
    if subject != message.subject:
        raise NotOurs("it is another wait than its subject says")
    return wait
