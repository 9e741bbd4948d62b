"""Short names of runs: `last`, and the beginning of an id."""

from __future__ import annotations

import asyncio
import re
from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Annotated

import typer

from polos_client.errors import PermissionDenied, PolosError
from polos_service.cli.service import Way, connected

if TYPE_CHECKING:
    from polos.v1.run_pb2 import Run
    from polos_client.calls.client import PolosClient

LAST = "last"
"""Names the newest run."""

ID_LENGTH = 36
"""Characters of a whole id, a UUID."""

TIME_DIGITS = 12
"""The first hexadecimal digits of an id, a UUIDv7: the milliseconds since 1970 (RFC 9562, 5.7)."""

MARGIN = timedelta(seconds=1)
"""How far a run's creation may be from the time in its id."""

COMPLETED = 50
"""Runs that the shell may complete to: the newest ones."""

_BEGINNING = re.compile(r"[0-9a-f][0-9a-f-]*")


async def run_named(client: PolosClient, name: str) -> str:
    """Return the id of the run that `last` or the beginning of an id names.

    Everything else, a whole id for example, is returned as it is: the service knows what is
    wrong with it. What follows a colon names a child, and stays.

    Raises:
        PolosError: there is no run at all, or several ids begin so.

    """
    root, colon, child = name.partition(":")
    try:
        if root == LAST:
            return await _newest(client) + colon + child
        if len(root) < ID_LENGTH and _BEGINNING.fullmatch(root):
            return await _beginning_with(client, root) + colon + child
    except PermissionDenied:  # the credentials may read this run and list none
        pass
    return name


async def _newest(client: PolosClient) -> str:
    async for run in client.list_runs(limit=1):
        return run.run_id
    raise PolosError("there is no run yet")


async def _beginning_with(client: PolosClient, beginning: str) -> str:
    """Return the only id that begins so; the beginning itself if there is none."""
    found = []
    async for run in _created_at(client, beginning):
        if run.run_id.startswith(beginning):
            found.append(run.run_id)
        if len(found) > 1:
            raise PolosError(
                f"several runs have ids that begin with {beginning!r}, for example "
                f"{' and '.join(found)}"
            )
    return found[0] if found else beginning


def _created_at(client: PolosClient, beginning: str) -> AsyncIterator[Run]:
    """Return the runs that were created when an id with this beginning was."""
    digits = beginning.replace("-", "")[:TIME_DIGITS]
    future = datetime.now(UTC) + timedelta(days=1)
    first, last = (
        datetime.fromtimestamp(min(int(digits.ljust(TIME_DIGITS, fill), 16) / 1000, cap), UTC)
        for cap in [future.timestamp()]
        for fill in "0f"
    )
    return client.list_runs(created_from=first - MARGIN, created_before=last + MARGIN)


def run_names(incomplete: str) -> list[tuple[str, str]]:
    """Return the runs that the shell may complete to, each with what it is."""
    from polos_service.cli.records import state_of  # noqa: PLC0415

    async def newest(client: PolosClient) -> list[Run]:
        return [run async for run in client.list_runs(limit=COMPLETED)]

    try:
        runs = asyncio.run(connected(Way(), newest))
    except PolosError:
        return []
    return [
        (run.run_id, f"{run.workflow_id}, {state_of(run)}")
        for run in runs
        if run.run_id.startswith(incomplete)
    ]


RunId = Annotated[
    str,
    typer.Argument(
        metavar="ID",
        help="The id of a run or a child, the beginning of a run's id, or `last`: the newest run.",
        autocompletion=run_names,
    ),
]
"""The argument of commands that work with a run."""
