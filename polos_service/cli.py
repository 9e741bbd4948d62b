"""The `polos` command."""

from __future__ import annotations

import asyncio
import signal
import sys
from importlib.metadata import version
from typing import Annotated, Any, NoReturn

import structlog
import typer
import uvloop
from pydantic import ValidationError

from polos_client.errors import PolosError
from polos_service.agents.loader import load
from polos_service.config import Settings
from polos_service.server import Service

app = typer.Typer(no_args_is_help=True, add_completion=True, pretty_exceptions_enable=False)


def show_version(asked: bool) -> None:  # noqa: FBT001 - typer hands it over so
    """Print the version and leave."""
    if asked:
        typer.echo(f"polos {version('polos-grpc')}")
        raise typer.Exit


@app.callback()
def polos(
    _: Annotated[  # noqa: FBT002 - a flag of the command line
        bool, typer.Option("--version", callback=show_version, is_eager=True, help="Show it.")
    ] = False,
) -> None:
    """Run AI agents as a service, and stream what they do."""


@app.command()
def serve(
    target: Annotated[
        str, typer.Argument(metavar="APP", help="app.py or package.module that defines agents.")
    ],
    listen: Annotated[
        str | None, typer.Option(help="HOST:PORT. Default: POLOS_LISTEN, else 127.0.0.1:50051.")
    ] = None,
    store: Annotated[
        str | None,
        typer.Option(
            help="sqlite:///ABSOLUTE/PATH. Default: POLOS_STORE, else in the user's data folder."
        ),
    ] = None,
) -> None:
    """Serve the agents that APP defines, until Ctrl-C or SIGTERM."""
    log_to_stderr()
    try:
        uvloop.run(until_signal(target, settings(listen=listen, store=store)))
    except PolosError as error:
        fail(str(error))


def settings(**given: Any) -> Settings:
    """Return the settings: what was given on the command line, else the environment's."""
    try:
        return Settings(**{name: value for name, value in given.items() if value is not None})
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        fail(f"{'.'.join(map(str, first['loc']))}: {first['msg'].removeprefix('Value error, ')}")


async def until_signal(target: str, settings: Settings) -> None:
    """Serve until a signal comes; a second one does not wait for runs."""
    service = await Service.start(settings, load(target))
    stopping = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGINT, signal.SIGTERM):
        loop.add_signal_handler(number, stopping.set)
    tell(service, settings)
    await stopping.wait()
    stopping.clear()
    typer.echo("Stopping. Runs that do not finish now go on at the next start.", err=True)
    finish = asyncio.create_task(service.stop(settings.grace))
    again = asyncio.create_task(stopping.wait())
    await asyncio.wait({finish, again}, return_when=asyncio.FIRST_COMPLETED)
    if not finish.done():
        sys.exit(130)
    await finish
    again.cancel()


def tell(service: Service, settings: Settings) -> None:
    """Say where the service listens, what it serves and where it stores."""
    host = settings.listen.rpartition(":")[0]
    typer.echo(f"polos {version('polos-grpc')} listens at {host}:{service.port}")
    for agent in service.registry.agents():
        tools = ", ".join(tool.id for tool in agent.tools) or "no tools"
        typer.echo(f"  agent {agent.id} ({agent.provider}; {tools})")
    typer.echo(f"  store {settings.store}")
    sys.stdout.flush()


def log_to_stderr() -> None:
    """Log to stderr: standard output is for what the user asked for."""
    structlog.configure(logger_factory=structlog.PrintLoggerFactory(sys.stderr))


def fail(message: str) -> NoReturn:
    """Say what is wrong in one sentence, and leave."""
    typer.echo(f"Error: {message}", err=True)
    raise typer.Exit(1)


def main() -> None:
    """Run the command."""
    app()
