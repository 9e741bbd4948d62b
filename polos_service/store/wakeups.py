"""Wake-ups by key: whoever waits holds the key's event, and nobody else does."""

from __future__ import annotations

import asyncio
from collections.abc import Hashable
from weakref import WeakValueDictionary


class Wakeups:
    """Events by key. Take the event first, then look, then wait: no wake-up is lost."""

    def __init__(self) -> None:
        self._events: WeakValueDictionary[Hashable, asyncio.Event] = WeakValueDictionary()

    def event(self, key: Hashable) -> asyncio.Event:
        """Return the event that the next `notify` of this key sets."""
        event = self._events.get(key)
        if event is None:
            event = self._events[key] = asyncio.Event()
        return event

    def notify(self, key: Hashable) -> None:
        """Wake everyone who holds the key's event."""
        event = self._events.pop(key, None)
        if event is not None:
            event.set()
