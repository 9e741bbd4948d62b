"""Ends streams whose credentials have ended. One look a second covers every kind of credential."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from polos_client.errors import Unauthenticated
from polos_service.caller import Caller

PERIOD = 1.0
"""Seconds between two looks at the open streams."""

AT_ONCE = 1000
"""Streams that are looked at before the loop gets a turn."""

End = Callable[[Unauthenticated], None]
"""Ends a stream with this error; it may be called again."""


class OpenStreams:
    """The open streams of callers with credentials."""

    def __init__(self, ended: Callable[[Caller], Unauthenticated | None]) -> None:
        """Prepare.

        Args:
            ended: returns why the credentials of a caller are no longer good; None if they are.

        """
        self._ended = ended
        self._open: dict[object, tuple[Caller, End]] = {}

    @contextmanager
    def ending(self, caller: Caller, end: End) -> Iterator[None]:
        """Have `end` called when the caller's credentials end, within the block."""
        if not caller.credential:
            yield
            return
        place = object()
        self._open[place] = (caller, end)
        try:
            yield
        finally:
            del self._open[place]

    async def watch(self) -> None:
        """Look at the open streams until cancelled."""
        while True:
            await asyncio.sleep(PERIOD)
            for number, (caller, end) in enumerate(list(self._open.values()), 1):
                if (error := self._ended(caller)) is not None:
                    end(error)
                if not number % AT_ONCE:
                    await asyncio.sleep(0)
