"""What a person types at the terminal, a line at a time; waiting for it can be cancelled."""

from __future__ import annotations

import asyncio
import os
import sys
import termios

import typer

from polos_service.cli.exits import complain

LINE_BYTES = 4096
"""Bytes of a line, its newline included, at which Linux drops the rest (termios(3))."""


class NothingTypedError(Exception):
    """Ctrl-D instead of a line."""


def person_there() -> bool:
    """Return whether a person sees questions on standard error and can answer them."""
    return sys.stdin.isatty() and sys.stderr.isatty() and in_foreground()


def in_foreground() -> bool:
    """Return whether this process may read from its terminal; else it would be stopped."""
    try:
        return os.tcgetpgrp(sys.stdin.fileno()) == os.getpgrp()
    except OSError:  # a terminal of others
        return True


def forget_typed() -> None:
    """Drop what was typed before the question: it is not meant as an answer."""
    termios.tcflush(sys.stdin.fileno(), termios.TCIFLUSH)


async def ask_line(prompt: str) -> str:
    """Ask, and return the line without spaces around it.

    Raises:
        NothingTypedError: Ctrl-D was typed instead.

    """
    while True:
        typer.echo(prompt, nl=False, err=True)
        try:
            line = await typed_line()
        except (NothingTypedError, asyncio.CancelledError):
            typer.echo(err=True)
            raise
        if len(line) < LINE_BYTES:
            return line.decode(errors="replace").strip()
        forget_typed()
        complain(
            f"the line is cut: terminals take at most {LINE_BYTES} bytes. Ctrl-D says how to "
            "answer otherwise, for example from a file"
        )


async def typed_line() -> bytes:
    """Return the next line from the terminal, with its newline.

    Raises:
        NothingTypedError: Ctrl-D was typed instead, or the terminal has gone.

    """
    loop, terminal = asyncio.get_running_loop(), sys.stdin.fileno()
    readable = asyncio.Event()
    line = b""
    loop.add_reader(terminal, readable.set)
    try:
        while not line.endswith(b"\n"):
            await readable.wait()
            readable.clear()
            if not (piece := read(terminal)):
                break
            line += piece
    finally:
        loop.remove_reader(terminal)
    if not line:
        raise NothingTypedError
    return line


def read(terminal: int) -> bytes:
    """Return what is there to read; nothing after Ctrl-D, and where the terminal has gone."""
    try:
        return os.read(terminal, LINE_BYTES)
    except OSError:
        return b""
