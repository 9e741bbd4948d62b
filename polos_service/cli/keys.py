"""`polos keys`: the API keys of a service, or of a store whose service is stopped."""

from __future__ import annotations

import asyncio
import uuid
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Annotated, Any

import typer

from polos_client.errors import StoreUnavailable
from polos_service.cli.exits import fail, reporting
from polos_service.cli.output import print_json
from polos_service.cli.records import expiry_time, iso, span
from polos_service.cli.service import AsJson, Way, call, calls_service
from polos_service.cli.table import print_table

if TYPE_CHECKING:
    from collections.abc import Awaitable

    from google.protobuf.message import Message

    from polos.v1.admin_service_pb2 import ApiKey
    from polos_client.calls.client import PolosClient

app = typer.Typer(no_args_is_help=True, help="Create, list and revoke API keys.")

COLUMNS = ("ID", "NAME", "PROJECT", "SCOPES", "STATE", "AGE", "EXPIRES")

DEFAULT_SCOPES = ("agents:read", "runs:read", "runs:write", "runs:resume")
"""The scopes of a key for which the command line names none."""

PAGE = 1000
"""Keys that are asked for at once."""

Store = Annotated[
    str | None,
    typer.Option(
        metavar="URL",
        help="Open this store instead of calling a service: sqlite:///PATH, whose service must be "
        "stopped, or nats://HOST:4222.",
    ),
]
"""The option that leads to a store without a service."""

Project = Annotated[
    str, typer.Option(metavar="PROJECT", help="The project. Default: that of the API key in use.")
]
"""The option that names whose keys are meant."""


@app.command()
@calls_service
def create(
    name: Annotated[str, typer.Argument(metavar="NAME", help="What the key is for.")],
    *,
    project: Project = "",
    scope: Annotated[
        list[str] | None,
        typer.Option(
            metavar="SCOPE",
            help="agents:read, runs:read, runs:write, runs:resume, admin, or * for everything in "
            "every project; repeat the option for several. Default: all but admin and *.",
        ),
    ] = None,
    expires: Annotated[
        Any,
        typer.Option(
            metavar="TIME",
            parser=expiry_time,
            help="When the key ends: in 12h or 90d, or at an ISO 8601 time. Default: never.",
        ),
    ] = None,
    as_json: AsJson = False,
    store: Store = None,
    way: Way,
) -> None:
    """Create a key and print it. It is not shown again."""
    from polos.v1.admin_service_pb2 import CreateKeyRequest  # noqa: PLC0415 - protobuf, grpc

    request = CreateKeyRequest(
        name=name,
        project=project,
        scopes=scope or DEFAULT_SCOPES,
        expire_time=expires,
        request_id=str(uuid.uuid4()),
    )
    created = asked("CreateKey", request, store, way)
    if not created.api_key:
        fail(
            f"The key {created.key.key_id} was created, but the connection broke before it was "
            f"shown. Revoke it (`polos keys revoke {created.key.key_id}`) and create another one."
        )
    if as_json:
        print_json({**as_dict(created.key), "api_key": created.api_key})
        return
    typer.echo(created.api_key)
    key = created.key
    about = f"Key {key.key_id} of project {key.project}: {', '.join(key.scopes)}."
    typer.echo(f"{about} Keep it: it is not shown again.", err=True)


@app.command("list")
@calls_service
def list_keys(
    *,
    project: Project = "",
    as_json: AsJson = False,
    store: Store = None,
    way: Way,
) -> None:
    """List the keys of a project by id, including expired and revoked ones."""
    from polos.v1.admin_service_pb2 import ListKeysRequest  # noqa: PLC0415 - protobuf, grpc

    keys: list[ApiKey] = []
    request = ListKeysRequest(project=project, page_size=PAGE)
    while True:
        page = asked("ListKeys", request, store, way)
        keys += page.keys
        if not page.next_page_token:
            break
        request.page_token = page.next_page_token
    if as_json:
        for key in keys:
            print_json(as_dict(key))
        return
    now = datetime.now(UTC)
    print_table(COLUMNS, [row_of(key, now) for key in keys])


