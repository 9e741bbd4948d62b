"""Processes that end with the one that started them. Run as a file, it starts a program so.

It imports nothing of the service, so `python tied.py PARENT PROGRAM ARGUMENT...` starts quickly.
"""

from __future__ import annotations

import ctypes
import os
import signal
import sys

PR_SET_PDEATHSIG = 1
"""The number of the option, from linux/prctl.h; see prctl(2)."""


def tie() -> None:
    """Have the kernel kill this process when the thread that started it ends; on Linux only.

    It stays so when the process becomes another program.
    """
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)


def main(parent: int, program: list[str]) -> None:
    """Become the program, unless the parent is gone already."""
    tie()
    if os.getppid() == parent:
        os.execv(program[0], program)  # noqa: S606 - no shell, on purpose


if __name__ == "__main__":
    main(int(sys.argv[1]), sys.argv[2:])
