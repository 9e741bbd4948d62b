"""Names what holds the event loop: an `async def` tool that blocks stalls every run."""

from __future__ import annotations

import asyncio
import sys
import threading
import traceback
from collections.abc import Callable, Mapping
from types import CodeType, FrameType

import structlog

log = structlog.get_logger(__name__)


class Watchdog:
    """A thread that asks the loop for a sign of life, and tells who keeps it from answering.

    `tools` returns the tools' ids by the code of their functions, as they are then.
    """

    def __init__(self, tools: Callable[[], Mapping[CodeType, str]], limit: float) -> None:
        """Watch the running loop; a silence of `limit` seconds is told."""
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
            if not alive.wait(self._limit):
                self._tell()
                alive.wait()

    def _tell(self) -> None:
        # The module's documented way to another thread's stack, underscore or not.
        frame = sys._current_frames().get(self._loop_thread)  # noqa: SLF001
        if frame is None:
            return
        where = traceback.extract_stack(frame)[-1]
        log.warning(
            "loop_blocked",
            tool=self._culprit(frame),
            at=f"{where.filename}:{where.lineno} in {where.name}",
            seconds=self._limit,
            advice="make the tool a plain def, then it runs in a thread",
        )

    def _culprit(self, frame: FrameType | None) -> str | None:
        tools = self._tools()
        while frame is not None:
            if frame.f_code in tools:
                return tools[frame.f_code]
            frame = frame.f_back
        return None
