"""`polos run`: one run of an agent, watched to its end."""

from __future__ import annotations

import json
import sys
from functools import partial
from typing import TYPE_CHECKING, Annotated, Any

import typer

from polos_service.cli.exits import fail
from polos_service.cli.output import exit_code, output_for
from polos_service.cli.service import Address, AgentId, AsJson, call
from polos_service.cli.watch import Watch, ask, detach, on_terminal

if TYPE_CHECKING:
    from polos_client.calls.client import PolosClient
    from polos_client.calls.start import Start

Session = Annotated[str | None, typer.Option(help="Groups runs for listing.")]
User = Annotated[str | None, typer.Option(help="Who it is for, for listing.")]


def option(text: str) -> tuple[str, Any]:
    """Return name and value of a model option; a value that is no JSON is taken as text."""
    name, equals, value = text.partition("=")
    if not name or not equals:
        raise typer.BadParameter(f"{text!r} is not NAME=VALUE, for example temperature=0.2")
    try:
        return name, json.loads(value)
    except ValueError:
        return name, value


def run(
    agent: AgentId,
    prompt: Annotated[
        str | None,
        typer.Argument(
            metavar="PROMPT", help="What to say to it; `-`, or nothing: standard input."
        ),
    ] = None,
    *,
    session: Session = None,
    user: User = None,
    timeout: Annotated[
        float | None, typer.Option(help="Seconds that the run may take; default: any number.")
    ] = None,
    option: Annotated[
        list[Any] | None,
        typer.Option(
            metavar="NAME=VALUE",
            parser=option,
            help="A model option of this run, its value as JSON: temperature=0.2, seed=7.",
        ),
    ] = None,
    as_json: AsJson = False,
    address: Address = None,
) -> None:
    """Run an agent and watch it: steps, tools and text as they come.

    In a pipe it prints the agent's text alone. The text of a model call is printed when the
    call has finished, on lines of its own, so that nothing is printed that a retry takes back.

    With --json it prints every event as it comes, an object a line.

    Ctrl-C asks whether to detach from the run, which then goes on, or to cancel it; where
    nobody can be asked it detaches.
    """
    start = start_of(
        agent,
        prompt_or_input(prompt),
        session_id=session,
        user_id=user,
        run_timeout_seconds=timeout,
        provider_options=dict(option or ()),
    )
    raise typer.Exit(call(address, partial(watched, start, as_json=as_json)))


async def watched(start: Start, client: PolosClient, *, as_json: bool) -> int:
    """Start a run, watch it to its end, and return the exit code."""
    from polos_client.calls import running  # noqa: PLC0415 - grpc: `--help` needs none

    stream = await running.stream(client, start)
    decide = ask if on_terminal() and not as_json else detach
    watch = Watch(client, stream.id, output_for(as_json=as_json), decide)
    ended = await watch.run(stream.events)
    assert ended is not None  # noqa: S101 - a stream from the start ends so, or raises
    return exit_code(ended)


def start_of(agent: str, input: Any, **fields: Any) -> Start:
    """Return the start of a run of the agent."""
    from polos_client.calls.start import Start  # noqa: PLC0415 - what `--help` does not need

    return Start(workflow_id=agent, input=input, **fields)


def prompt_or_input(prompt: str | None) -> str:
    """Return the prompt: as given, else what standard input brings, without its last newline."""
    if prompt is None and sys.stdin.isatty():
        raise typer.BadParameter(
            "nothing to say: give a prompt, or pipe one in", param_hint="PROMPT"
        )
    if prompt is not None and prompt != "-":
        return prompt
    try:
        return sys.stdin.buffer.read().decode().removesuffix("\n")
    except UnicodeDecodeError as error:
        fail(f"the prompt on standard input is no UTF-8 text: {error}")
