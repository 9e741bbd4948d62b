"""What a run's code has begun and does not wait for, once it has ended or is stopped."""

from __future__ import annotations

import asyncio
from collections.abc import Collection
from typing import Any

from polos_service.logs import get_logger
from polos_service.runs.branch import Branch
from polos_service.runs.gate import QUIET
from polos_service.runs.pausing import Pausing
from polos_service.runs.stepping import Stepping

KEYS_SHOWN = 20
"""Step keys at most that a warning in the service's log names."""

STOP_PATIENCE = 4.0
"""Seconds that cancelled tasks of the code get to clean up before it starts over or ends."""

log = get_logger(__name__)


class Leftovers:
    """What one run leaves behind, while its code is run once."""

    def __init__(
        self,
        branch: Branch,
        steps: Stepping,
        waits: Pausing,
    ) -> None:
        self._branch = branch
        self._journal = branch.journal
        self._steps = steps
        self._waits = waits

    async def settle(self) -> None:
        """End what is open, once the code has returned or raised.

        Each step and each wait is recorded as cancelled, whether it was begun now or before.
        """
        branch = self._branch
        await self._cancelled()
        left = [*branch.open, *branch.waits]
        await self.stop()
        for key in branch.unasked():
            self._take_up(key)
        for key in list(branch.open):
            self._steps.abandon(key)
        for key in list(branch.waits):
            self._waits.cease(key)
        if left:
            log.warning("steps_not_awaited", run_id=branch.run_id, **listed(left))

    async def stop(self) -> None:
        """Stop the tasks of the code, but for the one that calls."""
        self._branch.over = True
        tasks = self._branch.tasks() - {asyncio.current_task()}
        for task in tasks:
            task.cancel()
        if tasks:
            await asyncio.wait(tasks, timeout=STOP_PATIENCE)

    def cancel_children(self) -> None:
        """Record that every child is cancelled that is under way, or was left so by the log."""
        for key in self._branch.unasked():
            self._take_up(key)
        for key in self._branch.open:
            self._steps.take_up(key)
        for child in self._branch.children.values():
            child.cancel()

    def drop(self) -> None:
        """Record the open steps of a cancelled run, and let nobody answer what it waits for."""
        for key in list(self._branch.open):
            self._steps.abandon(key)
        for key in list(self._branch.waits):
            self._waits.drop(key)

    def leave_open(self) -> None:
        """Record nothing of what is open: the code is stopped, and goes on with it later."""
        self._branch.recording = False
        for child in self._branch.children.values():
            child.leave_open()

    def warn_of_unasked(self) -> None:
        """Say in the service's log which recorded steps the run's code no longer asked for."""
        unasked = self._branch.unasked()
        if unasked:
            log.warning("steps_unasked", run_id=self._branch.run_id, **listed(unasked))

    async def _cancelled(self) -> None:
        """Let end what the code has cancelled: that is not left behind."""
        branch = self._branch
        if not branch.open and not branch.waits:
            return
        branch.over = True
        for _ in range(QUIET):
            await asyncio.sleep(0)
        tasks = {one for one in branch.tasks() - {asyncio.current_task()} if one.cancelling()}
        if tasks:
            await asyncio.wait(tasks, timeout=STOP_PATIENCE)

    def _take_up(self, key: str) -> None:
        """Have open what the log has as open, and the code has not asked for."""
        if key in self._journal.results:
            return
        if key in self._journal.waits:
            self._branch.waits[key] = self._journal.waits[key]
            return
        if key not in self._journal.attempts:  # a wait that was given up before a start anew
            return
        self._branch.open[key] = self._steps.attempt(key, self._journal.kinds[key], None)
        self._steps.take_up(key)


def listed(keys: Collection[str]) -> dict[str, Any]:
    """Return how many keys there are, and the first of them, for the service's log."""
    return {"count": len(keys), "step_keys": ", ".join([*keys][:KEYS_SHOWN])}
