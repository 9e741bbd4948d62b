"""Looks over many runs: lists, and what waits.

Records stand under the day of their run's id, so a list asks for the ids of one day after
the other, newest first, and costs what the days it has to look at hold.
"""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import AsyncIterator, Mapping
from contextlib import suppress
from datetime import UTC, datetime
from typing import cast

from polos.v1.run_pb2 import RunState
from polos_service.store import RunQuery, RunRecord
from polos_service.store.nats.frames import Head, LogEnd
from polos_service.store.nats.jetstream import JetStream
from polos_service.store.nats.log import Log
from polos_service.store.nats.messages import SECOND, UNKNOWN, seconds_of
from polos_service.store.nats.queue import Queue
from polos_service.store.nats.records import Life, Record, Records
from polos_service.store.nats.subjects import (
    EVERY_ITEM,
    LINE,
    NO_DAY,
    RUNS,
    WORK,
    day,
    day_of,
    log_subject,
    run_subject,
    runs_of_day,
    value_of,
)

PIECE = 200
"""Records that one request brings."""

DAY = 86_400
"""Seconds of a day."""


class Listing:
    """Looks over the runs of every replica."""

    def __init__(self, jetstream: JetStream, log: Log, records: Records, queue: Queue) -> None:
        self._jetstream = jetstream
        self._log = log
        self._records = records
        self._queue = queue

    async def get(self, project: str, run_id: str) -> RunRecord:
        """Return the record of a run, with what its log says by now."""
        record = await self._records.get(project, run_id)
        if record.life is Life.ENDED:
            return merged(record, None)
        last = await self._log.last(log_subject(project, run_id))
        parked = last is not None and last.head.parked is not None
        waits = parked and await self._queue.item_of(record) is None
        return merged(record, last.head if last is not None else None, suspended=waits)

    async def page(self, project: str, query: RunQuery) -> list[RunRecord]:
        """Return the newest runs of a project that a query asks for."""
        found: list[RunRecord] = []
        async for subjects in self._pages(project, query):
            records = [one for one in await self._records.many(subjects) if asked(one, query)]
            logs = [log_subject(project, one.run_id) for one in records if one.life is Life.OPEN]
            lasts = await self._log.lasts(logs)
            waits = await self._suspended(records, lasts)
            ordered = sorted(records, key=lambda one: one.run_id, reverse=True)
            for one in ordered:
                last = lasts.get(log_subject(project, one.run_id))
                head = last.head if last is not None else None
                run = merged(one, head, suspended=one.run_id in waits)
                if query.state is None or run.state == query.state:
                    found.append(run)
            if len(found) >= query.limit:
                break
        return found[: query.limit]

    async def waiting(self) -> Mapping[str, int]:
        """Return how many runs are queued, by workflow."""
        counts: Counter[str] = Counter()
        names = await self._jetstream.subjects(WORK, EVERY_ITEM)
        for start in range(0, len(names), PIECE):
            piece = map(self._queued_run, names[start : start + PIECE])
            runs = dict(one for one in piece if one is not None)
            lasts = await self._log.lasts([*runs])
            counts.update(
                workflow
                for subject, workflow in runs.items()
                if subject not in lasts or lasts[subject].head.state == RunState.RUN_STATE_QUEUED
            )
        return counts

    async def _suspended(self, records: list[Record], lasts: Mapping[str, LogEnd]) -> set[str]:
        """Return the ids of the suspended ones of a project's runs: parked, without an item."""
        parked = {
            one.run_id: one
            for one in records
            if (last := lasts.get(log_subject(one.project, one.run_id))) and last.head.parked
        }
        if not parked:
            return set()
        items = await self._queue.items_of(parked.values())
        return parked.keys() - {run_id for _, run_id in items}

    async def _pages(self, project: str, query: RunQuery) -> AsyncIterator[list[str]]:
        """Yield the subjects of a project's records, a piece at a time, newest first."""
        async for ids in self._ids(project, query):
            wanted = [one for one in ids if query.before is None or one < query.before]
            wanted.sort(reverse=True)
            for start in range(0, len(wanted), PIECE):
                yield [run_subject(project, one) for one in wanted[start : start + PIECE]]

    async def _ids(self, project: str, query: RunQuery) -> AsyncIterator[list[str]]:
        """Yield ids of runs: those of one step's log, or else those of one day after the other."""
        if query.parent_root is not None:
            yield await self._records.started_by(project, query.parent_root)
            return
        async for one in self._days(query):
            names = await self._jetstream.subjects(RUNS, runs_of_day(project, one))
            yield [*filter(None, (self._run_id(project, name) for name in names))]

    def _run_id(self, project: str, subject: str) -> str | None:
        """Return the id of the run whose record has this subject; None if no record has."""
        with suppress(ValueError):
            run_id = value_of(subject.rpartition(".")[2])
            if run_subject(project, run_id) == subject:
                return run_id
        self._jetstream.foreign.skip(subject, UNKNOWN, "no record has this subject")
        return None

    def _queued_run(self, subject: str) -> tuple[str, str] | None:
        """Return log and workflow of the run whose work item has this subject, if any has."""
        with suppress(ValueError):
            workflow, project, run_id = subject.split(".")[2:]
            workflow_id = value_of(workflow.removeprefix(LINE))
            return f"polos.log.{day_of(value_of(run_id))}.{project}.{run_id}", workflow_id
        self._jetstream.foreign.skip(subject, UNKNOWN, "no work item has this subject")
        return None

    async def _days(self, query: RunQuery) -> AsyncIterator[str]:
        """Yield the days that runs which are asked for can be of, newest first."""
        newest = day(time.time() + DAY)
        if query.before is not None:
            newest = min(newest, day_of(query.before))
        if newest != NO_DAY:
            info = await self._jetstream.request(f"STREAM.INFO.{RUNS}")
            oldest = seconds_of(info["created"])
            if query.created_from is not None:
                oldest = max(oldest, query.created_from / SECOND)
            at = datetime.strptime(newest, "%Y%m%d").replace(tzinfo=UTC).timestamp()
            while at > oldest - 2 * DAY:
                yield day(at)
                at -= DAY
        yield NO_DAY


