"""The port to inboxes: the commands that wait for a root run, and how many there may be."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

from polos_service.store.claims import Claim
from polos_service.store.commands import Command

INBOX_LIMIT = 1000
"""Commands that a run's inbox holds at most. The one whose id is CANCEL does not count, nor do
those of the kinds EARLY and SETTLED."""

INBOX_BYTES = 8 * 1024 * 1024
"""Bytes that the payloads of the same commands have at most."""

EARLY_LIMIT = 100
"""Commands of the kind EARLY that a run's inbox holds at most."""

EARLY_BYTES = 1024 * 1024
"""Bytes that their payloads have at most."""


class Inboxes(Protocol):
    """The inboxes of root runs. Every method may raise StoreUnavailable."""

    async def command(self, project: str, run_id: str, command: Command) -> Command | None:
        """Put a command last into the inbox of a root run, and wake the run or its holder.

        It is durable when this returns, and a suspended run is queued again. If the inbox holds
        a command with this id, whatever else is in it, nothing happens: the first writer wins.
        The command that cancels the root run is always taken; from then on the run is overdue.

        Returns:
            The command that stands in the inbox under this id: this one, or the earlier one.
            None if the run has ended: nothing happens then.

        Raises:
            ValueError: it has the id CANCEL and does not cancel the root run, or it cancels
                the root run and has another id.
            RunExpired: the run was removed by `expire`.
            RunNotFound: there is no such run.
            TooManyCommands: the inbox would hold more than INBOX_LIMIT commands or
                INBOX_BYTES bytes of payloads, or more than EARLY_LIMIT or EARLY_BYTES for
                one of the kind EARLY. One of the kind SETTLED always finds room.

        """
        ...

    async def settle(self, project: str, run_id: str, command: Command) -> None:
        """Put a command of the kind SETTLED in the place of the one that has its id.

        The place in the order of arrival stays, and whoever has seen the one has seen the other.
        Nothing happens if the inbox has none with this id, or one of the kind SETTLED.

        Raises:
            RunExpired: the run was removed by `expire`.
            RunNotFound: there is no such run.

        """
        ...

    async def commands(self, claim: Claim, seen: int) -> Sequence[Command]:
        """Wait until the run's inbox holds more than `seen` commands; return those behind them.

        They are in order of arrival. An inbox keeps its commands until the run has ended.

        Raises:
            Fenced: the claim was lost, as far as a store of many processes can tell.

        """
        ...

    async def inbox(self, project: str, run_id: str) -> Sequence[Command]:
        """Return what the run's inbox holds now, in order of arrival; nothing once it has ended.

        Raises:
            RunExpired: it was removed by `expire`.
            RunNotFound: there is no such run.

        """
        ...
