"""`polos serve`: the service, until a signal comes."""

from __future__ import annotations

import asyncio
import os
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, NoReturn

import typer

from polos_client.errors import PolosError
from polos_service.cli.exits import REFUSED, complain, fail, reporting
from polos_service.cli.imported import answer_in_thread
from polos_service.cli.service import Port

if TYPE_CHECKING:
    from polos_service.config import Settings
    from polos_service.outlet import Standard


def serve(
    targets: Annotated[
        list[str],
        typer.Argument(metavar="APP...", help="app.py, package.module, or a package's folder."),
    ],
    listen: Annotated[
        str | None,
        typer.Option(help="HOST:PORT or unix:/PATH. Default: POLOS_LISTEN, or 127.0.0.1:50051."),
    ] = None,
    store: Annotated[
        str | None,
        typer.Option(
            help="sqlite:///ABSOLUTE/PATH, or nats://HOST:4222 for many processes. "
            "Default: POLOS_STORE, or a file in the user's data folder."
        ),
    ] = None,
    workers: Annotated[
        int | None,
        typer.Option(
            min=1,
            help="Number of processes that share the address and a NATS store: the one that "
            "--store names, or a nats-server that this command starts. Default: POLOS_WORKERS, "
            "or a single process.",
        ),
    ] = None,
    *,
    tls_cert: Annotated[
        Path | None,
        typer.Option(
            help="PEM file with the certificate of the service, which then speaks TLS. "
            "Default: POLOS_TLS_CERT."
        ),
    ] = None,
    tls_key: Annotated[
        Path | None,
        typer.Option(help="PEM file with its private key. Default: POLOS_TLS_KEY."),
    ] = None,
    tls_client_ca: Annotated[
        Path | None,
        typer.Option(
            help="PEM file with the authorities of client certificates, which every client then "
            "needs. Default: POLOS_TLS_CLIENT_CA."
        ),
    ] = None,
    insecure: Annotated[
        bool | None,
        typer.Option(
            "--insecure",
            help="Allow plaintext on addresses that other machines may reach. "
            "Default: POLOS_INSECURE.",
        ),
    ] = None,
    show_inputs: Annotated[
        bool | None,
        typer.Option(
            "--show-inputs/--hide-inputs",
            help="Whether `polos runs`, GetRun and ListRuns show what runs were started with. "
            "Default: POLOS_SHOW_INPUTS, or show.",
            show_default=False,
        ),
    ] = None,
    reload: Annotated[
        bool,
        typer.Option(
            "--reload",
            help="Restart when a Python file changes that is imported from APP's folder.",
        ),
    ] = False,
    port: Port = None,  # noqa: ARG001 - it only says what to pass instead
    lifeline: Annotated[int | None, typer.Option(hidden=True)] = None,
    importer: Annotated[int | None, typer.Option(hidden=True)] = None,
) -> None:
    """Serve the agents and workflows that the APPs define, until Ctrl-C or SIGTERM."""
    from polos_service import logs  # noqa: PLC0415 - other commands start sooner without
    from polos_service.config import Settings  # noqa: PLC0415
    from polos_service.outlet import Standard  # noqa: PLC0415
    from polos_service.variables import warn_of_misspelt  # noqa: PLC0415

    standard = Standard()
    logs.write_to(standard.err)
    with reporting():
        settings = Settings.load(
            listen=listen,
            tls_cert=tls_cert,
            tls_key=tls_key,
            tls_client_ca=tls_client_ca,
            insecure=insecure,
            show_inputs=show_inputs,
            store=store,
            workers=workers,
        )
        if lifeline is None and importer is None:  # else the parent has done it
            logs.log_to_stderr(settings.log_level, as_json=settings.log_format == "json")
            warn_of_misspelt(os.environ)
        if lifeline is not None:
            work(targets, settings, standard, lifeline)
        elif reload and settings.workers is not None:
            fail("--reload serves with a single process: leave out --workers (POLOS_WORKERS).")
        elif reload:
            from polos_service.cli.reload import Reloader  # noqa: PLC0415

            raise typer.Exit(asyncio.run(Reloader(targets, settings).run()))
        elif settings.workers is not None:
            supervise(targets, settings, standard)
        else:
            from polos_service import serving  # noqa: PLC0415 - a supervisor needs no gRPC

            if importer is not None:
                answer_in_thread(importer)

            serving.run(targets, settings, standard)


def work(targets: list[str], settings: Settings, standard: Standard, pipe: int) -> None:
    """Serve as one of the workers; report errors to the supervisor."""
    from polos_service import serving  # noqa: PLC0415
    from polos_service.lifeline import Lifeline  # noqa: PLC0415

    lifeline = Lifeline(pipe)
    try:
        serving.run(targets, settings, standard, lifeline)
    except PolosError as error:
        lifeline.tell_failure(str(error))
        raise typer.Exit(REFUSED) from None


def supervise(targets: list[str], settings: Settings, standard: Standard) -> NoReturn:
    """Serve with workers."""
    from polos_service.supervisor import Supervisor, WorkerFailedError  # noqa: PLC0415

    try:
        code = asyncio.run(Supervisor(targets, settings, standard).run())
    except WorkerFailedError as error:
        complain(str(error))
        code = error.code
    standard.flush()
    raise typer.Exit(code)
