"""Names what holds the event loop: an `async def` tool that blocks stalls every run."""

from __future__ import annotations

import asyncio
import contextlib
import sys
import threading
from collections.abc import Callable, Mapping
from types import CodeType, FrameType

from polos_service.logs import get_logger

log = get_logger(__name__)

GROWTH = 10
"""How many times longer than at the last warning the loop is held when the next one comes."""

IN_TOOL = "make the tool a plain def, then it runs in a thread"
"""What to do against a tool that holds the loop."""

ELSEWHERE = (
    "await asyncio.to_thread for what blocks, or serve the agents from a process of their own"
)
"""What to do against other code in the service's process that does."""


class Watchdog:
    """A thread that asks the loop for a sign of life, and logs who keeps it from answering."""

    def __init__(self, tools: Callable[[], Mapping[CodeType, str]], limit: float) -> None:
        """Watch the running loop, from this thread, until `close` or until the loop is closed.

        Args:
            tools: returns the tools' ids by the code of their functions, as they are then.
            limit: seconds of silence after which a warning is logged; the next one comes after
                GROWTH times that, and so on.

        """
        self._tools = tools
        self._limit = limit
        self._loop = asyncio.get_running_loop()
        self._loop_thread = threading.get_ident()
        self._closed = threading.Event()
        self._thread = threading.Thread(target=self._watch, name="polos-watchdog", daemon=True)
        self._thread.start()

    def close(self) -> None:
        """Stop watching."""
        self._closed.set()

    def _watch(self) -> None:
        while not self._closed.wait(self._limit):
            alive = threading.Event()
            try:
                self._loop.call_soon_threadsafe(alive.set)
            except RuntimeError:  # the loop is closed
                return
            silence, more = self._limit, self._limit
            while not (alive.wait(more) or self._closed.is_set() or self._loop.is_closed()):
                self._tell(silence)
                more = silence * (GROWTH - 1)
                silence *= GROWTH

    def _tell(self, seconds: float) -> None:
        # The documented way to another thread's stack, in spite of its underscore.
        frame = sys._current_frames().get(self._loop_thread)  # noqa: SLF001
        at, tool = "unknown", None
        if frame is not None:
            at = f"{frame.f_code.co_filename}:{frame.f_lineno} in {frame.f_code.co_name}"
        with contextlib.suppress(RuntimeError):  # an agent is being added meanwhile
            tool = self._culprit(frame)
        log.warning(
            "loop_blocked",
            tool=tool,
            at=at,
            seconds=seconds,
            advice=IN_TOOL if tool else ELSEWHERE,
        )

    def _culprit(self, frame: FrameType | None) -> str | None:
        tools = self._tools()
        while frame is not None:
            if frame.f_code in tools:
                return tools[frame.f_code]
            frame = frame.f_back
        return None
