"""The queue of runs that have not ended: JetStream gives each item to one replica at a time.

An item stays in the stream until its run has ended. Whoever got it must keep saying that it is
at work; otherwise JetStream gives it to another replica.
"""

from __future__ import annotations

import asyncio
from collections.abc import Collection, Iterable
from contextlib import suppress
from dataclasses import dataclass

import orjson
from nats.aio.msg import Msg

from polos_client.errors import StoreUnavailable
from polos_service.cancelling import cancel_until_done
from polos_service.logs import get_logger
from polos_service.store import Key
from polos_service.store.nats.items import ACK, Queued, WorkItem, acknowledged
from polos_service.store.nats.jetstream import API, Conflict, JetStream, Refused
from polos_service.store.nats.lines import PULL, Line, Lines
from polos_service.store.nats.records import Record
from polos_service.store.nats.shielded import ShieldedTasks
from polos_service.store.nats.subjects import (
    EVERY_ITEM,
    WORK,
    former_work_subject,
    token,
    work_subject,
)

PAUSE = 0.5
"""Seconds after a failed request for an item, before the next one."""

NOTHING = ("404", "408")
"""The status of an answer when there is no item, and when none came in time."""

log = get_logger(__name__)


@dataclass(slots=True)
class Waiter:
    """A caller that waits for an item of one of these workflows."""

    workflows: Collection[str]
    future: asyncio.Future[WorkItem]