def merged(record: Record, head: Head | None, *, suspended: bool = False) -> RunRecord:
    """Return a record with what the last message of its log says."""
    ended = record.life is Life.ENDED
    state = cast("RunState.ValueType", record.outcome)
    if not ended:
        state = head.state if head is not None else RunState.RUN_STATE_QUEUED
        if suspended:
            state = RunState.RUN_STATE_SUSPENDED
    return RunRecord(
        run_id=record.run_id,
        workflow_id=record.workflow_id,
        state=state,
        session_id=record.session_id,
        user_id=record.user_id,
        streaming=record.streaming,
        create_time=record.create_time,
        start_time=record.start_time if ended or head is None else head.start,
        finish_time=record.finish_time,
        latest=record.latest if ended or head is None else head.last,
        left="" if ended or head is None else head.left,
        parent=record.parent,
        input_preview=record.input_preview,
    )


def asked(record: Record, query: RunQuery) -> bool:
    """Whether a record fits what a query asks for, besides the state."""
    pairs = (
        (query.workflow_id, record.workflow_id),
        (query.session_id, record.session_id),
        (query.user_id, record.user_id),
        (query.parent_root, record.parent and record.parent.root),
        (query.parent_run_id, record.parent and record.parent.run_id),
    )
    since, until = query.created_from, query.created_before
    return (
        record.life in (Life.OPEN, Life.ENDED)
        and all(wanted is None or wanted == value for wanted, value in pairs)
        and (since is None or record.create_time >= since)
        and (until is None or record.create_time < until)
    )
