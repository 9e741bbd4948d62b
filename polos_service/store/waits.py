"""The port to the index of open waits."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Protocol

OPEN_LIMIT = 1000
"""Open waits of a run that are returned at most."""

OPEN_BYTES = 8 * 1024 * 1024
"""Bytes of the data of open waits of a run that are returned at most."""


@dataclass(frozen=True, kw_only=True, slots=True)
class WaitRecord:
    """An open wait, as the index of open waits has it. It is a cache: the log is the truth.

    Attributes:
        run_id: the root run.
        wait_id: sequence of the wait's event in the log of the root run.
        create_time: when the wait began, in nanoseconds since the epoch.
        data: what is told of it; at most 300 KiB, and not decoded by the store.
        order: grows with the time at which waits were opened, where the store does not order them
            by `create_time`.

    """

    run_id: str
    wait_id: int
    create_time: int
    data: bytes
    order: int | None = field(default=None, compare=False)

    @property
    def place(self) -> tuple[int, str, int]:
        """Where it stands among the waits of its project: oldest first."""
        first = self.create_time if self.order is None else self.order
        return first, self.run_id, self.wait_id


class Waits(Protocol):
    """The index of open waits. Every method may raise StoreUnavailable."""

    async def open_wait(self, project: str, wait: WaitRecord) -> None:
        """Put a wait into the index of open waits; again is the same as once.

        It leaves the index by `close_wait`, or when the run has ended or was removed.
        """
        ...

    async def close_wait(self, project: str, run_id: str, wait_id: int) -> None:
        """Take a wait out of the index, if it is there."""
        ...

    async def open_waits(self, project: str, run_id: str) -> Sequence[WaitRecord]:
        """Return the waits of a root run that are in the index, oldest first.

        At most OPEN_LIMIT, and as many as have OPEN_BYTES of data.
        """
        ...

    async def list_waits(
        self, project: str, limit: int, after: tuple[int, str, int] | None = None
    ) -> Sequence[WaitRecord]:
        """Return up to `limit` waits of a project that are in the index, oldest first.

        Args:
            project: whose runs wait.
            limit: how many to return at most.
            after: the `place` of the last one of the page before; None: from the first.

        """
        ...
