"""Bugs seeded on purpose into the store on NATS, beside those that any store shows."""

from __future__ import annotations

from collections.abc import AsyncIterator
from dataclasses import replace
from typing import Any

from chaos.bugs import (
    dropped_claim,
    finished_step_again,
    lost_wakeup,
    silent_retry,
)
from chaos.faults import Bug, Original, around
from chaos.people_bugs import PEOPLE_BUGS
from chaos.places import Place
from chaos.tree_bugs import TREE_BUGS
from polos.v1.event_pb2 import Event
from polos.v1.run_service_pb2 import StreamRunResponse
from polos_service.store import Entry
from polos_service.store.nats.frames import Head
from polos_service.store.nats.items import WorkItem
from polos_service.store.nats.jetstream import Conflict, JetStream
from polos_service.store.nats.log import Log
from polos_service.store.nats.queue import Queue
from polos_service.store.nats.subjects import LOG

BEHIND = 3
"""Messages that a replica of the log is behind."""


def unfenced() -> None:
    """Write behind whatever is the last message, whoever wrote it."""

    @around(JetStream, "put")
    async def _(
        original: Original, jetstream: JetStream, stream: str, *args: Any, **named: Any
    ) -> int:
        while True:
            try:
                written: int = await original(jetstream, stream, *args, **named)
            except Conflict as conflict:
                if stream != LOG or conflict.last is None:
                    raise
                named["expected"] = conflict.last.sequence
            else:
                return written


def early_acknowledgement() -> None:
    """Remove a run's work item as soon as a replica gets it."""

    @around(Queue, "next")
    async def _(original: Original, queue: Queue, *args: Any) -> WorkItem:
        item: WorkItem = await original(queue, *args)
        await queue.done(item)
        return item


def stale_recovery() -> None:
    """Recover from a replica of the log that is behind, and take it for the whole log."""

    @around(Log, "history")
    async def _(original: Original, *args: Any) -> AsyncIterator[Entry]:
        entries = [entry async for entry in original(*args)]
        for entry in [*entries[: -1 - BEHIND], *entries[-1:]]:
            yield entry


def doubled_terminal() -> None:
    """Write the terminal event twice."""

    @around(Log, "append")
    async def _(original: Original, log: Log, subject: str, head: Head, *more: Any) -> int:
        sequence: int = await original(log, subject, head, *more)
        if not head.outcome:
            return sequence
        payload: bytes = more[0]
        again = Event()
        again.CopyFrom(StreamRunResponse.FromString(payload[: head.size]).events[-1])
        again.sequence = head.last + 1
        data = StreamRunResponse(events=[again]).SerializeToString()
        second = replace(head, first=again.sequence, last=again.sequence, size=len(data))
        return int(await original(log, subject, second, data, sequence))


CLUSTER_BUGS: dict[str, Bug] = (
    {
        "unfenced": Bug("a writer that lost its claim goes on", unfenced, Place.SERVICE_PAUSE),
        "early-acknowledgement": Bug(
            "a run leaves the queue before it has ended", early_acknowledgement, Place.MID_TOOL
        ),
        "stale-recovery": Bug(
            "a run is recovered from a log that lacks its end", stale_recovery, Place.STEP_END
        ),
        "doubled-terminal-event": Bug("a run ends twice", doubled_terminal, Place.SERVICE_RESTART),
        "lost-wake-up": Bug("a reader is not told of an event", lost_wakeup, Place.NODE_PAUSE),
        "dropped-claim": Bug("a claimed run is forgotten", dropped_claim, Place.BEFORE_TOOL),
        "finished-step-again": Bug(
            "a finished tool runs again", finished_step_again, Place.STEP_END
        ),
        "silent-retry": Bug("what is said again is not taken back", silent_retry, Place.MID_DELTA),
    }
    | {
        name: replace(PEOPLE_BUGS[name], place=place)
        for name, place in {
            "asked-again": Place.DECIDED,
            "lost-answer": Place.ANSWERED,
            "every-answer-accepted": Place.SERVICE_KILL,
            "refused-repetition": Place.LEADER_KILL,
            "called-twice": Place.SERVICE_PAUSE,
            "early-expiry": Place.EXPIRED,
        }.items()
    }
    | {
        name: replace(TREE_BUGS[name], place=place)
        for name, place in {
            "lost-child-end": Place.SERVICE_KILL,
            "child-again": Place.CHILD,
            "shared-answer": Place.SERVICE_PAUSE,
        }.items()
    }
)
"""The bugs by name."""

WORKER_BUGS: dict[str, Bug] = {
    name: replace(CLUSTER_BUGS[name], place=place)
    for name, place in {
        "unfenced": Place.WORKER_PAUSE,
        "early-acknowledgement": Place.WORKER_KILL,
        "doubled-terminal-event": Place.WORKERS_RENEW,
        "lost-wake-up": Place.STORE_KILL,
        "dropped-claim": Place.WORKER_KILL,
        "silent-retry": Place.WORKER_KILL,
        "asked-again": Place.WORKER_KILL,
        "lost-answer": Place.STORE_KILL,
        "every-answer-accepted": Place.WORKERS_RENEW,
    }.items()
}
"""Those that show with workers, by name, where they show."""
