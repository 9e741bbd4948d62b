"""The way of a command to the service: its options, and a client that soon knows who is there."""

from __future__ import annotations

import asyncio
import inspect
import os
import shlex
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, Any, NoReturn, TypeVar, cast

import typer

from polos_client.errors import DefinitionError, PolosError
from polos_service.cli.exits import reporting

if TYPE_CHECKING:
    from polos_client.calls.client import PolosClient

PATIENCE = 3.0
"""Seconds for which a command waits for a service to be there at all."""

PANEL = "The service"
"""The part of a command's help that has these options."""


@dataclass(frozen=True, kw_only=True)
class Way:
    """How a command reaches the service: what its options say, and else the environment.

    Attributes:
        address: as `PolosClient` takes it.
        tls: whether to encrypt.
        tls_ca: the authorities to trust, a PEM file.
        client_cert: the client's own certificate, a PEM file.
        client_key: its key, a PEM file.
        api_key: the key itself.
        api_key_file: the file that has the key.

    """

    address: Annotated[
        str | None,
        typer.Option(
            metavar="HOST:PORT",
            envvar="POLOS_ADDRESS",
            rich_help_panel=PANEL,
            help="Address of the service, or a URL. Default: 127.0.0.1:50051.",
        ),
    ] = None
    tls: Annotated[
        bool | None,
        typer.Option(
            "--tls/--no-tls",
            rich_help_panel=PANEL,
            help="Use TLS, or plaintext. Default: POLOS_TLS, or what the URL says.",
        ),
    ] = None
    tls_ca: Annotated[
        str | None,
        typer.Option(
            metavar="FILE", rich_help_panel=PANEL, help="Use TLS and trust these certificates only."
        ),
    ] = None
    client_cert: Annotated[
        str | None,
        typer.Option(
            metavar="FILE",
            rich_help_panel=PANEL,
            help="Use TLS with this client certificate. Default: POLOS_CLIENT_CERT.",
        ),
    ] = None
    client_key: Annotated[
        str | None,
        typer.Option(
            metavar="FILE",
            rich_help_panel=PANEL,
            help="The key of --client-cert. Default: POLOS_CLIENT_KEY, or the same file.",
        ),
    ] = None
    api_key: Annotated[
        str | None,
        typer.Option(
            metavar="KEY",
            rich_help_panel=PANEL,
            help="API key or token. Other users of this machine can see it here: prefer "
            "--api-key-file or POLOS_API_KEY.",
        ),
    ] = None
    api_key_file: Annotated[
        str | None,
        typer.Option(
            metavar="FILE",
            rich_help_panel=PANEL,
            help="File with the API key or token. Default: POLOS_API_KEY_FILE.",
        ),
    ] = None

    def client(self) -> PolosClient:
        """Return a client that goes this way.

        Raises:
            DefinitionError: a value cannot be used, or two contradict each other.

        """
        from polos_client.calls.client import PolosClient  # noqa: PLC0415 - grpc: `--help` needs none
        from polos_client.calls.target import key_in_file  # noqa: PLC0415

        if self.tls is False and self.tls_ca:
            raise DefinitionError("--no-tls and --tls-ca contradict each other")
        if self.api_key and self.api_key_file:
            raise DefinitionError("pass either --api-key or --api-key-file")
        return PolosClient(
            self.address,
            tls=self.tls_ca or self.tls,
            client_cert=self.client_cert,
            client_key=self.client_key,
            api_key=key_in_file(self.api_key_file) if self.api_key_file else self.api_key,
        )

    def flags(self) -> str:
        """Return the options that were given, for a further command; never the key itself."""
        switch = {None: (), True: ("--tls",), False: ("--no-tls",)}[self.tls]
        address = None if self.address == os.environ.get("POLOS_ADDRESS") else self.address
        given = {
            "--address": address,
            "--tls-ca": self.tls_ca,
            "--client-cert": self.client_cert,
            "--client-key": self.client_key,
            "--api-key-file": self.api_key_file,
        }
        pairs = [word for name, value in given.items() if value for word in (name, value)]
        return shlex.join([*pairs, *switch])


_Command = TypeVar("_Command", bound=Callable[..., None])


def calls_service(command: _Command) -> _Command:
    """Give a command the options of a `Way` in place of its parameter `way`."""
    own = inspect.signature(command, eval_str=True)
    options = inspect.signature(Way, eval_str=True).parameters

    def run(**given: Any) -> None:
        del given["port"]
        way = Way(**{name: given.pop(name) for name in options})
        command(**given, way=way)

    parameters = [
        *(one.replace(kind=inspect.Parameter.KEYWORD_ONLY) for one in own.parameters.values()),
        *options.values(),
        inspect.Parameter("port", inspect.Parameter.KEYWORD_ONLY, default=None, annotation=Port),
    ]
    shown = [one for one in parameters if one.name != "way"]
    run.__name__, run.__doc__ = command.__name__, command.__doc__
    run.__signature__ = own.replace(parameters=shown)  # type: ignore[attr-defined]
    run.__annotations__ = {one.name: one.annotation for one in shown}
    return cast("_Command", run)


def no_port(text: str) -> NoReturn:
    """Say where the address belongs, to whoever gives a port by itself.

    Raises:
        typer.BadParameter: always.

    """
    place = text if ":" in text else f"127.0.0.1:{text}" if text.isdecimal() else "HOST:PORT"
    raise typer.BadParameter(
        f"there is no such option: pass --listen {place} to `polos serve`, and --address {place} "
        "to the other commands"
    )


Port = Annotated[Any, typer.Option("--port", "--host", parser=no_port, hidden=True)]
"""The options of other servers that `--listen` and `--address` are here."""

AsJson = Annotated[bool, typer.Option("--json", help="Print JSON, one object per line.")]
"""The option of commands whose output programs read."""


def agent_names(incomplete: str) -> list[str]:
    """Return the agents that the shell may complete to; none where the service is not reached."""
    try:
        agents = asyncio.run(connected(Way(), lambda client: client.list_agents()))
    except PolosError:
        return []
    return [agent.agent_id for agent in agents if agent.agent_id.startswith(incomplete)]


def runnable_names(incomplete: str) -> list[str]:
    """Return the agents and workflows that the shell may complete to."""
    try:
        workflows = asyncio.run(connected(Way(), lambda client: client.list_workflows()))
    except PolosError:
        return []
    found = [one.workflow_id for one in workflows if one.workflow_id.startswith(incomplete)]
    return [*agent_names(incomplete), *found]


AgentId = Annotated[
    str, typer.Argument(metavar="AGENT", help="The agent's id.", autocompletion=agent_names)
]
"""The argument of commands that work with an agent."""

_Result = TypeVar("_Result")


def call(way: Way, work: Callable[[PolosClient], Awaitable[_Result]]) -> _Result:
    """Return what `work` does with a client; an error of ours ends the command."""
    with reporting():
        return asyncio.run(connected(way, work))


async def connected(way: Way, work: Callable[[PolosClient], Awaitable[_Result]]) -> _Result:
    """Return what `work` does with a client that has reached the service.

    Raises:
        ConnectionLost: nobody was there.
        PolosError: whatever `work` raises.

    """
    async with way.client() as client:
        await client.reach(PATIENCE)
        return await work(client)