class Queue:
    """The queue, as one replica sees it."""

    def __init__(self, jetstream: JetStream, tasks: ShieldedTasks, lines: Lines) -> None:
        self._jetstream = jetstream
        self._tasks = tasks
        self._lines = lines
        self._waiters: list[Waiter] = []
        self._pulls: dict[Line, asyncio.Task[None]] = {}
        self._turns: asyncio.Task[None] | None = None
        self._reply_subject = jetstream.new_reply_subject()
        self._answers: dict[str, asyncio.Future[bool]] = {}
        """By consumer, whether an item came."""
        self._told: dict[Line, str] = {}

    async def start(self) -> None:
        """Listen for answers, and for runs that anybody queues."""
        for subject, call in (
            (f"{self._reply_subject}.*", self._answer),
            (EVERY_ITEM, self._nudge),
        ):
            await self._jetstream.subscribe(subject, call)
        self._jetstream.on_return(self._ask_anew)
        await self._lines.start()

    async def close(self) -> None:
        """Ask for nothing more."""
        turns = [] if self._turns is None else [self._turns]
        await cancel_until_done([*turns, *self._pulls.values()])

    async def put(self, record: Record, *, replaced: int = 0) -> None:
        """Queue a run, unless it is queued; an item with the sequence `replaced` does not count."""
        subject = work_subject(record.workflow_id, record.project, record.run_id)
        line = Line.of(subject)
        if not line.shared:
            await self._lines.make(line)  # where a replica that starts finds the line
        payload = orjson.dumps([record.project, record.run_id, record.deadline])
        try:
            await self._jetstream.put(
                WORK,
                subject,
                payload,
                expected=0,
                same=lambda last: last.data == payload and last.sequence != replaced,
            )
            self.find(subject)  # what listens to the queue hears of it later
        except Conflict as conflict:
            last = conflict.last
            if last is not None and (
                last.sequence == replaced or self._jetstream.foreign.read(Queued.of, last) is None
            ):
                await self.discard(last.sequence)
                await self.put(record, replaced=replaced)

    async def remove(self, record: Record, only: int | None = None) -> None:
        """Take a run out of the queue, wherever its item is; or only an item with this sequence.

        Its message is deleted by its number: a purge of its subject would make the consumer
        forget other items that are held, and never give them to anybody again (NATS 2.15).
        """
        for subject in subjects_of(record):
            message = await self._jetstream.last(WORK, subject)
            if message is not None and only in (None, message.sequence):
                await self.discard(message.sequence)

    async def discard(self, sequence: int) -> None:
        """Remove a message of the queue."""
        with suppress(Refused):  # whoever held it has removed it meanwhile
            body = {"seq": sequence, "no_erase": True}
            await self._jetstream.request(f"STREAM.MSG.DELETE.{WORK}", body)

    async def item_of(self, record: Record) -> int | None:
        """Return the sequence of the run's item, held or not; None if it has none."""
        found = [await self._item_at(subject) for subject in subjects_of(record)]
        return next((one for one in found if one is not None), None)

    async def items_of(self, records: Iterable[Record]) -> dict[Key, int]:
        """Return the sequences of the items of these runs, held or not, as any replica knows."""
        runs = {
            subject: (record.project, record.run_id)
            for record in records
            for subject in subjects_of(record)
        }
        return {
            runs[message.subject]: message.sequence
            async for message in self._jetstream.lasts(WORK, [*runs])
            if self._jetstream.foreign.read(Queued.of, message) is not None
        }

    async def queued_by_former(self, record: Record) -> bool:
        """Return whether a version that knows no lines has queued the run."""
        subject = former_work_subject(record.workflow_id, record.project, record.run_id)
        return await self._item_at(subject) is not None

    async def _item_at(self, subject: str) -> int | None:
        message = await self._jetstream.last(WORK, subject)
        ours = self._jetstream.foreign.read(Queued.of, message)
        return message.sequence if message is not None and ours is not None else None

    def find(self, subject: str) -> None:
        """Take note that there is an item with this subject."""
        if self._lines.find(subject):
            self._ask()

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

    async def move(self, item: WorkItem, record: Record) -> None:
        """Put a run that a former version has queued into the line of its project."""
        await self.put(record)
        await self.done(item)

    async def put_back(self, item: WorkItem, delay: float = 0) -> None:
        """Let the item be given to anybody, after so many seconds."""
        body = b" " + orjson.dumps({"delay": round(delay * 1e9)}) if delay else b""
        await self._jetstream.publish(item.reply, b"-NAK" + body)
        self._lines.fill(item.line)

    async def _nudge(self, message: Msg) -> None:
        self._lines.find(message.subject)
        self._ask()

    def look(self) -> None:
        """Ask again, where a project may have room for another run."""
        if self._lines.bound_runs and self._waiters:
            self._ask()

    def _ask_anew(self) -> None:
        """Give up what was asked for over a connection that is gone."""
        for answer in self._answers.values():
            if not answer.done():
                answer.set_result(False)

    def _wanted(self) -> list[Line]:
        """Return the lines of which somebody waits for an item."""
        names = {name for waiter in self._waiters for name in list(waiter.workflows)}
        return self._lines.of(names)

    def _ask(self) -> None:
        """Ask for an item: in every line of one project, or of several projects in turn."""
        lines = self._wanted()
        if not several_projects(lines):
            self._ask_all(lines)
        elif self._turns is None or self._turns.done():
            self._turns = asyncio.create_task(self._ask_in_turn(), name="polos-turns")

    def _ask_all(self, lines: Collection[Line]) -> None:
        """Have JetStream give an item as soon as there is one in any of these lines."""
        for line in lines:
            if line not in self._pulls:
                self._pulls[line] = asyncio.create_task(self._pull(line), name="polos-pull")

    async def _ask_in_turn(self) -> None:
        """Ask for an item that is there, project by project; then for the next that comes."""
        while self._waiters:
            lines = self._wanted()
            await self._lines.make_all(lines)
            asked = [one for one in lines if not (one in self._pulls or self._lines.is_empty(one))]
            for line in self._lines.in_turn(asked):
                if await self._try(line, wait=0.0):
                    break
            else:
                self._ask_all(self._wanted())
                return

    async def _pull(self, line: Line) -> None:
        """Ask for an item of a line, as long as somebody waits and no other has its turn."""
        try:
            while line in (lines := self._wanted()):
                await self._try(line, wait=PULL)
                if several_projects(lines) and not self._lines.is_empty(line):
                    break
        finally:
            del self._pulls[line]
        self._ask()

    async def _try(self, line: Line, *, wait: float) -> bool:
        """Ask once for an item, and return whether one came; if that fails, pause."""
        try:
            arrived = await self._pull_once(line, wait)
        except (StoreUnavailable, TimeoutError) as error:
            self._lines.lose(line)
            why = str(error) or type(error).__name__
            if self._told.get(line) != why:  # said once, not twice a second
                log.warning("pull_failed", workflow_id=line.workflow, error=why)
            self._told[line] = why
            await asyncio.sleep(PAUSE)
            return False
        self._told.pop(line, None)
        if not arrived:
            self._lines.empty(line)
        return arrived

    async def _pull_once(self, line: Line, wait: float) -> bool:
        await self._lines.make(line)
        consumer = line.consumer
        answer: asyncio.Future[bool] = asyncio.get_running_loop().create_future()
        self._answers[consumer] = answer
        limit = {"expires": round(wait * 1e9)} if wait else {"no_wait": True}
        await self._jetstream.publish(
            f"{API}.CONSUMER.MSG.NEXT.{WORK}.{consumer}",
            orjson.dumps({"batch": 1, **limit}),
            f"{self._reply_subject}.{consumer}",
        )
        async with asyncio.timeout(PULL + PAUSE):
            return await answer

    async def _answer(self, message: Msg) -> None:
        """Take an item, or why there is none."""
        if message.reply.startswith(ACK):
            await self._take(message)
            with suppress(ValueError):
                self._resolve(acknowledged(message.reply)[0], arrived=True)
            return
        consumer = message.subject.rpartition(".")[2]
        status = (message.headers or {}).get("Status")
        self._resolve(consumer, arrived=False if status in NOTHING else None)

    def _resolve(self, consumer: str, *, arrived: bool | None) -> None:
        """Tell who asked a consumer whether an item came; None: the consumer does not answer."""
        answer = self._answers.get(consumer)
        if answer is None or answer.done():
            return
        if arrived is None:
            answer.set_exception(StoreUnavailable("the consumer of its work items is gone"))
        else:
            answer.set_result(arrived)

    async def _take(self, message: Msg) -> None:
        try:
            item = WorkItem.of(message)
        except ValueError as error:
            self._jetstream.foreign.skip(message.subject, 0, str(error))
            await self._jetstream.publish(message.reply, b"+TERM it is not a work item")
            return
        self._lines.fill(item.line)
        self._give(item)

    def _give(self, item: WorkItem) -> None:
        if not self._lines.has_room(item.line):
            self._tasks.spawn(self.put_back(item, PAUSE))
            return
        for waiter in self._waiters:
            # One that was just cancelled stays in the list until its task gets a turn.
            if not waiter.future.done() and item.line.workflow in map(token, waiter.workflows):
                self._waiters.remove(waiter)
                waiter.future.set_result(item)
                self._lines.serve(item.line)
                return
        self._tasks.spawn(self.put_back(item))


def subjects_of(record: Record) -> set[str]:
    """Return where the item of a run may be."""
    run = (record.workflow_id, record.project, record.run_id)
    return {work_subject(*run), former_work_subject(*run)}


def several_projects(lines: Collection[Line]) -> bool:
    """Return whether these lines are of more than one project."""
    return any(not line.shared for line in lines)
