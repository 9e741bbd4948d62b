"""A run that is watched: its events go to an output, and Ctrl-C is a decision."""

from __future__ import annotations

import asyncio
import os
import signal
import sys
from collections.abc import AsyncGenerator, Awaitable, Callable, Iterator
from contextlib import aclosing, contextmanager
from enum import Enum
from typing import TYPE_CHECKING, Any, NoReturn

import typer

from polos_client.errors import ConnectionLost
from polos_service.cli.exits import INTERRUPTED, REFUSED, complain
from polos_service.cli.output import Output, come_back
from polos_service.cli.service import Way

if TYPE_CHECKING:
    from polos_client.calls.client import PolosClient
    from polos_client.event import Event


class Decision(Enum):
    """What Ctrl-C means."""

    DETACH = "d"
    CANCEL = "c"
    GO_ON = "g"


Decide = Callable[[asyncio.Event], Awaitable[Decision]]
"""Decides what Ctrl-C means; the event it is given is set by a further Ctrl-C."""

QUESTION = "Ctrl-C: [d]etach (the run continues), [c]ancel the run, or [g]o on? "


class _DetachedError(Exception):
    """Whoever watches does so no longer."""


class Watch:
    """One run, shown until it ends.

    Attributes:
        last: the event that was shown last; None before the first.

    """

    def __init__(
        self, client: PolosClient, run_id: str, output: Output, decide: Decide, way: Way
    ) -> None:
        """Prepare to watch; nothing is read yet."""
        self.last: Event | None = None
        self._client = client
        self._run_id = run_id
        self._output = output
        self._decide = decide
        self._way = way
        self._showing = asyncio.Event()
        self._showing.set()

    async def run(self, events: AsyncGenerator[Event, None]) -> Event | None:
        """Show the events, and return the one that ends the run; None if there was none.

        Raises:
            Exit: Ctrl-C detached, or the service is gone for good.
            CallError: the service refused: there is no such run, for example.

        """
        reading = asyncio.ensure_future(self._read(events))
        try:
            with self._output, interrupts() as interrupted:
                while await comes_first(interrupted, reading):
                    await self._interrupted(interrupted)
            return reading.result()
        except ConnectionLost as error:
            complain(str(error))
            self._leave(REFUSED)
        except _DetachedError:
            typer.echo(f"Detached: run {self._run_id} continues.", err=True)
            self._leave(INTERRUPTED)
        finally:
            reading.cancel()
            await asyncio.wait([reading])

    async def _read(self, events: AsyncGenerator[Event, None]) -> Event | None:
        async with aclosing(events):
            async for event in events:
                await self._showing.wait()
                self._output.show(event)
                self.last = event
        return self.last if self.last is not None and self.last.proto.terminal else None

    async def _interrupted(self, again: asyncio.Event) -> None:
        self._showing.clear()
        self._output.pause()
        decision = await self._decide(again)
        if decision is Decision.DETACH:
            raise _DetachedError
        if decision is Decision.CANCEL:
            await self._client.cancel_run(self._run_id)
        self._output.resume()
        self._showing.set()

    def _leave(self, code: int) -> NoReturn:
        come_back(self._run_id, self._way)
        raise typer.Exit(code) from None


async def detach(_again: asyncio.Event) -> Decision:
    """Detach: nobody can be asked, or nothing else makes sense."""
    return Decision.DETACH


async def cancel(_again: asyncio.Event) -> Decision:
    """Cancel the run."""
    return Decision.CANCEL


async def ask(again: asyncio.Event) -> Decision:
    """Ask on the terminal; Ctrl-C once more, or Ctrl-D, detaches.

    What was typed before is no answer: Ctrl-C has made the terminal forget it.
    """
    while True:
        typer.echo(f"\r{QUESTION}", nl=False, err=True)  # over the ^C that the terminal shows
        line = asyncio.ensure_future(typed_line())
        if await comes_first(again, line):
            line.cancel()
            typer.echo(err=True)
            return Decision.DETACH
        answer = line.result()
        if answer[:1] in [one.value for one in Decision]:
            return Decision(answer[:1])
        if not answer:
            return Decision.DETACH


def on_terminal() -> bool:
    """Return whether a person sees the output and can answer."""
    return sys.stdin.isatty() and sys.stdout.isatty()


async def typed_line() -> str:
    """Return the next line from the terminal, in lower case; empty after Ctrl-D."""
    loop = asyncio.get_running_loop()
    readable = asyncio.Event()
    loop.add_reader(sys.stdin.fileno(), readable.set)
    try:
        await readable.wait()
        return os.read(sys.stdin.fileno(), 1024).decode(errors="replace").lower()
    finally:
        loop.remove_reader(sys.stdin.fileno())


async def comes_first(event: asyncio.Event, other: asyncio.Future[Any]) -> bool:
    """Wait for either; return True, and clear the event, if it was set before `other` is done."""
    setting: asyncio.Future[Any] = asyncio.ensure_future(event.wait())
    await asyncio.wait({setting, other}, return_when=asyncio.FIRST_COMPLETED)
    setting.cancel()
    if other.done():
        return False
    event.clear()
    return True


@contextmanager
def interrupts() -> Iterator[asyncio.Event]:
    """Give an event that Ctrl-C sets, instead of ending the program."""
    loop = asyncio.get_running_loop()
    interrupted = asyncio.Event()
    loop.add_signal_handler(signal.SIGINT, interrupted.set)
    try:
        yield interrupted
    finally:
        loop.remove_signal_handler(signal.SIGINT)
