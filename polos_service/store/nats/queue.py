"""The queue of runs that have not ended: JetStream gives each item to one replica at a time.

An item stays in the stream until its run has ended. Whoever got it must keep saying that it is
at work; otherwise JetStream gives it to another replica.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Collection
from contextlib import suppress
from dataclasses import dataclass

import orjson
from nats.aio.msg import Msg
from pydantic import TypeAdapter

from polos_client.errors import StoreUnavailable
from polos_service.cancelling import cancel_until_done
from polos_service.logs import get_logger
from polos_service.store.nats.jetstream import API, Conflict, JetStream, Refused
from polos_service.store.nats.messages import NotOurs, StoredMessage
from polos_service.store.nats.records import Number, Record
from polos_service.store.nats.shielded import ShieldedTasks
from polos_service.store.nats.subjects import EVERY_ITEM, WORK, token, work_subject
from polos_service.store.refusals import too_many

PULL = 5.0
"""Seconds that JetStream keeps a request for an item."""

PAUSE = 0.5
"""Seconds after a failed request for an item, before the next one."""

WORK_TOKENS = 5
"""Tokens of a work item's subject."""

ACK = "$JS.ACK."
"""How the subject begins on which a delivered item is answered."""

ACK_TOKENS = 9
"""Tokens of that subject, if it names no domain."""

EXPIRED = "408"
"""The status of an answer when no item came in time."""

PENDING_LIMIT = 10_000_000
"""Items of one agent that may be held at a time, by all replicas."""

COUNT_PERIOD = 1.0
"""Seconds for which a count is good: replicas may let a few more in meanwhile."""

