"""The inboxes of runs: commands for whoever holds the claim."""

from __future__ import annotations

import orjson
from pydantic import TypeAdapter

from polos_service.store.nats.jetstream import Conflict, JetStream
from polos_service.store.nats.messages import StoredMessage
from polos_service.store.nats.subjects import COMMANDS, inbox_subject

KINDS = TypeAdapter(list[str])
"""Reads an inbox."""


class Inbox:
    """The bucket of commands."""

    def __init__(self, jetstream: JetStream) -> None:
        self._jetstream = jetstream

    async def commands(self, project: str, run_id: str) -> frozenset[str]:
        """Return what the run's inbox holds."""
        found = await self._jetstream.value(kinds_of, COMMANDS, inbox_subject(project, run_id))
        return found or frozenset()

    async def put(self, project: str, run_id: str, kind: str) -> None:
        """Put a command into the run's inbox, once."""
        subject = inbox_subject(project, run_id)
        message = await self._jetstream.last(COMMANDS, subject)
        read = self._jetstream.foreign.read
        while kind not in (held := read(kinds_of, message) or frozenset()):
            revision = 0 if message is None else message.sequence
            payload = orjson.dumps(sorted(held | {kind}))
            try:
                await self._jetstream.put_value(
                    kinds_of, COMMANDS, subject, payload, revision=revision
                )
            except Conflict as conflict:
                message = conflict.last
            else:
                return

    async def remove(self, project: str, run_id: str) -> None:
        """Remove all of the run's commands."""
        await self._jetstream.purge(COMMANDS, inbox_subject(project, run_id))


def kinds_of(message: StoredMessage) -> frozenset[str]:
    """Return the commands that an inbox's message holds."""
    return frozenset(KINDS.validate_json(message.data, strict=True))
