"""How the command ends: its exit codes, and one sentence on standard error."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import NoReturn

import typer

from polos_client.errors import PolosError
from polos_service.cli.text import visible

DONE = 0
REFUSED = 1
RUN_FAILED = 3
RUN_CANCELLED = 4
DIFFERS = 5
ANSWER_CUT = 6
INTERRUPTED = 130

EXIT_CODES: Mapping[int, str] = {
    DONE: "done",
    REFUSED: "the call was refused, or the service is unreachable",
    2: "the command line is invalid",  # the command line's own parser says so
    RUN_FAILED: "the run failed",
    RUN_CANCELLED: "the run was cancelled",
    DIFFERS: "code differs from the log of a run",
    ANSWER_CUT: "the run ended with an answer that is incomplete, filtered or refused",
    INTERRUPTED: "interrupted, or detached from a run that continues",
}
"""What each exit code means; docs/cli.md has the same table."""


def fail(message: str) -> NoReturn:
    """Say what is wrong in one sentence, and leave."""
    complain(message)
    raise typer.Exit(REFUSED)


def complain(message: str) -> None:
    """Say on standard error what is wrong; what the text quotes cannot steer the terminal."""
    typer.echo(f"Error: {visible(message)}", err=True)


@contextmanager
def reporting() -> Iterator[None]:
    """Turn an error of ours into its sentence and exit code: no traceback says more."""
    try:
        yield
    except PolosError as error:
        fail(str(error))
