"""AdminService: manages credentials."""

from __future__ import annotations

from typing import Any

import grpc
from google.protobuf.timestamp_pb2 import Timestamp

from polos.v1 import admin_service_pb2 as pb
from polos_client.errors import InvalidRequest
from polos_service.access.keeper import Keeper, NewKey, require_credentials
from polos_service.access.keys import Key
from polos_service.access.signing import SigningKeys
from polos_service.api.grpc.handlers import needs
from polos_service.api.grpc.messages import nanoseconds, page_size, timestamp
from polos_service.caller import ADMIN, EVERYTHING, Caller
from polos_service.runs.frame import SECOND

Context = grpc.aio.ServicerContext[Any, Any]


class AdminService:
    """The servicer."""

    def __init__(self, keeper: Keeper, signing: SigningKeys) -> None:
        self._keeper = keeper
        self._signing = signing

    @needs(ADMIN)
    async def CreateKey(
        self, caller: Caller, request: pb.CreateKeyRequest, context: Context
    ) -> pb.CreateKeyResponse:
        """Create a key."""
        expires = nanoseconds(request, "expire_time")
        new = NewKey(
            name=request.name,
            project=request.project,
            scopes=tuple(request.scopes),
            expires=None if expires is None else expires / SECOND,
            request_id=request.request_id,
        )
        key, text = await self._keeper.create(caller, new)
        return pb.CreateKeyResponse(
            key=message_of(key), api_key="" if text is None else text.full()
        )

    @needs(ADMIN)
    async def ListKeys(
        self, caller: Caller, request: pb.ListKeysRequest, context: Context
    ) -> pb.ListKeysResponse:
        """Return a page of keys; the token is the id of the last one on the page before."""
        limit = page_size(request.page_size)
        keys = await self._keeper.keys(caller, request.project, request.page_token)
        return pb.ListKeysResponse(
            keys=map(message_of, keys[:limit]),
            next_page_token=keys[limit - 1].id if len(keys) > limit else "",
        )

    @needs(ADMIN)
    async def RevokeKey(
        self, caller: Caller, request: pb.RevokeKeyRequest, context: Context
    ) -> pb.RevokeKeyResponse:
        """Revoke a key."""
        if not request.key_id:
            raise InvalidRequest({"key_id": "is empty"})
        return pb.RevokeKeyResponse(
            key=message_of(await self._keeper.revoke(caller, request.key_id))
        )

    @needs(EVERYTHING)
    async def RevokeRunTokens(
        self, caller: Caller, request: pb.RevokeRunTokensRequest, context: Context
    ) -> pb.RevokeRunTokensResponse:
        """Revoke all run tokens."""
        require_credentials(caller)
        await self._signing.rotate()
        return pb.RevokeRunTokensResponse()


def message_of(key: Key) -> pb.ApiKey:
    """Return the key as a message."""
    return pb.ApiKey(
        key_id=key.id,
        name=key.name,
        project=key.project,
        scopes=sorted(key.scopes),
        create_time=seconds(key.created),
        expire_time=seconds(key.expires),
        revoke_time=seconds(key.revoked),
    )


def seconds(time: float | None) -> Timestamp | None:
    """Return a time in seconds since the epoch as a message."""
    return timestamp(None if time is None else round(time * SECOND))