@app.command()
@calls_service
def revoke(
    key_ids: Annotated[list[str], typer.Argument(metavar="ID...", help="The keys' ids.")],
    *,
    as_json: AsJson = False,
    store: Store = None,
    way: Way,
) -> None:
    """Revoke keys for good: within 5 seconds no replica takes them."""
    from polos.v1.admin_service_pb2 import RevokeKeyRequest  # noqa: PLC0415 - protobuf, grpc

    for key_id in key_ids:
        key = asked("RevokeKey", RevokeKeyRequest(key_id=key_id), store, way).key
        if as_json:
            print_json(as_dict(key))
        else:
            typer.echo(f"Key {key.key_id} is revoked.")


def asked(method: str, request: Message, store: str | None, way: Way) -> Any:
    """Return what AdminService answers, from the service or over the store itself."""
    if store is not None:
        with reporting():
            return asyncio.run(over_store(store, method, request))

    def ask(client: PolosClient) -> Awaitable[Any]:
        from polos.v1.admin_service_pb2_grpc import AdminServiceStub  # noqa: PLC0415 - grpc

        return client.call(lambda channel: getattr(AdminServiceStub(channel), method), request)

    return call(way, ask)


async def over_store(store: str, method: str, request: Message) -> Any:
    """Return what AdminService answers somebody who has the store, and may do everything.

    Raises:
        PolosError: the store cannot be opened, or the request is refused.

    """
    from polos_service import logs  # noqa: PLC0415
    from polos_service.access import Access  # noqa: PLC0415 - other commands start sooner without
    from polos_service.api.grpc.admin_service import AdminService  # noqa: PLC0415
    from polos_service.caller import OPERATOR  # noqa: PLC0415
    from polos_service.config import Settings  # noqa: PLC0415
    from polos_service.server import open_store  # noqa: PLC0415
    from polos_service.store.refusals import StoreInUse  # noqa: PLC0415

    logs.log_to_stderr()
    settings = Settings.load(store=store)
    try:
        opened = await open_store(settings)
    except StoreInUse:
        raise StoreUnavailable(
            f"A service has the store {store} open. Leave out --store to call the service, or "
            "stop it first."
        ) from None
    try:
        access = Access(settings, opened.access)
        admin = AdminService(access.keeper, access.signing)
        return await getattr(admin, method)(OPERATOR, request, None)
    finally:
        await opened.close()
        logs.flush()


def as_dict(key: ApiKey) -> dict[str, Any]:
    """Return the key; what has no value is absent."""
    shown = {
        "key_id": key.key_id,
        "name": key.name,
        "project": key.project,
        "scopes": list(key.scopes),
        "state": state_of(key, datetime.now(UTC)),
        "created_at": iso(key.create_time),
        "expires_at": iso(key.expire_time) if key.HasField("expire_time") else None,
        "revoked_at": iso(key.revoke_time) if key.HasField("revoke_time") else None,
    }
    return {name: value for name, value in shown.items() if value is not None}


def row_of(key: ApiKey, now: datetime) -> list[str]:
    """Return the key as a table's row."""
    age = span(now - key.create_time.ToDatetime(tzinfo=UTC))
    expires = iso(key.expire_time) if key.HasField("expire_time") else ""
    scopes = ",".join(key.scopes)
    return [key.key_id, key.name, key.project, scopes, state_of(key, now), age, expires]


def state_of(key: ApiKey, now: datetime) -> str:
    """Return whether the key is good: "active", "expired" or "revoked"."""
    if key.HasField("revoke_time"):
        return "revoked"
    ended = key.HasField("expire_time") and key.expire_time.ToDatetime(tzinfo=UTC) <= now
    return "expired" if ended else "active"
