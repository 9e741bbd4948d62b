"""A service with credentials on, and keys for it."""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import grpc.aio
import pytest

from polos.v1 import admin_service_pb2 as pb
from polos.v1.admin_service_pb2_grpc import AdminServiceStub
from polos_client.calls.status import to_error
from polos_client.define.agent import Agent
from polos_client.define.workflow import Workflow
from polos_client.errors import CallError
from polos_service.access.keys import ENTRY, Key, encode, new_text
from polos_service.caller import AGENTS_READ, RUNS_READ, RUNS_RESUME, RUNS_WRITE
from polos_service.server import Service
from tests.support.service import Served, serving

if TYPE_CHECKING:
    from polos.v1.admin_service_pb2_grpc import AdminServiceAsyncStub

BOOTSTRAP = "polos_boot_" + "b0" * 32
"""The bootstrap key of services in tests."""

USUAL = (AGENTS_READ, RUNS_READ, RUNS_WRITE, RUNS_RESUME)
"""The scopes of a key for which a test names none."""

Header = tuple[tuple[str, str], ...]
"""The metadata of a call."""


def bearer(token: str) -> Header:
    """Return the metadata with which a caller sends a token."""
    return (("authorization", f"Bearer {token}"),)


OPERATOR = bearer(BOOTSTRAP)
"""The metadata of whoever has the bootstrap key."""


@dataclass(frozen=True, slots=True)
class Admin:
    """Somebody with the bootstrap key."""

    stub: AdminServiceAsyncStub

    async def key(
        self, project: str = "default", scopes: Iterable[str] = USUAL, **fields: Any
    ) -> pb.CreateKeyResponse:
        """Create a key."""
        request = pb.CreateKeyRequest(name="test", project=project, scopes=scopes, **fields)
        return await self.stub.CreateKey(request, metadata=OPERATOR)

    async def header(self, project: str = "default", scopes: Iterable[str] = USUAL) -> Header:
        """Return the metadata of a caller with a new key."""
        return bearer((await self.key(project, scopes)).api_key)

    async def expired(
        self, service: Service, project: str = "default", scopes: Iterable[str] = USUAL
    ) -> Header:
        """Return the metadata of a caller whose key was good once."""
        text = new_text()
        key = Key(
            id=text.id,
            name="expired",
            project=project,
            scopes=frozenset(scopes),
            hash=text.hash,
            created=0.0,
            expires=1.0,
        )
        await service._store.access.put(ENTRY + key.id, encode(key), 0)
        await service._access.keys.refresh()
        return bearer(text.full())

    async def revoke(self, key: pb.CreateKeyResponse) -> None:
        """Revoke a key."""
        await self.stub.RevokeKey(pb.RevokeKeyRequest(key_id=key.key.key_id), metadata=OPERATOR)


@contextlib.asynccontextmanager
async def guarded(
    folder: Path, *agents: Agent | Workflow, **settings: Any
) -> AsyncIterator[tuple[Served, Admin]]:
    """Run a service that asks for credentials, on `folder`/runs.db."""
    async with serving(folder, *agents, **{"bootstrap_key": BOOTSTRAP} | settings) as served:
        yield served, Admin(AdminServiceStub(served.channel))


async def refusal(call: Any) -> CallError:
    """Return the error that a client makes of the refusal of a call."""
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await call
    error = to_error(caught.value, "the service")
    assert isinstance(error, CallError)
    return error
