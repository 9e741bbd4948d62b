"""`polos health`: whether the service takes calls."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import typer

from polos_service.cli.exits import REFUSED, fail
from polos_service.cli.service import PATIENCE, Way, call, calls_service

if TYPE_CHECKING:
    from polos_client.calls.client import PolosClient


@calls_service
def health(way: Way) -> None:
    """Show the service's health: SERVING (exit code 0) or NOT_SERVING (exit code 1)."""
    status = call(way, check)
    typer.echo(status)
    if status != "SERVING":
        raise typer.Exit(REFUSED)


async def check(client: PolosClient) -> str:
    """Return the status that the standard health service tells (grpc.health.v1)."""
    import grpc.aio  # noqa: PLC0415 - `--help` needs none
    from grpc_health.v1 import health_pb2, health_pb2_grpc  # noqa: PLC0415

    stub: Any = health_pb2_grpc.HealthStub(await client.channel())
    try:
        answer = await stub.Check(health_pb2.HealthCheckRequest(), timeout=PATIENCE)
    except grpc.aio.AioRpcError as error:
        said = f"{error.code().name}: {error.details()}"
        fail(f"{client.address} does not report its health ({said})")
    return health_pb2.HealthCheckResponse.ServingStatus.Name(answer.status)
