"""The command line application: its commands, its version and its help."""

from __future__ import annotations

from importlib.metadata import version
from typing import Annotated

import typer

from polos_service.cli import (
    agents,
    chat,
    demo,
    health,
    keys,
    new,
    replay,
    run,
    runs,
    serve,
    waits,
    workflows,
)
from polos_service.cli.exits import EXIT_CODES

app = typer.Typer(
    no_args_is_help=True,
    add_completion=True,
    context_settings={"help_option_names": ["-h", "--help"]},
    pretty_exceptions_enable=False,
    rich_markup_mode="markdown",
    epilog=f"Exit codes: {'; '.join(f'{code} {what}' for code, what in EXIT_CODES.items())}.",
)


def show_version(asked: bool) -> None:  # noqa: FBT001 - typer passes it by position
    """Print the version and exit."""
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
    """Run AI agents and workflows as a service and stream their events."""


app.command()(serve.serve)
app.command()(run.run)
app.command()(chat.chat)
app.add_typer(runs.app, name="runs")
app.command()(replay.replay)
app.command()(waits.waits)
app.add_typer(agents.app, name="agents")
app.command()(workflows.workflows)
app.add_typer(keys.app, name="keys")
app.command()(health.health)
app.command()(new.new)
app.command()(demo.demo)
