"""`polos serve`: a service from its start to the signal that ends it."""

from __future__ import annotations

import asyncio
import gc
import os
import signal
import sys
from importlib.metadata import version
from typing import NoReturn

import typer

from polos_service.agents.loader import load
from polos_service.config import Settings
from polos_service.server import Service

IMPATIENT = 130
"""Exit code after a second signal, as a shell has it for an interrupted program."""


async def serve(target: str, settings: Settings) -> None:
    """Serve until a signal comes; a second one does not wait for runs.

    Raises:
        PolosError: the agents cannot be loaded, or the service cannot start.

    """
    agents = load(target)
    asked = Signals(signal.SIGINT, signal.SIGTERM)
    service = await Service.start(settings, agents)
    # What is loaded by now stays: to look through it again for garbage stopped all runs for
    # a tenth of a second each time.
    gc.collect()
    gc.freeze()
    tell(service, settings)
    await asked.wait()
    typer.echo("Stopping. Runs that do not finish now go on at the next start.", err=True)
    stopping = asyncio.create_task(service.stop(settings.grace))
    impatient = asyncio.create_task(asked.wait())
    await asyncio.wait({stopping, impatient}, return_when=asyncio.FIRST_COMPLETED)
    if not stopping.done():
        leave(IMPATIENT)
    impatient.cancel()
    await stopping
    if asyncio.all_tasks() - {asyncio.current_task(), impatient}:
        leave(0)


class Signals:
    """Waits for signals, one at a time."""

    def __init__(self, *numbers: int) -> None:
        self._event = asyncio.Event()
        for number in numbers:
            asyncio.get_running_loop().add_signal_handler(number, self._event.set)

    async def wait(self) -> None:
        """Return at the next signal."""
        await self._event.wait()
        self._event.clear()


def tell(service: Service, settings: Settings) -> None:
    """Say where the service listens, what it serves and where it stores."""
    host = settings.listen.rpartition(":")[0]
    typer.echo(f"polos {version('polos-grpc')} listens at {host}:{service.port}")
    for agent in service.registry.agents():
        tools = ", ".join(tool.id for tool in agent.tools) or "no tools"
        typer.echo(f"  agent {agent.id} ({agent.provider}; {tools})")
    typer.echo(f"  store {settings.store_shown}")
    sys.stdout.flush()


def leave(code: int) -> NoReturn:
    """End the process at once: what still runs does not give in, and the store is whole."""
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code)
