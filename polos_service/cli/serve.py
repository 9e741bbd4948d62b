"""`polos serve`: the service, until a signal comes."""

from __future__ import annotations

import asyncio
from typing import Annotated

import typer

from polos_service.cli.exits import reporting


def serve(
    target: Annotated[
        str, typer.Argument(metavar="APP", help="app.py or package.module that defines agents.")
    ],
    listen: Annotated[
        str | None, typer.Option(help="HOST:PORT. Default: POLOS_LISTEN, or 127.0.0.1:50051.")
    ] = None,
    store: Annotated[
        str | None,
        typer.Option(
            help="sqlite:///ABSOLUTE/PATH, or nats://HOST:4222 for many processes. "
            "Default: POLOS_STORE, or a file in the user's data folder."
        ),
    ] = None,
    *,
    reload: Annotated[
        bool,
        typer.Option("--reload", help="Restart when a Python file in APP's folder changes."),
    ] = False,
) -> None:
    """Serve the agents that APP defines, until Ctrl-C or SIGTERM."""
    from polos_service import logs, serving  # noqa: PLC0415 - other commands start sooner without
    from polos_service.config import Settings  # noqa: PLC0415
    from polos_service.outlet import Standard  # noqa: PLC0415

    standard = Standard()
    logs.write_to(standard.err)
    with reporting():
        settings = Settings.load(listen=listen, store=store)
        if reload:
            from polos_service.cli.reload import Reloader  # noqa: PLC0415

            raise typer.Exit(asyncio.run(Reloader(target, settings).run()))
        serving.run(target, settings, standard)
