"""The RunStore port: an ordered, durable log for each run, and who may write it.

Every record and every read is keyed by project first. To a store, frames and commands are
bytes: it does not know what the events in a frame mean, or what a command asks for.

Each part of the port is a module with its types: `runs`, their `logs` and `claims`, `inboxes` of
`commands`, and the index of open `waits`.
"""

from __future__ import annotations

from typing import Protocol

from polos_service.store.claims import LEFT_LIMIT, PARKED, Claim, Claims, Overdue
from polos_service.store.commands import CANCEL, EARLY, ENDED_RUN, SETTLED, Command, end_of
from polos_service.store.inboxes import EARLY_BYTES, EARLY_LIMIT, INBOX_BYTES, INBOX_LIMIT, Inboxes
from polos_service.store.logs import Entry, Frame, Logs, Slice
from polos_service.store.runs import ENDED, Key, NewRun, Parent, RunQuery, RunRecord, Runs
from polos_service.store.waits import OPEN_BYTES, OPEN_LIMIT, WaitRecord, Waits

__all__ = [
    "CANCEL",
    "EARLY",
    "EARLY_BYTES",
    "EARLY_LIMIT",
    "ENDED",
    "ENDED_RUN",
    "INBOX_BYTES",
    "INBOX_LIMIT",
    "LEFT_LIMIT",
    "OPEN_BYTES",
    "OPEN_LIMIT",
    "PARKED",
    "SETTLED",
    "Claim",
    "Claims",
    "Command",
    "Entry",
    "Frame",
    "Inboxes",
    "Key",
    "Logs",
    "NewRun",
    "Overdue",
    "Parent",
    "RunQuery",
    "RunRecord",
    "RunStore",
    "Runs",
    "Slice",
    "WaitRecord",
    "Waits",
    "end_of",
]


class RunStore(Runs, Claims, Logs, Inboxes, Waits, Protocol):
    """Durable logs, with what belongs to them. Every method may raise StoreUnavailable."""

    @property
    def shared(self) -> bool:
        """Whether several processes may work on it at once."""
        ...

    async def healthy(self) -> bool:
        """Return whether the store answers now."""
        ...

    async def close(self) -> None:
        """Finish what was submitted and release the store."""
        ...
