"""A run that is watched: its events go to an output, and Ctrl-C is a decision."""

from __future__ import annotations

import asyncio
import signal
import sys
from collections import deque
from collections.abc import AsyncGenerator, Awaitable, Callable, Iterator
from contextlib import aclosing, contextmanager
from enum import Enum
from typing import TYPE_CHECKING, Any, NoReturn

import typer

from polos_client.errors import ConnectionLost
from polos_service.cli.attending import Attend, OpenWaits
from polos_service.cli.exits import INTERRUPTED, REFUSED, complain
from polos_service.cli.keyboard import NothingTypedError, typed_line
from polos_service.cli.output import Output
from polos_service.cli.service import Way
from polos_service.cli.waits import how_to_answer

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


LOST_SECONDS = 1.0
"""Seconds without a connection that are not worth telling: a service restarts, for example."""

LOOK_SECONDS = 0.25
"""Seconds between two looks at the connection."""

HELD = 10_000
"""Events that are kept at most while a question is asked; then nothing more is read."""


class _DetachedError(Exception):
    """Whoever watches does so no longer."""


class Watch:
    """One run, shown until it ends.

    Attributes:
        last: the event that was shown last; None before the first.

    """

    def __init__(  # noqa: PLR0917 - what is watched, where it goes, and what happens meanwhile
        self,
        client: PolosClient,
        run_id: str,
        output: Output,
        decide: Decide,
        way: Way,
        attend: Attend | None = None,
    ) -> None:
        """Prepare to watch; nothing is read yet.

        Args:
            client: where the run is.
            run_id: the run.
            output: where its events go.
            decide: decides what Ctrl-C means.
            way: how the service is reached, for a further command.
            attend: does something about each wait that can be answered; None: nothing.

        """
        self.last: Event | None = None
        self._client = client
        self._run_id = run_id
        self._output = output
        self._decide = decide
        self._way = way
        self._attend = attend
        self._waits = OpenWaits()
        self._held: deque[Event] = deque()
        self._showing = asyncio.Event()
        self._showing.set()

    async def run(self, events: AsyncGenerator[Event, None]) -> Event | None:
        """Show the events, and return the one that ends the run; None if there was none.

        Raises:
            Exit: Ctrl-C detached, or the service is gone for good.
            CallError: the service refused: there is no such run, for example.

        """
        reading = asyncio.ensure_future(self._read(events))
        looking = asyncio.ensure_future(self._look())
        try:
            with self._output, interrupts() as interrupted:
                while await self._is_interrupted(interrupted, reading):
                    await self._interrupted(interrupted)
                self._show_held()
            reading.result()
        except ConnectionLost as error:
            complain(str(error))
            self._leave(REFUSED)
        except _DetachedError:
            typer.echo(f"Detached: run {self._run_id} continues.", err=True)
            self._leave(INTERRUPTED)
        finally:
            await ended(reading)
            await ended(looking)
        return self.last if self.last is not None and self.last.proto.terminal else None

    async def _read(self, events: AsyncGenerator[Event, None]) -> None:
        """Show the events as they come; while a question is asked, keep them, HELD at most."""
        async with aclosing(events):
            async for event in events:
                self._waits.add(event)
                self._held.append(event)
                if self._showing.is_set():
                    self._show_held()
                elif len(self._held) >= HELD:
                    await self._showing.wait()

    async def _look(self) -> None:
        """Tell the output how long the connection has been lost."""
        while True:
            lost = self._client.lost_seconds
            told = self._showing.is_set() and lost is not None and lost >= LOST_SECONDS
            self._output.lost(lost if told else None)
            await asyncio.sleep(LOOK_SECONDS)

    def _show_held(self) -> None:
        while self._held:
            self.last = self._held.popleft()
            self._output.show(self.last)

    async def _is_interrupted(
        self, interrupted: asyncio.Event, reading: asyncio.Future[None]
    ) -> bool:
        """Take care of waits until Ctrl-C, and return True; or to the end of the run: False."""
        attending = asyncio.ensure_future(self._take_care())
        try:
            if await comes_first(interrupted, reading, attending):
                return True
            if attending.done():
                attending.result()
            return False
        finally:
            await ended(attending)

    async def _take_care(self) -> None:
        """Attend to one wait after the other; without an attendant, to none for ever."""
        while True:
            wait, over = await self._waits.next()
            if self._attend is not None:
                with self._question():
                    await self._attend(self._client, wait, self._way, over)
            self._waits.leave(wait)

    @contextmanager
    def _question(self) -> Iterator[None]:
        """Leave the screen to a question, and go on after it unless it is broken off."""
        self._showing.clear()
        self._output.pause()
        yield
        self._output.resume()
        self._show_held()
        self._showing.set()

    async def _interrupted(self, again: asyncio.Event) -> None:
        with self._question():
            decision = await self._decide(again)
            if decision is Decision.DETACH:
                raise _DetachedError
            if decision is Decision.CANCEL:
                await self._client.cancel_run(self._run_id)

    def _leave(self, code: int) -> NoReturn:
        flags = self._way.flags()
        typer.echo(f"Read on with: polos runs tail {self._run_id} {flags}".rstrip(), err=True)
        for wait in self._waits:
            typer.echo(how_to_answer(wait, self._way), err=True)
        raise typer.Exit(code) from None


async def ended(task: asyncio.Future[None]) -> None:
    """Cancel a task, and wait until it has ended."""
    task.cancel()
    await asyncio.wait([task])


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
        try:
            answer = line.result().decode(errors="replace").strip().lower()
        except NothingTypedError:
            return Decision.DETACH
        if answer[:1] in [one.value for one in Decision]:
            return Decision(answer[:1])


def on_terminal() -> bool:
    """Return whether a person sees the output and can answer."""
    return sys.stdin.isatty() and sys.stdout.isatty()


async def comes_first(event: asyncio.Event, *others: asyncio.Future[Any]) -> bool:
    """Wait for any; return True, and clear the event, if it was set before one of the others."""
    setting: asyncio.Future[Any] = asyncio.ensure_future(event.wait())
    await asyncio.wait({setting, *others}, return_when=asyncio.FIRST_COMPLETED)
    setting.cancel()
    if any(one.done() for one in others):
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
