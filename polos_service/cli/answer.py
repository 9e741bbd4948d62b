"""`polos runs resume`, `approve` and `reject`: answers to the open waits of a run."""

from __future__ import annotations

import json
import sys
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from polos_client.wire import root_of
from polos_service.cli.attending import answer_wait, send
from polos_service.cli.exits import fail
from polos_service.cli.keyboard import NothingTypedError, ask_line, forget_typed, person_there
from polos_service.cli.naming import RunId, run_named
from polos_service.cli.output import json_of
from polos_service.cli.prompts import YES_NO, show
from polos_service.cli.service import Way, call, calls_service
from polos_service.cli.text import visible
from polos_service.cli.waits import asks, how_to_answer, kind_name

if TYPE_CHECKING:
    from polos.v1.run_pb2 import Wait
    from polos_client.calls.client import PolosClient

Key = Annotated[
    str, typer.Argument(metavar="KEY", help="The wait's key. Default: the run's only open wait.")
]
WaitId = Annotated[
    int | None, typer.Option(min=1, metavar="N", help="The wait's id, as `polos waits` shows it.")
]
Yes = Annotated[bool, typer.Option("--yes", "-y", help="Do not ask for confirmation.")]
Feedback = Annotated[str, typer.Option(metavar="TEXT", help="A word to the model.")]


def json_argument(text: str) -> str:
    """Return the JSON text that an option gives: itself, `@FILE`, or `-` for standard input.

    Raises:
        typer.BadParameter: the file cannot be read, or the text is not valid JSON.

    """
    try:
        if text == "-":
            text = sys.stdin.buffer.read().decode()
        elif text.startswith("@"):
            text = Path(text[1:]).read_bytes().decode()
        json.loads(text)
    except OSError as error:
        raise typer.BadParameter(f"{text[1:]} cannot be read: {error.strerror}") from None
    except (ValueError, RecursionError) as error:  # UTF-8 too
        raise typer.BadParameter(f"{text[:80]!r} is not valid JSON: {error}") from None
    return text


Data = Annotated[
    Any,
    typer.Option(
        metavar="JSON|@FILE|-",
        parser=json_argument,
        help="The answer as JSON: as it is, from a file, or from standard input.",
    ),
]
Arguments = Annotated[
    Any,
    typer.Option(
        metavar="JSON|@FILE|-",
        parser=json_argument,
        help="Arguments that replace the tool's, where the tool permits that.",
    ),
]


@calls_service
def resume(run_id: RunId, key: Key = "", *, data: Data, wait_id: WaitId = None, way: Way) -> None:
    """Answer an open wait of a run, and let the run continue.

    An answer may come before the run waits for it, with its KEY: it is kept until then.
    """
    call(way, partial(resumed, run_id, key, wait_id or 0, data, way))


@calls_service
def approve(
    run_id: RunId,
    key: Key = "",
    *,
    wait_id: WaitId = None,
    feedback: Feedback = "",
    arguments: Arguments = None,
    yes: Yes = False,
    way: Way,
) -> None:
    """Approve a tool call that a run waits for. On a terminal, this asks for confirmation."""
    answer: dict[str, Any] = {"approved": True}
    if arguments is not None:
        answer["arguments"] = json.loads(arguments)
    call(way, partial(decided, run_id, key, wait_id or 0, told(answer, feedback), way, yes=yes))


@calls_service
def reject(
    run_id: RunId,
    key: Key = "",
    *,
    wait_id: WaitId = None,
    feedback: Feedback = "",
    yes: Yes = False,
    way: Way,
) -> None:
    """Reject a tool call that a run waits for. On a terminal, this asks for confirmation."""
    answer = told({"approved": False}, feedback)
    call(way, partial(decided, run_id, key, wait_id or 0, answer, way, yes=yes))


def told(answer: dict[str, Any], feedback: str) -> dict[str, Any]:
    """Return the answer to an approval, with a word to the model if there is one."""
    return {**answer, "feedback": feedback} if feedback else answer


