"""The port to claims: which runs are queued, and who may write a run's log."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

from polos_service.store.commands import Command
from polos_service.store.runs import Parent

PARKED = "parked"
"""The member of a release's private line that tells that the run was suspended."""

LEFT_LIMIT = 1024
"""Characters of the text that says why a run was left, at most."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Claim:
    """The right to write a run's log, until a claim with a greater epoch begins.

    Attributes:
        epoch: 1 for the run's first claim, before which its log is empty; greater for each
            further one.
        latest: sequence of the newest event when the claim began, 0 if there was none.
        commands: what the run's inbox held when the claim began, in order of arrival.
        parent: the step that has started the run; None if a caller has.

    """

    project: str
    run_id: str
    workflow_id: str
    epoch: int
    latest: int
    create_time: int
    deadline: int | None
    definition: bytes
    commands: tuple[Command, ...]
    parent: Parent | None = None


@dataclass(frozen=True, kw_only=True, slots=True)
class Overdue:
    """A run that is open though it should have ended. `held` tells whether somebody holds it."""

    project: str
    run_id: str
    held: bool


class Claims(Protocol):
    """Queued, held and suspended runs. Every method may raise StoreUnavailable."""

    async def claim(self, workflows: Collection[str], limit: int) -> Sequence[Claim]:
        """Wait for queued runs of these workflows, and claim up to `limit` of them.

        Projects take turns as `fairness` describes. Within a project the oldest run comes first;
        on a store of many processes, the oldest of each workflow. Returns one claim at least, and
        does not wait for more. Each claim frame is durable then, and every earlier claim is
        fenced. `workflows` is read again whenever a run is queued.
        Cancelling the wait leaves no claim behind.
        """
        ...

    async def claim_run(self, project: str, run_id: str, *, force: bool = False) -> Claim | None:
        """Claim this run, which has to end, if it is queued; None if it is held or has ended.

        With `force`, a run that is held is taken from its holder, who is fenced: for one
        whose holder does not end it. This works for every workflow and decodes nothing, so
        that a run with a damaged log can be ended as well; a definition that the store has
        lost is empty.
        """
        ...

    async def release(self, claim: Claim, *, failed: bool = False, left: str = "") -> None:
        """Queue the claim's run again, for anyone. Nothing happens if it was lost or ended.

        `failed` says that the claim ended by a failure. It is noted in the log, and such a
        claim counts towards giving the run up. `left` says in at most LEFT_LIMIT characters why
        its holder cannot go on with the run: see `RunRecord`.
        """
        ...

    async def suspend(
        self, claim: Claim, *, wake_at: int | None, seen: int, deadline: int | None
    ) -> bool:
        """Release the claim and suspend its run, until a command comes or a time has come.

        Then the run is queued again, as `release` does it, whatever bound there is on queued runs.
        The release is marked in the log as one that lost nothing, with PARKED in its private
        part. A suspended run is not overdue and not in `waiting`.

        Args:
            claim: the claim; everything that was appended with it is durable.
            wake_at: when the run is queued again, in nanoseconds since the epoch; None: only by a
                command. At its deadline it is queued again in any case.
            seen: commands in the inbox that the holder has seen.
            deadline: the run's deadline from now on; None if it has none.

        Returns:
            False if the inbox holds more than `seen` commands: the claim is still held, and
            nothing has happened.

        Raises:
            Fenced: the claim was lost, or the run has ended.

        """
        ...

    async def wake(self, project: str, run_id: str) -> bool:
        """Queue a run again now, if it is suspended; return whether it was."""
        ...

    def on_room(self, wake: Callable[[], None]) -> Callable[[], None]:
        """Have `wake` called whenever runs have left the queue, until the returned function is.

        On a store of many processes: whenever this process has claimed runs.
        """
        ...

    async def waiting(self) -> Mapping[str, int]:
        """Return how many runs are queued, by workflow."""
        ...

    async def overdue(self, now: int, stuck: int) -> Sequence[Overdue]:
        """Return some open runs that should have ended: at their deadline, or when cancelled.

        They are queued, and should have ended at or before `now`, or held, and should have
        ended at or before `stuck`: their holder does not end them. Both are nanoseconds since
        the epoch. The cost does not grow with the number of runs that are queued or have ended.
        """
        ...
