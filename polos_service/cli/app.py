"""The application: its commands by name, and what it says of itself."""

from __future__ import annotations

from importlib.metadata import version
from typing import Annotated

import typer

from polos_service.cli import agents, chat, demo, health, run, runs, serve
from polos_service.cli.exits import EXIT_CODES

CODES = "; ".join(f"{code} {meaning}" for code, meaning in EXIT_CODES.items())

app = typer.Typer(
    no_args_is_help=True,
    add_completion=True,
    pretty_exceptions_enable=False,
    rich_markup_mode="markdown",
    epilog=f"Exit codes: {CODES}.",
)


def show_version(asked: bool) -> None:  # noqa: FBT001 - typer hands it over so
    """Print the version and leave."""
    if asked:
        typer.echo(f"polos {version('polos-grpc')}")
        raise typer.Exit


@app.callback()
def polos(
    *,
    _: Annotated[
        bool,
        typer.Option("--version", callback=show_version, is_eager=True, help="Show the version."),
    ] = False,
) -> None:
    """Run AI agents as a service and stream their events."""


app.command()(serve.serve)
app.command()(run.run)
app.command()(chat.chat)
app.add_typer(runs.app, name="runs")
app.add_typer(agents.app, name="agents")
app.command()(health.health)
app.command()(demo.demo)
