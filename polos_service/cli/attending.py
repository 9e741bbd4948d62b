"""The waits of a run that is watched: which are open, and what the watcher does about them."""

from __future__ import annotations

import asyncio
import uuid
from collections.abc import Awaitable, Callable, Iterator
from typing import TYPE_CHECKING, Any

import typer

from polos_client.errors import (
    AlreadyAnswered,
    CallError,
    ConnectionLost,
    InvalidRequest,
    WaitExpired,
    WaitNotOpen,
)
from polos_service.cli.exits import complain
from polos_service.cli.keyboard import NothingTypedError, person_there
from polos_service.cli.output import ENDS, json_of, kind_of
from polos_service.cli.prompts import answer_to
from polos_service.cli.service import Way
from polos_service.cli.text import visible
from polos_service.cli.waits import asks, how_to_answer, kind_name, wait_of

if TYPE_CHECKING:
    from polos.v1.run_pb2 import Wait
    from polos_client.calls.client import PolosClient
    from polos_client.event import Event

Attend = Callable[["PolosClient", "Wait", Way, asyncio.Event], Awaitable[None]]
"""Does something about an open wait; the event is set when the wait is over."""


class OpenWaits:
    """The waits of a run that can be answered, as its log tells."""

    def __init__(self) -> None:
        """Begin before the first event."""
        self._open: dict[int, Wait] = {}
        self._over: dict[int, asyncio.Event] = {}
        self._left: set[int] = set()
        self._changed = asyncio.Event()

    def __iter__(self) -> Iterator[Wait]:
        """Go through the open waits, the oldest first."""
        return iter(self._open.values())

    def add(self, event: Event) -> None:
        """Take the next event of the log."""
        proto = event.proto
        if proto.HasField("suspended"):
            wait = wait_of(proto)
            if kind_name(wait.kind) not in ("timer", "run"):
                self._open[wait.wait_id] = wait
                self._over[wait.wait_id] = asyncio.Event()
                self._changed.set()
        elif proto.HasField("resumed"):
            self._close(proto.resumed.wait_id)
        elif kind_of(event) in ENDS:
            for wait_id, wait in list(self._open.items()):
                if proto.terminal or wait.run_id == proto.run_id:
                    self._close(wait_id)

    def _close(self, wait_id: int) -> None:
        if self._open.pop(wait_id, None) is not None:
            self._over.pop(wait_id).set()

    async def next(self) -> tuple[Wait, asyncio.Event]:
        """Return the oldest open wait that is not left alone, and what is set when it is over."""
        while True:
            for wait in self:
                if wait.wait_id not in self._left:
                    return wait, self._over[wait.wait_id]
            self._changed.clear()
            await self._changed.wait()

    def leave(self, wait: Wait) -> None:
        """Do not return a wait any more."""
        self._left.add(wait.wait_id)


async def tell(client: PolosClient, wait: Wait, way: Way, over: asyncio.Event) -> None:
    """Say how to answer a wait from elsewhere."""
    del client, over
    typer.echo(visible(asks(wait)), err=True)
    typer.echo(how_to_answer(wait, way), err=True)


async def ask_person(client: PolosClient, wait: Wait, way: Way, over: asyncio.Event) -> None:
    """Ask the person at the terminal, and send what they answer."""
    while True:
        asking = asyncio.ensure_future(answer_to(wait))
        ending = asyncio.ensure_future(over.wait())
        try:
            await asyncio.wait({asking, ending}, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for one in (asking, ending):
                one.cancel()
            await asyncio.wait({asking, ending})
        if asking.cancelled():
            typer.echo(f"{visible(wait.step_key)} no longer waits for an answer.", err=True)
            return
        try:
            await send(client, wait, json_of(asking.result()))
        except NothingTypedError:
            typer.echo(how_to_answer(wait, way), err=True)
        except (InvalidRequest, ConnectionLost) as error:
            complain(str(error))
            continue
        except (AlreadyAnswered, WaitExpired, WaitNotOpen) as error:
            complain(str(error))
        except CallError as error:
            complain(str(error))
            typer.echo(how_to_answer(wait, way), err=True)
        return


def attendant() -> Attend:
    """Return who takes care of waits: the person at the terminal, if there is one."""
    return ask_person if person_there() else tell


async def send(client: PolosClient, wait: Wait, data_json: str) -> None:
    """Answer a wait, and no other; raise what `answer_wait` does."""
    await answer_wait(
        client,
        run_id=wait.run_id,
        step_key=wait.step_key,
        wait_id=wait.wait_id,
        data_json=data_json,
    )


async def answer_wait(client: PolosClient, **fields: Any) -> Wait | None:
    """Call ResumeRun; return the wait that was answered, None if the run does not wait yet.

    Raises:
        AlreadyAnswered, WaitExpired, WaitNotOpen: it was answered before, or is over.
        CallError: the service refused it otherwise.
        ConnectionLost: the service could not be reached.

    """
    from polos.v1.run_service_pb2 import ResumeRunRequest  # noqa: PLC0415 - slow for `--help`
    from polos.v1.run_service_pb2_grpc import RunServiceStub  # noqa: PLC0415

    request = ResumeRunRequest(request_id=str(uuid.uuid4()), **fields)
    answer = await client.call(lambda channel: RunServiceStub(channel).ResumeRun, request)
    return answer.wait if answer.HasField("wait") else None
