"""`polos run`: one run of an agent or a workflow, watched to its end."""

from __future__ import annotations

import json
import sys
from functools import partial
from typing import TYPE_CHECKING, Annotated, Any

import typer

from polos_client.budget import Budget
from polos_client.errors import AgentNotFound, CallError, DefinitionError
from polos_service.cli.answer import json_argument
from polos_service.cli.attending import attendant
from polos_service.cli.exits import fail
from polos_service.cli.output import exit_code, output_for
from polos_service.cli.service import AsJson, Way, call, calls_service, runnable_names
from polos_service.cli.watch import Watch, ask, detach, on_terminal

if TYPE_CHECKING:
    from polos_client.calls.client import PolosClient
    from polos_client.calls.start import Start

Session = Annotated[str | None, typer.Option(help="Groups runs for listing.")]
"""The option that puts a run into a session."""

User = Annotated[str | None, typer.Option(help="The user that the run is for.")]
"""The option that says which user a run is for."""


def model_option(text: str) -> tuple[str, Any]:
    """Return name and value of a model option; a value that is not valid JSON is taken as text.

    Raises:
        typer.BadParameter: it does not have the form NAME=VALUE.

    """
    name, equals, value = text.partition("=")
    if not name or not equals:
        raise typer.BadParameter(f"{text!r} is not NAME=VALUE, for example temperature=0.2")
    try:
        return name, json.loads(value)
    except (ValueError, RecursionError):
        return name, value


@calls_service
def run(
    runnable: Annotated[
        str,
        typer.Argument(
            metavar="AGENT|WORKFLOW",
            help="Id of the agent or workflow.",
            autocompletion=runnable_names,
        ),
    ],
    prompt: Annotated[
        str | None,
        typer.Argument(
            metavar="PROMPT", help="The prompt of an agent. Default, or `-`: standard input."
        ),
    ] = None,
    *,
    payload: Annotated[
        Any,
        typer.Option(
            metavar="JSON|@FILE|-",
            parser=json_argument,
            help="The payload of a workflow: JSON, a file, or standard input. Default: none.",
        ),
    ] = None,
    session: Session = None,
    user: User = None,
    timeout: Annotated[
        float | None, typer.Option(help="Limit in seconds. Default: the agent's own, or none.")
    ] = None,
    budget_tokens: Annotated[
        int | None,
        typer.Option(
            min=1, metavar="N", help="Tokens that the run and its children may use. Default: any."
        ),
    ] = None,
    budget_cost: Annotated[
        float | None,
        typer.Option(
            min=0.000001,
            metavar="USD",
            help="US dollars that they may cost. Default: any.",
        ),
    ] = None,
    option: Annotated[
        list[Any] | None,
        typer.Option(
            metavar="NAME=VALUE",
            parser=model_option,
            help="A model option for this run, its value as JSON: temperature=0.2, seed=7.",
        ),
    ] = None,
    as_json: AsJson = False,
    way: Way,
) -> None:
    """Run an agent or a workflow and show its steps, tool calls, waits and text as they happen.

    In a pipe, only the agent's text is printed, or the workflow's result as JSON. The text of a
    model call is printed on separate lines once the call has finished, so a retry never voids
    printed text.

    With --json, every event is printed as it arrives, one object per line.

    If the run waits for an answer, this asks for it on a terminal; otherwise it says how to
    answer from elsewhere, and waits.

    Ctrl-C asks whether to detach from the run, which then continues, or to cancel it. Without a
    terminal it detaches.
    """
    fields = {
        "session_id": session,
        "user_id": user,
        "run_timeout_seconds": timeout,
        "provider_options": dict(option or ()),
        "budget": budget_of(budget_tokens, budget_cost),
    }
    if payload is not None:
        if prompt is not None:
            raise typer.BadParameter("a workflow has a payload and an agent a prompt: pass one")
        start = start_of(runnable, None, payload=json.loads(payload), **fields)
    elif prompt is None and call(way, partial(is_workflow, runnable)):
        start = start_of(runnable, None, **fields)
    else:
        start = start_of(runnable, prompt_or_input(prompt), **fields)
    raise typer.Exit(call(way, partial(watched, start, way, as_json=as_json)))


def budget_of(tokens: int | None, cost: float | None) -> Budget | None:
    """Return the budget of a run.

    Raises:
        typer.BadParameter: a limit is too large.

    """
    try:
        return None if tokens is None and cost is None else Budget(tokens=tokens, cost=cost)
    except DefinitionError as error:
        raise typer.BadParameter(str(error)) from None


async def is_workflow(runnable: str, client: PolosClient) -> bool:
    """Return whether the id is not that of an agent: nothing but a workflow can be started then."""
    try:
        await client.get_agent(runnable)
    except AgentNotFound:
        return True
    except CallError:  # the credentials may start runs and not list agents, for example
        return False
    return False


async def watched(start: Start, way: Way, client: PolosClient, *, as_json: bool) -> int:
    """Start a run, watch it to its end, and return the exit code."""
    from polos_client.calls import running  # noqa: PLC0415 - grpc: `--help` does not need it

    stream = await running.stream(client, start)
    decide = ask if on_terminal() and not as_json else detach
    watch = Watch(client, stream.id, output_for(as_json=as_json), decide, way, attendant())
    ended = await watch.run(stream.events)
    assert ended is not None  # noqa: S101 - a stream from the start ends so, or raises
    return exit_code(ended)


def start_of(runnable: str, input: Any, **fields: Any) -> Start:
    """Return the start of a run; a workflow has no input."""
    from polos_client.calls.start import Start  # noqa: PLC0415 - slow for `--help`

    return Start(workflow_id=runnable, input=input, **fields)


def prompt_or_input(prompt: str | None) -> str:
    """Return the prompt as given, or else standard input without a newline at its end.

    Raises:
        Exit: standard input is not UTF-8 text.
        typer.BadParameter: there is no prompt, and standard input is a terminal.

    """
    if prompt is None and sys.stdin.isatty():
        raise typer.BadParameter(
            "there is no prompt: pass one, or pipe one in", param_hint="PROMPT"
        )
    if prompt is not None and prompt != "-":
        return prompt
    try:
        return sys.stdin.buffer.read().decode().removesuffix("\n")
    except UnicodeDecodeError as error:
        fail(f"the prompt on standard input is not valid UTF-8: {error}")
