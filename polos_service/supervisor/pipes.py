"""Pipes from child processes, read line by line."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Callable

PIECE = 64 * 1024
"""Bytes that are read at once."""

LAST_PIECES = 64
"""Pieces that are read at most of what an ended process has left in a pipe."""


class LinePipe:
    """A pipe whose lines are handed on, whole and without their ends, as they come.

    Attributes:
        child_end: the descriptor for the child; `started` closes it here.

    """

    def __init__(self, hand_on: Callable[[bytes], None], *, longest: float = PIECE) -> None:
        """Make the pipe, inside the running loop.

        Args:
            hand_on: takes the lines.
            longest: bytes of a line beyond which it is handed on in pieces.

        """
        self._hand_on = hand_on
        self._longest = longest
        self._rest = b""
        self._end, self.child_end = os.pipe()
        os.set_blocking(self._end, False)
        asyncio.get_running_loop().add_reader(self._end, self._read)

    @property
    def closed(self) -> bool:
        """Whether no process has the child's end any more, and all lines were handed on."""
        return self._end < 0

    def started(self) -> None:
        """Close the child's end in this process: the child has it, or was not started."""
        os.close(self.child_end)

    def empty(self) -> None:
        """Hand on what is left of a child that has ended.

        The pipe stays: children of the child may have it, and it is closed after the last one.
        """
        for _ in range(LAST_PIECES):
            if not self._read():
                return

    def _read(self) -> bool:
        """Read a piece; return whether there was one."""
        if self.closed:
            return False
        try:
            piece = os.read(self._end, PIECE)
        except BlockingIOError:
            return False
        *lines, self._rest = (self._rest + piece).split(b"\n")
        if self._rest and (not piece or len(self._rest) > self._longest):
            lines.append(self._rest)
            self._rest = b""
        for line in lines:
            self._hand_on(line)
        if not piece:
            self._close()
        return bool(piece)

    def _close(self) -> None:
        asyncio.get_running_loop().remove_reader(self._end)
        os.close(self._end)
        self._end = -1
