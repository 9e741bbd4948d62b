"""The client's side of the product and of the floor: the texts of one answer."""

from __future__ import annotations

from collections.abc import AsyncIterator
from itertools import cycle
from typing import Protocol

import grpc

from bench.app import relay
from bench.peers.common import METHOD
from polos import PolosClient
from polos.v1.event_pb2 import Event
from polos.v1.run_service_pb2 import StreamRunRequest


class Reader(Protocol):
    """A client of one server; may read any number of answers at once."""

    def texts(self, prompt: str) -> AsyncIterator[str]:
        """Yield the texts of an answer as they come, in the way the server's users would."""
        ...


class PolosReader:
    """Reads `text_chunks` of the product, from each of its replicas in turn."""

    def __init__(self, addresses: str) -> None:
        self._clients = cycle([PolosClient(address) for address in addresses.split(",")])

    async def texts(self, prompt: str) -> AsyncIterator[str]:
        """Yield an answer's chunks."""
        stream = await relay.stream(next(self._clients), prompt)
        async for chunk in stream.text_chunks:
            yield chunk


class GrpcReader:
    """Reads the floor, of one event a message."""

    def __init__(self, address: str) -> None:
        channel = grpc.aio.insecure_channel(address)
        self._stream = channel.unary_stream(
            METHOD,
            request_serializer=StreamRunRequest.SerializeToString,
            response_deserializer=Event.FromString,
        )

    async def texts(self, prompt: str) -> AsyncIterator[str]:
        """Yield an answer's texts."""
        async for event in self._stream(StreamRunRequest(input=prompt)):
            yield event.text_delta.content
