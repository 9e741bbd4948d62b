"""What the loop knows of open runs, so that it need not ask the file while they start."""

from __future__ import annotations

from polos_service.store import Claim, Key, NewRun
from polos_service.store.wakeups import Wakeups


class OpenRuns:
    """The open runs that were created or claimed here; wakes who waits for runs or commands."""

    def __init__(self, wakeups: Wakeups) -> None:
        self._wakeups = wakeups
        self._unwritten: set[Key] = set()
        self._inboxes: dict[Key, int] = {}

    def __contains__(self, key: Key) -> bool:
        """Return whether the run is open, as far as is known: it was not released since."""
        return key in self._inboxes

    def created(self, run: NewRun, run_id: str) -> None:
        """Note that a run was created, or that its request id had made one: that with `run_id`."""
        if run_id == run.run_id:
            key = (run.project, run_id)
            self._unwritten.add(key)
            self._inboxes[key] = 0
        self._wakeups.notify("queue")

    def claimed(self, claim: Claim) -> None:
        """Note what the inbox of a claimed run holds."""
        self._inboxes[claim.project, claim.run_id] = len(claim.commands)

    def appending(self, key: Key) -> None:
        """Note that an append begins: from now on the file may hold events of the run."""
        self._unwritten.discard(key)

    def commanded(self, key: Key) -> None:
        """Note that a command came; one that the inbox holds already counts again."""
        if key in self._inboxes:
            self._inboxes[key] += 1
        else:
            self._wakeups.notify("queue")  # it may have woken a suspended run
        self._wakeups.notify(("inbox", *key))

    def left(self, key: Key) -> None:
        """Note that a run has ended, or was released."""
        self._inboxes.pop(key, None)

    def is_unwritten(self, key: Key) -> bool:
        """Return whether the log certainly holds no event yet."""
        return key in self._unwritten

    def is_commanded(self, key: Key, seen: int) -> bool:
        """Return whether the inbox may hold more than the first `seen` commands."""
        return self._inboxes.get(key) != seen
