"""Standard input, output and error, where whoever started the command has closed some."""

from __future__ import annotations

import os
import sys


def fill_missing() -> None:
    """Open the null device for each standard descriptor that is closed.

    Else the next file that the process opens, the database perhaps, gets the number, and
    whatever is printed goes into it.
    """
    for fd, name in enumerate(("stdin", "stdout", "stderr")):
        try:
            os.fstat(fd)
        except OSError:
            os.open(os.devnull, os.O_RDWR)  # the lowest number that is free
        if getattr(sys, name) is None:
            mode = "w" if fd else "r"
            setattr(sys, name, open(fd, mode, encoding="utf-8", closefd=False))  # noqa: SIM115
