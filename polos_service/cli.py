"""The `polos` command."""

from __future__ import annotations

import os
from importlib.metadata import version
from typing import Annotated, NoReturn

import typer

# Before grpc is loaded: its own lines say in its words what our errors say in one sentence.
os.environ.setdefault("GRPC_VERBOSITY", "NONE")

import uvloop

from polos_client.errors import PolosError
from polos_service import serving
from polos_service.config import Settings

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
    try:
        uvloop.run(serving.serve(target, Settings.load(listen=listen, store=store)))
    except PolosError as error:
        fail(str(error))


def fail(message: str) -> NoReturn:
    """Say what is wrong in one sentence, and leave."""
    typer.echo(f"Error: {message}", err=True)
    raise typer.Exit(1)


def main() -> None:
    """Run the command."""
    app()
