"""What NATS holds after a round, read message by message from the leaders of its streams."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import AsyncIterator, Iterable, Mapping
from contextlib import asynccontextmanager, suppress
from pathlib import Path

from nats.aio.client import Client
from nats.js import JetStreamContext
from nats.js.api import RawStreamMsg
from nats.js.errors import NotFoundError

from chaos.story import Log
from polos.v1.run_pb2 import RunState
from polos.v1.run_service_pb2 import StreamRunResponse
from polos_service.store.nats.frames import Head, Mark
from polos_service.store.nats.messages import NotOurs
from polos_service.store.nats.subjects import LOG, RUNS, WORK

BATCH = 64
"""Messages that are requested at a time."""

PATIENCE = 15.0
"""Seconds in which the work items of ended runs have to leave the queue. An item that was not
acknowledged is delivered again after the claim timeout, to a replica that finds its run ended."""


@asynccontextmanager
async def jetstream(
    ports: Iterable[int], nkey: Path | None = None
) -> AsyncIterator[JetStreamContext]:
    """Connect to servers of a cluster; `nkey` is a file with the seed that they want."""
    client = Client()
    servers = [f"nats://127.0.0.1:{port}" for port in ports]
    await client.connect(servers=servers, nkeys_seed=None if nkey is None else str(nkey))
    try:
        yield client.jetstream()
    finally:
        await client.close()


async def left_behind(stream: JetStreamContext) -> list[str]:
    """Return, as findings, what the queue still holds although every run has ended."""
    end = time.monotonic() + PATIENCE
    while count := (await stream.stream_info(WORK)).state.messages:
        if time.monotonic() > end:
            return [f"queue: {count} work items of ended runs are left"]
        await asyncio.sleep(0.1)
    return []


async def logs_in(stream: JetStreamContext) -> Mapping[str, Log]:
    """Read every run of the store, by its id; skip what a stranger published."""
    found: dict[str, Log] = {}
    async for message in messages(stream, RUNS):
        with suppress(ValueError, LookupError, TypeError):
            record = json.loads(message.data or b"")
            found[record["run_id"]] = Log(record["outcome"] or RunState.RUN_STATE_QUEUED)
    claims: dict[str, Head] = {}
    async for message in messages(stream, LOG):
        run_id = str(message.subject).rpartition(".")[2]
        try:
            head = Head.of(message.headers or {})
        except NotOurs:
            continue
        if run_id not in found:
            found[run_id] = Log(RunState.RUN_STATE_UNSPECIFIED)
            found[run_id].problems.append("lost: the store has its log, and no record of it")
        add(found[run_id], claims.get(run_id), head, message.data or b"")
        if head.mark is Mark.CLAIMED:
            claims[run_id] = head
    return found


def add(log: Log, claim: Head | None, head: Head, payload: bytes) -> None:
    """Add a message to a log whose newest claim frame has the head `claim`."""
    if head.mark is Mark.CLAIMED:
        log.takeovers += claim is not None
        if head.epoch != (claim.epoch if claim else 0) + 1:
            log.problems.append(f"fence: claim {head.epoch} follows claim {claim}")
    elif claim is None or head.claim != claim.claim:
        log.problems.append(f"fence: a frame of claim {head.epoch} follows claim {claim}")
    if head.mark is Mark.EVENTS:
        log.frames.append((head.first, head.last))
        log.events += StreamRunResponse.FromString(payload[: head.size]).events


async def messages(stream: JetStreamContext, name: str) -> AsyncIterator[RawStreamMsg]:
    """Yield every message of a stream, in its order."""
    state = (await stream.stream_info(name)).state
    for begin in range(state.first_seq, state.last_seq + 1, BATCH):
        numbers = range(begin, min(begin + BATCH, state.last_seq + 1))
        for message in await asyncio.gather(*(one(stream, name, seq) for seq in numbers)):
            if message is not None:
                yield message


async def one(stream: JetStreamContext, name: str, sequence: int) -> RawStreamMsg | None:
    """Return a message; None if a newer one of its subject has replaced it."""
    try:
        return await stream.get_msg(name, sequence)
    except NotFoundError:
        return None
