"""One thread beside the event loop, for work on large inputs."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar, TypeVarTuple

SMALL = 32 * 1024
"""Bytes of an input that is worked on in the loop, in a few milliseconds."""

Arguments = TypeVarTuple("Arguments")
Result = TypeVar("Result")


class SideThread:
    """Does work on large inputs, one after the other, while the loop goes on."""

    def __init__(self) -> None:
        self._thread = ThreadPoolExecutor(1, "polos-check")

    async def call(
        self, size: int, function: Callable[[*Arguments], Result], *arguments: *Arguments
    ) -> Result:
        """Return what the function returns: called at once, or in the thread for a large input.

        Args:
            size: bytes of the input that the function works on.
            function: what is called.
            arguments: what it is called with.

        """
        if size <= SMALL:
            return function(*arguments)
        loop = asyncio.get_running_loop()
        return await loop.run_in_executor(self._thread, function, *arguments)

    def close(self) -> None:
        """Take no further work; what is under way ends by itself."""
        self._thread.shutdown(wait=False)
