"""`polos serve` in a child process, for a parent that starts it again."""

from __future__ import annotations

import asyncio
import signal
import sys
from asyncio.subprocess import DEVNULL, Process
from collections.abc import Mapping, Sequence
from typing import Any

CODE = "from polos_service.cli import main; main()"
"""What the command `polos` is."""

COMMAND: tuple[str, ...] = (sys.executable, "-P", "-c", CODE)
"""The command `polos`. With -P it imports nothing of its own from the current folder, as an
installed command does not."""


async def serve(
    targets: Sequence[str], *options: str, environment: Mapping[str, str], **more: Any
) -> Process:
    """Start `polos serve` of the targets with options; `more` goes to `create_subprocess_exec`."""
    # In a session of its own: Ctrl-C reaches the parent alone, which passes it on once.
    return await asyncio.create_subprocess_exec(
        *COMMAND,
        "serve",
        *targets,
        *options,
        stdin=DEVNULL,
        env=environment,
        start_new_session=True,
        **more,
    )


def signal_to(child: Process, number: signal.Signals) -> None:
    """Send a signal to a process, if it has not ended."""
    if child.returncode is None:
        child.send_signal(number)


def how_ended(code: int) -> str:
    """Return the exit code of a process, or the signal that ended it, in words."""
    return f"exit code {code}" if code >= 0 else signal.Signals(-code).name
