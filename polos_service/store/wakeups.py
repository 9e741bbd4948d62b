"""Wake-ups by key. An event lives only while somebody waits for it."""

from __future__ import annotations

import asyncio
from collections.abc import Hashable
from weakref import WeakValueDictionary


class Wakeups:
    """Events by key. Take the event, then look, then wait: so no wake-up is lost."""

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
