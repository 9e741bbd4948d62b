"""The inboxes of runs: commands for whoever holds the claim.

Each command is a message on a subject of its own below that of its run. It is stored only
behind the last message of the whole inbox, so that commands have an order, and each tells
what the inbox holds with it. The command that cancels a run stands where version 0.1.0 writes
and reads it: on the run's own subject, in a list of kinds.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterable
from dataclasses import asdict, dataclass, field, replace
from typing import Self

import orjson
from pydantic import TypeAdapter

from polos_service import store
from polos_service.store import CANCEL, EARLY, SETTLED, Command
from polos_service.store.nats.jetstream import Conflict, JetStream
from polos_service.store.nats.messages import NotOurs, StoredMessage
from polos_service.store.nats.records import Number
from polos_service.store.nats.subjects import (
    COMMANDS,
    command_subject,
    command_subjects,
    inbox_subject,
    token,
    value_of,
)
from polos_service.store.refusals import require_cancel_id, require_room


@dataclass(frozen=True, kw_only=True, slots=True)
class Held:
    """What takes room in an inbox; see INBOX_LIMIT.

    Attributes:
        count: commands, those of the kind EARLY not included.
        size: bytes of their payloads.
        early: commands of the kind EARLY.
        early_size: bytes of their payloads.

    """

    count: Number = 0
    size: Number = 0
    early: Number = 0
    early_size: Number = 0

    def plus(self, command: Command, sign: int = 1) -> Held:
        """Return this with a command, or without it if the sign is -1."""
        count, size = sign, sign * len(command.payload)
        match command.kind:
            case store.SETTLED:
                return self
            case store.EARLY:
                return replace(self, early=self.early + count, early_size=self.early_size + size)
            case _:
                return replace(self, count=self.count + count, size=self.size + size)

    def require_room(self, run_id: str, command: Command) -> None:
        """Refuse a command that is too much.

        Raises:
            TooManyCommands: it is.

        """
        if command.kind == EARLY:
            require_room(run_id, EARLY, self.early, self.early_size)
        elif command.kind != SETTLED:
            require_room(run_id, command.kind, self.count, self.size)


@dataclass(frozen=True, kw_only=True, slots=True)
class Heading(Held):
    """The first line of a command's message, as JSON; the payload follows it.

    It tells what takes room in the inbox with this command. Versions that knew no kind EARLY
    or SETTLED count all commands.
    """

    id: str
    kind: str
    run_id: str
    step_key: str


@dataclass(frozen=True, kw_only=True, slots=True)
class InboxMessage:
    """A command as a message of an inbox; `sequence` is the bucket's for it."""

    command: Command
    sequence: int
    held: Held

    @classmethod
    def of(cls, message: StoredMessage) -> Self:
        """Return the command that a message holds; what a newer version adds is ignored.

        Raises:
            ValueError: it is not one of ours.

        """
        line, _, payload = message.data.partition(b"\n")
        heading = HEADING.validate_json(line, strict=True)
        if token(heading.id) != message.subject.rpartition(".")[2]:
            raise NotOurs("it is another command than its subject says")
        if heading.id == CANCEL:
            raise NotOurs("the command that cancels a run stands elsewhere")
        command = Command(
            id=heading.id,
            kind=heading.kind,
            run_id=heading.run_id,
            step_key=heading.step_key,
            payload=payload,
        )
        held = Held(
            count=heading.count,
            size=heading.size,
            early=heading.early,
            early_size=heading.early_size,
        )
        return cls(command=command, sequence=message.sequence, held=held)


HEADING = TypeAdapter(Heading)
"""Reads the first line of a command's message."""

KINDS = TypeAdapter(list[str])
"""Reads the message on a run's own subject."""


@dataclass(slots=True)
class InboxView:
    """What the holder of a claim knows of its run's inbox; it only grows.

    A command that was settled meanwhile keeps its place.

    Attributes:
        commands: in the order in which they were seen to arrive.
        read_to: sequence of the newest message that was read, the one that cancels aside.

    """

    commands: list[Command] = field(default_factory=list)
    read_to: int = 0
    _places: dict[str, int] = field(default_factory=dict)

    def add(self, arrived: Iterable[Command]) -> None:
        """Take commands as they are now."""
        for command in arrived:
            place = self._places.setdefault(command.id, len(self.commands))
            if place == len(self.commands):
                self.commands.append(command)
            elif command.kind == SETTLED:
                self.commands[place] = command


