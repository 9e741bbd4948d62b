"""`polos runs`: the runs that the service keeps."""

from __future__ import annotations

from contextlib import suppress
from datetime import UTC, datetime
from functools import partial
from typing import TYPE_CHECKING, Annotated, Any

import typer

from polos_client.errors import PermissionDenied, PolosError
from polos_service.cli import answer
from polos_service.cli.exits import REFUSED, complain
from polos_service.cli.history import History, history_of
from polos_service.cli.naming import RunId, run_named, run_names
from polos_service.cli.output import exit_code, output_for, print_json
from polos_service.cli.records import (
    STATES,
    State,
    as_dict,
    described,
    full_dict,
    past_time,
    row_of,
    state_named,
    state_of,
    states,
)
from polos_service.cli.service import AsJson, Way, call, calls_service
from polos_service.cli.table import print_table, print_text
from polos_service.cli.text import printable
from polos_service.cli.tree import tree_dicts, tree_lines
from polos_service.cli.watch import Watch, detach

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from polos.v1.run_pb2 import Run, RunTree
    from polos_client.calls.client import PolosClient

app = typer.Typer(no_args_is_help=True, help="List, show, follow, answer, cancel and delete runs.")

BLOCKED = "BLOCKED"
"""The column that is left out if no run is blocked."""

COLUMNS = ("ID", "AGENT", "STATE", "AGE", "TOOK", "SESSION", "INPUT", BLOCKED)

RunIds = Annotated[
    list[str],
    typer.Argument(
        metavar="ID...",
        help="The runs' ids, their beginnings, or `last` for the newest run.",
        autocompletion=run_names,
    ),
]
"""Several runs; of a child, `ROOT:N`, only its branch is meant."""


@app.command("list")
@calls_service
def list_runs(
    *,
    agent: Annotated[
        str, typer.Option("--agent", "--workflow", help="Only runs of this agent or workflow.")
    ] = "",
    state: Annotated[
        Any,
        typer.Option(
            metavar="STATE",
            parser=state_named,
            autocompletion=states,
            help=f"Only runs in this state: {STATES}.",
        ),
    ] = None,
    session: Annotated[str, typer.Option(help="Only runs of this session.")] = "",
    user: Annotated[str, typer.Option(help="Only runs for this user.")] = "",
    parent: Annotated[
        str,
        typer.Option(
            metavar="ID", help="Only independent runs that a step of this run has started."
        ),
    ] = "",
    since: Annotated[
        Any,
        typer.Option(
            metavar="TIME",
            parser=past_time,
            help="Only runs created in the last 90s, 15m, 2h or 7d, or since an ISO 8601 time.",
        ),
    ] = None,
    before: Annotated[
        Any,
        typer.Option(
            metavar="TIME",
            parser=past_time,
            help="Only runs created more than 90s, 15m, 2h or 7d ago, or before an ISO 8601 time.",
        ),
    ] = None,
    limit: Annotated[int, typer.Option(min=1, help="Maximum number of runs.")] = 20,
    everything: Annotated[bool, typer.Option("--all", help="List all runs.")] = False,
    as_json: AsJson = False,
    way: Way,
) -> None:
    """List runs, newest first."""
    from polos_client.calls.states import STATUSES  # noqa: PLC0415 - protobuf: `--help` needs none

    async def listed(client: PolosClient) -> list[Run]:
        found = client.list_runs(
            workflow_id=agent,
            state=STATUSES[state.on_wire] if state else None,
            session_id=session,
            user_id=user,
            created_from=since,
            created_before=before,
            parent_id=parent,
            limit=None if everything else limit,
        )
        return [run async for run in found]

    runs = call(way, listed)
    if as_json:
        for run in runs:
            print_json(as_dict(run))
        return
    now = datetime.now(UTC)
    rows = [row_of(run, now) for run in runs]
    shown = len(COLUMNS) if any(run.blocked_reason for run in runs) else COLUMNS.index(BLOCKED)
    print_table(COLUMNS[:shown], [row[:shown] for row in rows])


