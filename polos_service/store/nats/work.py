"""The queue of runs to be worked on: JetStream hands each item to one replica at a time.

An item stays in the stream until its run has ended. Whoever got it has to say again and
again that it is at work; else JetStream gives it to another.
"""

from __future__ import annotations

import asyncio
from collections.abc import Collection
from contextlib import suppress
from dataclasses import dataclass

import orjson
from nats.aio.msg import Msg

from polos_client.errors import StoreUnavailable
from polos_service.logs import get_logger
from polos_service.store.nats.background import Background
from polos_service.store.nats.link import API, Conflict, Link, Refused
from polos_service.store.nats.records import Record
from polos_service.store.nats.subjects import WORK, token, work_subject

PULL = 5.0
"""Seconds that JetStream keeps a request for an item."""

PAUSE = 0.5
"""Seconds before an item is asked for again where that failed."""

ACK_TOKENS = 9
"""Tokens of the subject that an item is answered on, where it names no domain."""

EXPIRED = "408"
"""The status that tells that no item came in that time."""

PENDING_LIMIT = 10_000_000
"""Items of one agent that may be held at a time, by all replicas."""

log = get_logger(__name__)


@dataclass(frozen=True, slots=True)
class Item:
    """A run that JetStream has given to this replica, until it falls silent.

    Attributes:
        delivery: how often it was given to somebody, this time included.

    """

    project: str
    run_id: str
    reply: str
    delivery: int


@dataclass(slots=True)
class Waiter:
    """Somebody who waits for an item of one of these workflows."""

    workflows: Collection[str]
    future: asyncio.Future[Item]