async def resumed(  # noqa: PLR0917 - what the command line says
    run_id: str, key: str, wait_id: int, data: str, way: Way, client: PolosClient
) -> None:
    """Answer the wait that is named, or keep the answer until there is such a wait."""
    run_id = await run_named(client, run_id)
    waits = await open_waits(client, run_id)
    fits = fitting(waits, key, wait_id)
    if len(fits) == 1 or not (key or wait_id):
        wait = only(run_id, waits, fits)
        if kind_name(wait.kind) == "approval" and not wait_id:
            fail(f"{visible(wait.step_key)} is an approval. {how_to_answer(wait, way)}")
        key, wait_id = wait.step_key, wait.wait_id
    # Else the service knows best: the answer may be early, or come too late.
    if await answer_wait(client, run_id=run_id, step_key=key, wait_id=wait_id, data_json=data):
        typer.echo(f"{run_id} {visible(key) or wait_id} answered")
        return
    typer.echo(f"{run_id} {visible(key)} answered before the run waits for it: the answer is kept")
    typer.echo(listed("Open waits", waits), err=True)


async def decided(  # noqa: PLR0917 - what the command line says
    run_id: str,
    key: str,
    wait_id: int,
    answer: dict[str, Any],
    way: Way,
    client: PolosClient,
    *,
    yes: bool,
) -> None:
    """Show what is approved or rejected, let it be confirmed, and answer."""
    run_id = await run_named(client, run_id)
    waits = await open_waits(client, run_id)
    fits = fitting(waits, key, wait_id)
    if not (key or wait_id):
        fits = [one for one in fits if kind_name(one.kind) == "approval"] or fits
    wait = only(run_id, waits, fits)
    if kind_name(wait.kind) != "approval":
        fail(f"{visible(wait.step_key)} is not an approval. {how_to_answer(wait, way)}")
    show(wait)
    what = "approved" if answer["approved"] else "rejected"
    if not yes and person_there() and not await confirmed(what):
        fail(f"not confirmed; {visible(wait.step_key)} still waits")
    await send(client, wait, json_of(answer))
    typer.echo(f"{wait.run_id} {visible(wait.step_key)} {what}")


async def confirmed(what: str) -> bool:
    """Ask whether it shall be so; anything but a yes is a no."""
    forget_typed()
    try:
        line = await ask_line(f"Shall it be {what}? [y/N] ")
    except NothingTypedError:
        return False
    return YES_NO.get(line.lower(), False)


async def open_waits(client: PolosClient, run_id: str) -> list[Wait]:
    """Return the open waits of a root run, or of one of its children."""
    run = await client.get_run(root_of(run_id))
    return [one for one in run.open_waits if run_id in (run.run_id, one.run_id)]


def fitting(waits: list[Wait], key: str, wait_id: int) -> list[Wait]:
    """Return the waits with this key and id; an empty key and the id 0 fit all."""
    return [one for one in waits if key in ("", one.step_key) and wait_id in (0, one.wait_id)]


def only(run_id: str, waits: list[Wait], fits: list[Wait]) -> Wait:
    """Return the one wait that fits.

    Raises:
        Exit: none does, or several do; it says which waits there are.

    """
    if not waits:
        fail(
            f"{run_id} has no open wait that can be answered; "
            f"`polos runs show {run_id}` shows its waits and their answers"
        )
    if len(fits) > 1:
        fail(listed(f"{len(fits)} open waits of {run_id} fit; name one by KEY or --wait-id", fits))
    if not fits:
        fail(listed(f"{run_id} has no such open wait. Open waits", waits))
    return fits[0]


def listed(title: str, waits: list[Wait]) -> str:
    """Return the waits, a line each, under a title; nothing else if there are none."""
    lines = [f"  {one.wait_id} ({kind_name(one.kind)}) {asks(one)}" for one in waits]
    return visible("\n".join([f"{title}: {'' if lines else 'none'}".rstrip(), *lines]))