class Inbox:
    """The bucket of commands."""

    def __init__(self, jetstream: JetStream) -> None:
        self._jetstream = jetstream

    async def look(self, project: str, run_id: str, view: InboxView) -> None:
        """Add to a view what a run's inbox holds by now."""
        kinds, found = await asyncio.gather(
            self._jetstream.last(COMMANDS, inbox_subject(project, run_id)),
            self._messages(command_subjects(project, run_id), view.read_to),
        )
        read = self._jetstream.foreign.read
        messages = [one for one in (read(InboxMessage.of, each) for each in found) if one]
        arrived = [(one.sequence, one.command) for one in messages]
        if kinds is not None and CANCEL in (read(kinds_of, kinds) or ()):
            arrived.append((kinds.sequence, Command(id=CANCEL, kind=CANCEL, run_id=run_id)))
        arrived.sort(key=lambda one: one[0])
        view.add(command for _, command in arrived)
        view.read_to = max([view.read_to, *(each.sequence for each in found)])

    async def put(self, project: str, run_id: str, command: Command) -> Command:
        """Put a command last into a run's inbox, unless it holds one with this id; return that one.

        Raises:
            TooManyCommands: the inbox is full; one that cancels the run is taken nevertheless.
            ValueError: it takes the place of the one that cancels the run.

        """
        require_cancel_id(run_id, command)
        if command.id == CANCEL:
            await self._put_cancel(project, run_id)
            return command
        subject = command_subject(project, run_id, command.id)
        inbox = command_subjects(project, run_id)

        while True:
            # The last message comes first: what is stored behind it is a conflict.
            last = await self._jetstream.last(COMMANDS, inbox)
            found = await self._jetstream.value(InboxMessage.of, COMMANDS, subject)
            if found is not None:
                return found.command
            held = (await self._held(inbox, last)).plus(command)
            held.require_room(run_id, command)
            if await self._put_behind(last, inbox, command, held):
                return command

    async def settle(self, project: str, run_id: str, command: Command) -> None:
        """Put a command of the kind SETTLED in the place of the one that has its id."""
        subject = command_subject(project, run_id, command.id)
        inbox = command_subjects(project, run_id)
        while True:
            last = await self._jetstream.last(COMMANDS, inbox)
            found = await self._jetstream.value(InboxMessage.of, COMMANDS, subject)
            if found is None or found.command.kind == SETTLED:
                return
            held = (await self._held(inbox, last)).plus(found.command, -1)
            if await self._put_behind(last, inbox, command, held):
                return

    async def remove(self, project: str, run_id: str) -> None:
        """Remove all of a run's commands."""
        await asyncio.gather(
            self._jetstream.purge(COMMANDS, f"{inbox_subject(project, run_id)}.>"),
            self._jetstream.purge(COMMANDS, inbox_subject(project, run_id)),
        )

    async def drop_cancel(self, project: str, run_id: str, sequence: int) -> None:
        """Remove the command with this sequence that cancelled a run, which has ended."""
        await self._jetstream.purge(COMMANDS, inbox_subject(project, run_id), sequence)

    async def _put_behind(
        self, last: StoredMessage | None, inbox: str, command: Command, held: Held
    ) -> bool:
        """Store a command behind the last message of an inbox; False if there is another by now."""

        def same(last: StoredMessage) -> bool:
            ours = self._jetstream.foreign.read(InboxMessage.of, last)
            return ours is not None and ours.command == command

        try:
            await self._jetstream.put(
                COMMANDS,
                f"{inbox.removesuffix('*')}{token(command.id)}",
                encoded(command, held),
                behind=inbox,
                expected=0 if last is None else last.sequence,
                same=same,
            )
        except Conflict:
            return False
        return True

    async def _held(self, inbox: str, last: StoredMessage | None) -> Held:
        """Return what takes room in an inbox."""
        if last is None:
            return Held()
        newest = self._jetstream.foreign.read(InboxMessage.of, last)
        if newest is not None:
            return newest.held
        held = Held()
        for message in await self._messages(inbox, 0):
            one = self._jetstream.foreign.read(InboxMessage.of, message)
            held = held if one is None else held.plus(one.command)
        return held

    async def _messages(self, inbox: str, after: int) -> list[StoredMessage]:
        """Return the messages behind a sequence, all that the leader has."""
        last = await self._jetstream.last(COMMANDS, inbox)
        found: list[StoredMessage] = []
        while last is not None and after < last.sequence:
            page = await self._jetstream.page_or_next(COMMANDS, inbox, after + 1)
            if not page:
                break  # the inbox was removed meanwhile
            found += page
            after = page[-1].sequence
        return found

    async def _put_cancel(self, project: str, run_id: str) -> None:
        """Put the kind into the run's own message; what another version put there stays."""
        subject = inbox_subject(project, run_id)
        message = await self._jetstream.last(COMMANDS, subject)
        read = self._jetstream.foreign.read
        while CANCEL not in (kinds := read(kinds_of, message) or []):
            revision = 0 if message is None else message.sequence
            payload = orjson.dumps(sorted({*kinds, CANCEL}))
            try:
                await self._jetstream.put_value(
                    kinds_of, COMMANDS, subject, payload, revision=revision
                )
            except Conflict as conflict:
                message = conflict.last
            else:
                return


def encoded(command: Command, held: Held) -> bytes:
    """Return a command as a message of an inbox that holds so much with it."""
    heading = Heading(
        id=command.id,
        kind=command.kind,
        run_id=command.run_id,
        step_key=command.step_key,
        **asdict(held),
    )
    return orjson.dumps(asdict(heading)) + b"\n" + command.payload


def kinds_of(message: StoredMessage) -> list[str]:
    """Return the kinds of commands that the message on a run's own subject holds."""
    return KINDS.validate_json(message.data, strict=True)


def cancelled_run(message: StoredMessage) -> tuple[str, str] | None:
    """Return project and id of the run that the message on a run's own subject cancels, if it does.

    Raises:
        ValueError: it is not one of ours.

    """
    cancels = CANCEL in kinds_of(message)
    project, run_id = map(value_of, message.subject.split(".")[2:])
    if inbox_subject(project, run_id) != message.subject:
        raise NotOurs("no run has this subject")
    return (project, run_id) if cancels else None