@app.command()
@calls_service
def show(run_id: RunId, *, as_json: AsJson = False, way: Way) -> None:
    """Show a run's record, input, outcome, usage, tool results, steps, waits and their answers.

    If it has started other runs, the tree of all of them follows.
    """

    async def found(client: PolosClient) -> tuple[Run, History, RunTree]:
        named = await run_named(client, run_id)
        run = await client.get_run(named, include_input=True)
        return run, await history_of(client, run), await client.get_tree(named)

    run, history, tree = call(way, found)
    record = full_dict(run, history)
    if as_json:
        print_json(record | ({"tree": tree_dicts(tree)} if len(tree.nodes) > 1 else {}))
    else:
        lines = [described(record, history), *tree_lines(tree, datetime.now(UTC))]
        print_text(printable("\n".join(lines)))


@app.command()
@calls_service
def tail(
    run_id: RunId,
    after: Annotated[
        int, typer.Option(min=0, metavar="SEQUENCE", help="Start after this event; 0 is the start.")
    ] = 0,
    *,
    as_json: AsJson = False,
    way: Way,
) -> None:
    """Follow a run from its beginning or a cursor to its end; a finished run is replayed.

    Output and exit codes are those of `polos run`. Ctrl-C only stops reading.
    """
    raise typer.Exit(call(way, partial(followed, run_id, after, way, as_json=as_json)))


@app.command()
@calls_service
def cancel(run_ids: RunIds, way: Way) -> None:
    """Cancel runs that have not ended: queued, running or suspended ones.

    A child is cancelled with the runs below it, and the rest of its tree goes on. Of a run that
    has ended it says how; that is not an error.
    """

    async def cancelled(client: PolosClient, run_id: str) -> str:
        with suppress(PermissionDenied):  # a key may permit cancelling and not reading
            run = await client.get_run(run_id)
            if run.HasField("finish_time"):
                return f"had already ended: {state_of(run)}"
        run = await client.cancel_run(run_id)
        if not run.HasField("finish_time"):
            return "is being cancelled"
        state = state_of(run)
        return "cancelled" if state == State.CANCELLED.value else f"had already ended: {state}"

    call(way, partial(each, run_ids, cancelled))


@app.command()
@calls_service
def delete(run_ids: RunIds, way: Way) -> None:
    """Delete ended runs and all their events."""

    async def deleted(client: PolosClient, run_id: str) -> str:
        await client.delete_run(run_id)
        return "deleted"

    call(way, partial(each, run_ids, deleted))


@app.command()
@calls_service
def export(run_id: RunId, way: Way) -> None:
    """Print a run's history, as far as its log has it now: a file for `polos replay`."""
    from polos_service.replay.history import History  # noqa: PLC0415 - slow for `--help`

    async def fetched(client: PolosClient) -> History:
        return await History.fetch(client, await run_named(client, run_id))

    for line in call(way, fetched).lines():
        typer.echo(line)


app.command()(answer.resume)
app.command()(answer.approve)
app.command()(answer.reject)


async def each(
    run_ids: list[str], act: Callable[[PolosClient, str], Awaitable[str]], client: PolosClient
) -> None:
    """Do something with each run and print what became of it.

    Raises:
        Exit: it failed for at least one; the others were done all the same.

    """
    failed = False
    for name in run_ids:
        try:
            run_id = await run_named(client, name)
            typer.echo(f"{run_id} {await act(client, run_id)}")
        except PolosError as error:
            complain(str(error))
            failed = True
    if failed:
        raise typer.Exit(REFUSED)


async def followed(run_id: str, after: int, way: Way, client: PolosClient, *, as_json: bool) -> int:
    """Follow a run and return the exit code."""
    from polos_client.calls.events import stream_workflow  # noqa: PLC0415
    from polos_client.event import Event  # noqa: PLC0415 - protobuf: `--help` needs none

    run_id = await run_named(client, run_id)
    events = stream_workflow(client, workflow_run_id=run_id, last_sequence_id=after)
    watch = Watch(client, run_id, output_for(as_json=as_json), detach, way)
    ended = await watch.run(events)
    if ended is None:  # the cursor was at the end: the record knows it
        ended = Event((await client.get_run(run_id)).outcome)
    return exit_code(ended)
