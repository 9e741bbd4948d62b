"""`polos replay`: code as it is now, against the logs of runs."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from polos_client.errors import DefinitionError
from polos_service.cli.exits import DIFFERS, reporting
from polos_service.cli.naming import run_named, run_names
from polos_service.cli.output import print_json
from polos_service.cli.service import AsJson, Way, call, calls_service
from polos_service.cli.text import printable

if TYPE_CHECKING:
    from polos_client.calls.client import PolosClient
    from polos_client.define.agent import Agent
    from polos_client.define.workflow import Workflow
    from polos_service.replay.history import History


@calls_service
def replay(
    histories: Annotated[
        list[str],
        typer.Argument(
            metavar="RUN...",
            help="A run's id, or the beginning of it, or a file of `polos runs export`.",
            autocompletion=run_names,
        ),
    ],
    code: Annotated[
        str, typer.Option(metavar="APP", help="app.py or package.module with the code to try.")
    ],
    patience: Annotated[
        float, typer.Option(min=0.1, help="Seconds after which code counts as stopped.")
    ] = 5.0,
    *,
    as_json: AsJson = False,
    way: Way,
) -> None:
    """Run code against the logs of runs, without side effects, and tell the first differences.

    No function of a step, no tool and no model is called, and nothing is written. A service is
    needed only for runs that are named by their ids.
    """
    from polos_service.loader import load  # noqa: PLC0415 - slow for `--help`

    with reporting():
        loaded = {one.id: one for one in load(code)}
        differ = False
        for named in histories:
            history = history_of(named, way)
            found = compared(loaded, history, patience)
            differ = differ or bool(found["differs"])
            if as_json:
                print_json(found)
            else:
                typer.echo(printable(found["message"]))
    if differ:
        raise typer.Exit(DIFFERS)


def history_of(named: str, way: Way) -> History:
    """Return the history that is in a file, or that of a run."""
    from polos_service.replay.history import History  # noqa: PLC0415

    if Path(named).suffix or Path(named).exists():
        return History.read(named)

    async def fetched(client: PolosClient) -> History:
        return await History.fetch(client, await run_named(client, named))

    return call(way, fetched)


def compared(
    loaded: dict[str, Agent | Workflow], history: History, patience: float
) -> dict[str, Any]:
    """Return what a replay comes to.

    Raises:
        DefinitionError: the history is of none of the agents and workflows.

    """
    from polos_service.replay.course import ReplayDiffers  # noqa: PLC0415
    from polos_service.replay.replay import replay as run  # noqa: PLC0415

    code = loaded.get(history.workflow_id)
    if code is None:
        raise DefinitionError(
            f"run {history.run_id} is of the {history.kind} {history.workflow_id!r}, which the "
            "code does not define"
        )
    told: dict[str, Any] = {"run_id": history.run_id, "workflow_id": history.workflow_id}
    try:
        found = asyncio.run(run(code, history, patience=patience))
    except ReplayDiffers as error:
        where = {"sequence": error.sequence, "step_key": error.step_key}
        return {**told, "differs": True, "message": str(error), **where}
    end = {"events": found.events, "ended": found.ended}
    return {**told, "differs": False, "message": str(found), **end}
