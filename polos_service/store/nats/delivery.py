"""Delivery of commands: into the inbox of a run, which is woken if it is parked."""

from __future__ import annotations

from polos_service.store import Command
from polos_service.store.nats.inbox import Inbox
from polos_service.store.nats.log import Log
from polos_service.store.nats.parking import Parking
from polos_service.store.nats.records import Life, Record, Records
from polos_service.store.nats.subjects import log_subject


class Delivery:
    """Delivers commands, and wakes runs."""

    def __init__(self, log: Log, records: Records, inbox: Inbox, parking: Parking) -> None:
        self._log = log
        self._records = records
        self._inbox = inbox
        self._parking = parking

    async def put(self, project: str, run_id: str, command: Command) -> Command | None:
        """Put a command into the inbox of a run that has not ended, and wake the run.

        Returns:
            The command that stands in the inbox; None if the run was removed meanwhile.

        """
        stands = await self._inbox.put(project, run_id, command)
        record = await self._records.sought(project, run_id)
        if record is None or record.life not in (Life.OPEN, Life.ENDED):
            await self._inbox.remove(project, run_id)  # as its removal did a moment too early
            return None
        # Looked at behind the command: whoever parks the run looks for commands behind its mark.
        await self._wake(record)
        return stands

    async def order(self, project: str, run_id: str, command: Command) -> None:
        """Put a command into the inbox of a run, unless its record says that it has ended."""
        if await self._records.open(project, run_id):
            await self.put(project, run_id, command)

    async def wake(self, project: str, run_id: str) -> bool:
        """Queue a run again, if it is parked; return whether it is."""
        record = await self._records.find(project, run_id)
        return record is not None and await self._wake(record)

    async def _wake(self, record: Record) -> bool:
        last = await self._log.last(log_subject(record.project, record.run_id))
        if last is None or record.life is not Life.OPEN:
            return False
        await self._parking.wake(record, last.head)
        return last.head.parked is not None