class Work:
    """The queue, as one replica sees it."""

    def __init__(self, link: Link, background: Background, claim_timeout: float) -> None:
        self._link = link
        self._background = background
        self._claim_timeout = claim_timeout
        self._waiters: list[Waiter] = []
        self._pulls: dict[str, asyncio.Task[None]] = {}
        self._consumers: set[str] = set()
        self._inbox = link.inbox()
        self._answers: dict[str, asyncio.Future[bool]] = {}

    async def start(self) -> None:
        """Listen for answers, and for runs that anybody queues."""
        for subject, call in ((f"{self._inbox}.*", self._answer), ("polos.work.>", self._nudge)):
            await self._link.subscribe(subject, call)
        self._link.on_return(self._ask_anew)

    async def close(self) -> None:
        """Ask for nothing more."""
        for pull in self._pulls.values():
            pull.cancel()
        if self._pulls:
            await asyncio.wait(self._pulls.values())

    async def put(self, record: Record) -> None:
        """Queue a run, unless it is queued."""
        subject = work_subject(record.workflow_id, record.project, record.run_id)
        payload = orjson.dumps([record.project, record.run_id, record.deadline])
        with suppress(Conflict):
            await self._link.put(
                WORK, subject, payload, expected=0, same=lambda last: last.data == payload
            )

    async def remove(self, record: Record) -> None:
        """Take a run out of the queue, wherever its item is.

        Its message is deleted by its number: a purge of its subject would make the consumer
        forget other items that are held, and never give them to anybody again (NATS 2.15).
        """
        subject = work_subject(record.workflow_id, record.project, record.run_id)
        message = await self._link.last(WORK, subject)
        if message is not None:
            with suppress(Refused):  # whoever held it has removed it meanwhile
                body = {"seq": message.sequence, "no_erase": True}
                await self._link.request(f"STREAM.MSG.DELETE.{WORK}", body)

    async def next(self, workflows: Collection[str]) -> Item:
        """Wait for an item of one of these workflows; each one's come oldest first.

        `workflows` is read again whenever a run is queued. If the wait is cancelled, the
        item that came meanwhile goes back.
        """
        waiter = Waiter(workflows, asyncio.get_running_loop().create_future())
        self._waiters.append(waiter)
        self._ask()
        try:
            return await waiter.future
        except asyncio.CancelledError:
            if waiter in self._waiters:
                self._waiters.remove(waiter)
            else:
                self._background.spawn(self.put_back(waiter.future.result()))
            raise

    async def keep(self, item: Item) -> None:
        """Say that the item is being worked on."""
        await self._link.publish(item.reply, b"+WPI")

    async def done(self, item: Item) -> None:
        """Remove the item: its run has ended."""
        await self._link.publish(item.reply, b"+ACK")

    async def put_back(self, item: Item, delay: float = 0) -> None:
        """Let the item be given to anybody, after so many seconds."""
        body = b" " + orjson.dumps({"delay": round(delay * 1e9)}) if delay else b""
        await self._link.publish(item.reply, b"-NAK" + body)

    async def _nudge(self, _: Msg) -> None:
        self._ask()

    def _ask_anew(self) -> None:
        """Give up what was asked for over a connection that is gone."""
        for answer in self._answers.values():
            if not answer.done():
                answer.set_result(True)

    def _ask(self) -> None:
        """Ask for an item of every workflow that somebody waits for."""
        for waiter in self._waiters:
            for name in list(waiter.workflows):
                if name not in self._pulls:
                    self._pulls[name] = asyncio.create_task(self._pull(name), name="polos-pull")

    def _wanted(self, name: str) -> bool:
        return any(name in waiter.workflows for waiter in self._waiters)

    async def _pull(self, name: str) -> None:
        try:
            while self._wanted(name):
                try:
                    await self._pull_once(name)
                except (StoreUnavailable, Refused, TimeoutError) as error:
                    self._consumers.discard(name)
                    log.warning(
                        "pull_failed", workflow_id=name, error=str(error) or type(error).__name__
                    )
                    await asyncio.sleep(PAUSE)
        finally:
            del self._pulls[name]

    async def _pull_once(self, name: str) -> None:
        if name not in self._consumers:
            await self._make_consumer(name)
        consumer = token(name)
        self._answers[consumer] = answer = asyncio.get_running_loop().create_future()
        body = orjson.dumps({"batch": 1, "expires": round(PULL * 1e9)})
        await self._link.publish(
            f"{API}.CONSUMER.MSG.NEXT.{WORK}.{consumer}", body, f"{self._inbox}.{consumer}"
        )
        if not await asyncio.wait_for(answer, PULL + PAUSE):
            raise StoreUnavailable("the consumer of its work items is gone")

    async def _answer(self, message: Msg) -> None:
        """Take an item, or why there is none; an item comes under its own subject."""
        status = (message.headers or {}).get("Status")
        consumer = message.subject.split(".")[2 if status is None else -1]
        if status is None:
            self._give(consumer, item_of(message))
        answer = self._answers.get(consumer)
        if answer is not None and not answer.done():
            answer.set_result(status in (None, EXPIRED))

    def _give(self, consumer: str, item: Item) -> None:
        for waiter in self._waiters:
            # One that was just cancelled stays in the list until its task gets a turn.
            if not waiter.future.done() and consumer in map(token, waiter.workflows):
                self._waiters.remove(waiter)
                waiter.future.set_result(item)
                return
        self._background.spawn(self.put_back(item))

    async def _make_consumer(self, name: str) -> None:
        consumer = token(name)
        config = {
            "name": consumer,
            "durable_name": consumer,
            "filter_subject": f"polos.work.{consumer}.>",
            "deliver_policy": "all",
            "ack_policy": "explicit",
            "ack_wait": round(self._claim_timeout * 1e9),
            "max_deliver": -1,
            "max_ack_pending": PENDING_LIMIT,
        }
        await self._link.request(
            f"CONSUMER.CREATE.{WORK}.{consumer}.polos.work.{consumer}.>",
            {"stream_name": WORK, "config": config},
        )
        self._consumers.add(name)


def item_of(message: Msg) -> Item:
    """Return the item that JetStream delivered."""
    project, run_id, _ = orjson.loads(message.data)
    parts = message.reply.split(".")
    # Behind $JS.ACK a server may name its domain and account.
    delivery = parts[4] if len(parts) == ACK_TOKENS else parts[6]
    return Item(project, run_id, message.reply, int(delivery))
