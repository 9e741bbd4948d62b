"""The client's side of the product and of each peer: the texts of one answer."""

from __future__ import annotations

import uuid
from collections.abc import AsyncIterator, Callable
from itertools import cycle
from typing import Protocol

import grpc
import httpx2
import orjson

from bench.app import relay
from bench.peers.common import METHOD
from polos import PolosClient, events
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


class ElsewhereReader:
    """Starts runs at the first replica, which runs them, and reads them at the second."""

    def __init__(self, addresses: str) -> None:
        self._here, self._there = map(PolosClient, addresses.split(","))

    async def texts(self, prompt: str) -> AsyncIterator[str]:
        """Yield an answer's texts."""
        handle = await relay.invoke(self._here, {"input": prompt, "streaming": True})
        async for event in events.stream_workflow(self._there, workflow_run_id=handle.id):
            if event.event_type == "text_delta":
                yield event.data["content"]


class GrpcReader:
    """Reads the peers of one event a message."""

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


class A2aReader:
    """Reads the server of `a2a-sdk` through its generated stub."""

    def __init__(self, address: str) -> None:
        from a2a.types.a2a_pb2_grpc import A2AServiceStub  # noqa: PLC0415 - only where it is read

        self._stub = A2AServiceStub(grpc.aio.insecure_channel(address))

    async def texts(self, prompt: str) -> AsyncIterator[str]:
        """Yield the texts of the artifact's updates."""
        from a2a.types import Message, Part, Role, SendMessageRequest  # noqa: PLC0415

        message = Message(
            message_id=uuid.uuid4().hex, role=Role.ROLE_USER, parts=[Part(text=prompt)]
        )
        async for response in self._stub.SendStreamingMessage(
            SendMessageRequest(message=message), metadata=(("a2a-version", "1.0"),)
        ):
            if response.HasField("artifact_update"):
                yield response.artifact_update.artifact.parts[0].text


class SseReader:
    """Reads server-sent events."""

    def __init__(self, address: str) -> None:
        limits = httpx2.Limits(max_connections=None, max_keepalive_connections=None)
        self._url = f"http://{address}/stream"
        self._client = httpx2.AsyncClient(timeout=None, limits=limits)

    async def texts(self, prompt: str) -> AsyncIterator[str]:
        """Yield an answer's texts."""
        async with self._client.stream("POST", self._url, content=prompt) as response:
            async for line in response.aiter_lines():
                if line:
                    yield orjson.loads(line[6:])["content"]


READERS: dict[str, Callable[[str], Reader]] = {
    "polos": PolosReader,
    "nats": PolosReader,
    "nats-two": PolosReader,
    "nats-elsewhere": ElsewhereReader,
    "bare": GrpcReader,
    "plain": GrpcReader,
    "careful": GrpcReader,
    "a2a": A2aReader,
    "a2a-sqlite": A2aReader,
    "sse": SseReader,
}
"""By the name of what is measured."""
