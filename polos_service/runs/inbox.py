"""What the holder of a run's claim looks for in the run's inbox."""

from __future__ import annotations

from collections.abc import Iterable

from polos_service.store import Claim, Command, RunStore


def cancels(claim: Claim, commands: Iterable[Command]) -> bool:
    """Return whether one of the commands cancels the claim's run, and not only a child of it."""
    return any(one.cancels(claim.run_id) for one in commands)


async def cancellation(store: RunStore, claim: Claim) -> None:
    """Return when a command that cancels the run has come after the claim began.

    Raises:
        Fenced: the claim was lost, as far as the store can tell.

    """
    seen = len(claim.commands)
    while not cancels(claim, found := await store.commands(claim, seen)):
        seen += len(found)
