"""Wake-ups by key: for whoever waits once, and for whoever follows."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Hashable
from weakref import WeakValueDictionary


class Wakeups:
    """Events and callbacks by key. An event lives only while somebody waits for it."""

    def __init__(self) -> None:
        self._events: WeakValueDictionary[Hashable, asyncio.Event] = WeakValueDictionary()
        self._followers: dict[Hashable, dict[object, Callable[[], None]]] = {}

    def event(self, key: Hashable) -> asyncio.Event:
        """Return the event that the next `notify` of this key sets.

        Take the event, then look, then wait: so no wake-up is lost.
        """
        event = self._events.get(key)
        if event is None:
            event = self._events[key] = asyncio.Event()
        return event

    def follow(self, key: Hashable, wake: Callable[[], None]) -> Callable[[], None]:
        """Have `wake` called at each `notify` of this key; return what ends that."""
        token = object()
        self._followers.setdefault(key, {})[token] = wake

        def leave() -> None:
            followers = self._followers.get(key, {})
            followers.pop(token, None)
            if not followers:
                self._followers.pop(key, None)

        return leave

    def followed(self, key: Hashable) -> bool:
        """Return whether anybody follows this key."""
        return key in self._followers

    def notify(self, key: Hashable) -> None:
        """Wake everyone who holds the key's event or follows the key."""
        followers = self._followers.get(key)
        if followers is not None:
            for wake in tuple(followers.values()):
                wake()
        event = self._events.pop(key, None)
        if event is not None:
            event.set()