log = get_logger(__name__)


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
        delivery: how often it was given to somebody, this time included.

    """

    project: str
    run_id: str
    reply: str
    delivery: int

    @classmethod
    def of(cls, message: Msg) -> WorkItem:
        """Return the item that JetStream delivered.

        Raises:
            ValueError: it is not one of ours.

        """
        parts = message.reply.split(".")
        if len(parts) < ACK_TOKENS:
            raise NotOurs("it was not delivered by JetStream")
        # Behind $JS.ACK a server may name its domain and account.
        at = 4 if len(parts) == ACK_TOKENS else 6
        queued = Queued.of(message)
        return cls(queued.project, queued.run_id, message.reply, int(parts[at]))


@dataclass(slots=True)
class Waiter:
    """A caller that waits for an item of one of these workflows."""

    workflows: Collection[str]
    future: asyncio.Future[WorkItem]


class Queue:
    """The queue, as one replica sees it."""

    def __init__(self, jetstream: JetStream, tasks: ShieldedTasks, claim_timeout: float) -> None:
        self._jetstream = jetstream
        self._tasks = tasks
        self._claim_timeout = claim_timeout
        self._waiters: list[Waiter] = []
        self._pulls: dict[str, asyncio.Task[None]] = {}
        self._consumers: set[str] = set()
        self._reply_subject = jetstream.new_reply_subject()
        self._answers: dict[str, asyncio.Future[bool]] = {}

    async def start(self) -> None:
        """Listen for answers, and for runs that anybody queues."""
        for subject, call in (
            (f"{self._reply_subject}.*", self._answer),
            (EVERY_ITEM, self._nudge),
        ):
            await self._jetstream.subscribe(subject, call)
        self._jetstream.on_return(self._ask_anew)

    async def close(self) -> None:
        """Ask for nothing more."""
        await cancel_until_done(self._pulls.values())

    async def put(self, record: Record) -> None:
        """Queue a run, unless it is queued."""
        subject = work_subject(record.workflow_id, record.project, record.run_id)
        payload = orjson.dumps([record.project, record.run_id, record.deadline])
        try:
            await self._jetstream.put(
                WORK, subject, payload, expected=0, same=lambda last: last.data == payload
            )
        except Conflict as conflict:
            last = conflict.last
            if last is not None and self._jetstream.foreign.read(Queued.of, last) is None:
                await self.discard(last.sequence)
                await self.put(record)

    async def remove(self, record: Record) -> None:
        """Take a run out of the queue, wherever its item is.

        Its message is deleted by its number: a purge of its subject would make the consumer
        forget other items that are held, and never give them to anybody again (NATS 2.15).
        """
        subject = work_subject(record.workflow_id, record.project, record.run_id)
        message = await self._jetstream.last(WORK, subject)
        if message is not None:
            await self.discard(message.sequence)

    async def discard(self, sequence: int) -> None:
        """Remove a message of the queue."""
        with suppress(Refused):  # whoever held it has removed it meanwhile
            body = {"seq": sequence, "no_erase": True}
            await self._jetstream.request(f"STREAM.MSG.DELETE.{WORK}", body)

    async def queued(self, record: Record) -> bool:
        """Return whether the run has its item, held or not."""
        subject = work_subject(record.workflow_id, record.project, record.run_id)
        message = await self._jetstream.last(WORK, subject)
        return self._jetstream.foreign.read(Queued.of, message) is not None

    async def next(self, workflows: Collection[str]) -> WorkItem:
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
                self._tasks.spawn(self.put_back(waiter.future.result()))
            raise

    async def keep(self, item: WorkItem) -> None:
        """Say that the item is being worked on."""
        await self._jetstream.publish(item.reply, b"+WPI")

    async def done(self, item: WorkItem) -> None:
        """Remove the item: its run has ended."""
        await self._jetstream.publish(item.reply, b"+ACK")

    async def put_back(self, item: WorkItem, delay: float = 0) -> None:
        """Let the item be given to anybody, after so many seconds."""
        body = b" " + orjson.dumps({"delay": round(delay * 1e9)}) if delay else b""
        await self._jetstream.publish(item.reply, b"-NAK" + body)

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
        told = ""
        try:
            while self._wanted(name):
                try:
                    await self._pull_once(name)
                    told = ""
                except (StoreUnavailable, TimeoutError) as error:
                    self._consumers.discard(name)
                    why = str(error) or type(error).__name__
                    if why != told:  # said once, not twice a second
                        log.warning("pull_failed", workflow_id=name, error=why)
                    told = why
                    await asyncio.sleep(PAUSE)
        finally:
            del self._pulls[name]

    async def _pull_once(self, name: str) -> None:
        if name not in self._consumers:
            await self._make_consumer(name)
        consumer = token(name)
        self._answers[consumer] = answer = asyncio.get_running_loop().create_future()
        body = orjson.dumps({"batch": 1, "expires": round(PULL * 1e9)})
        await self._jetstream.publish(
            f"{API}.CONSUMER.MSG.NEXT.{WORK}.{consumer}", body, f"{self._reply_subject}.{consumer}"
        )
        async with asyncio.timeout(PULL + PAUSE):
            arrived = await answer
        if not arrived:
            raise StoreUnavailable("the consumer of its work items is gone")

    async def _answer(self, message: Msg) -> None:
        """Take an item, or why there is none; an item comes under its own subject."""
        if message.reply.startswith(ACK):
            consumer, arrived = message.subject.split(".")[2], True
            await self._take(consumer, message)
        else:
            consumer = message.subject.rpartition(".")[2]
            arrived = (message.headers or {}).get("Status") == EXPIRED
        answer = self._answers.get(consumer)
        if answer is not None and not answer.done():
            answer.set_result(arrived)

    async def _take(self, consumer: str, message: Msg) -> None:
        try:
            item = WorkItem.of(message)
        except ValueError as error:
            self._jetstream.foreign.skip(message.subject, 0, str(error))
            await self._jetstream.publish(message.reply, b"+TERM it is not a work item")
        else:
            self._give(consumer, item)

    def _give(self, consumer: str, item: WorkItem) -> None:
        for waiter in self._waiters:
            # One that was just cancelled stays in the list until its task gets a turn.
            if not waiter.future.done() and consumer in map(token, waiter.workflows):
                self._waiters.remove(waiter)
                waiter.future.set_result(item)
                return
        self._tasks.spawn(self.put_back(item))

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
        await self._jetstream.request(
            f"CONSUMER.CREATE.{WORK}.{consumer}.polos.work.{consumer}.>",
            {"stream_name": WORK, "config": config},
        )
        self._consumers.add(name)


class Bound:
    """The bound of the queue, as one replica sees it."""

    def __init__(self, jetstream: JetStream, most: int, past_queue: Callable[[], int]) -> None:
        self._jetstream = jetstream
        self._most = most
        self._past_queue = past_queue
        self._queued = 0
        self._until = 0.0

    async def enter(self) -> None:
        """Count one more run, which is about to be queued.

        Raises:
            TooManyRuns: as many runs are queued as may be.

        """
        now = asyncio.get_running_loop().time()
        if self._queued >= self._most or now >= self._until:
            self._queued = await self._count()
            self._until = now + COUNT_PERIOD
        if self._queued >= self._most:
            raise too_many(self._most)
        self._queued += 1

    async def _count(self) -> int:
        """Return how many items nobody holds; exact only where it matters."""
        info = await self._jetstream.request(f"STREAM.INFO.{WORK}")
        items = int(info["state"]["messages"]) - self._past_queue()
        return items - await self._held_items() if items >= self._most else items

    async def _held_items(self) -> int:
        held = seen = 0
        while True:
            page = await self._jetstream.request(f"CONSUMER.LIST.{WORK}", {"offset": seen})
            consumers = page["consumers"] or []
            held += sum(int(one["num_ack_pending"]) for one in consumers)
            seen += len(consumers)
            if not consumers or seen >= page["total"]:
                return held
