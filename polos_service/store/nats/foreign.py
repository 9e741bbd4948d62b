"""The gate between NATS and our values: what is not ours is counted and skipped.

Whoever may publish in the account can put anything under our subjects. So every message
goes through `Foreign.read`, and whoever reads goes on without those that are not ours.
"""

from __future__ import annotations

import time
from collections import OrderedDict
from collections.abc import Callable
from typing import TypeVar

from polos_service.logs import get_logger
from polos_service.store.nats.stored import Stored

T = TypeVar("T")

PERIOD = 60.0
"""Seconds between two log entries about foreign messages, at least."""

REMEMBERED = 4096
"""Foreign messages that are remembered, so that each counts once however often it is read."""

TOLD = 200
"""Characters of a subject, and of a reason, in the service's log."""

UNKNOWN = -1
"""In place of a sequence: it is a message of a stream, and not known which of its subject."""

log = get_logger(__name__)


class NotOurs(ValueError):
    """A message is not one of ours; the text says why."""


class Foreign:
    """Reads messages, and counts those that are not ours. `count` is how many there were."""

    def __init__(self) -> None:
        self.count = 0
        self._known: OrderedDict[tuple[str, int], None] = OrderedDict()
        self._next = 0.0

    def read(self, decode: Callable[[Stored], T], message: Stored | None) -> T | None:
        """Return what a message holds; None if there is no message, or it is not ours.

        `decode` raises ValueError (NotOurs, say) for a message that is not ours.
        """
        if message is None:
            return None
        try:
            return decode(message)
        except ValueError as error:
            self.skip(message.subject, message.sequence, str(error))
            return None

    def skip(self, subject: str, sequence: int, why: str) -> None:
        """Count a foreign message; `sequence` is 0 if no stream holds it."""
        key = (subject, sequence)
        if sequence:
            if key in self._known:
                return
            self._known[key] = None
            if len(self._known) > REMEMBERED:
                self._known.popitem(last=False)
        self.count += 1
        if time.monotonic() >= self._next:
            self._next = time.monotonic() + PERIOD
            log.warning(
                "foreign_messages_skipped",
                count=self.count,
                subject=subject[:TOLD],
                sequence=sequence,
                why=why.partition("\n")[0][:TOLD],
            )
