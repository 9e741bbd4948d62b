"""Calls of every method that the service tells by reflection, most of them wrong somewhere."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass
from random import Random
from typing import Any

import grpc
from google.protobuf.descriptor import MethodDescriptor
from google.protobuf.descriptor_pool import DescriptorPool
from grpc_reflection.v1alpha.proto_reflection_descriptor_database import (
    ProtoReflectionDescriptorDatabase,
)

from fuzz.messages import Messages, mutated

CALL_TIMEOUT = 30.0
"""Seconds after which a call that its caller does not end has failed; a stream is left earlier."""

BAD = {grpc.StatusCode.INTERNAL, grpc.StatusCode.UNKNOWN}
"""What no input may be answered with."""

HOW = ("plain", "nearly", "nearly", "nearly", "message", "mutated", "mutated", "garbage", "empty")
"""How the bytes of a request are made, as often as it stands here."""

LOCAL = "Internal error from Core"
"""What grpc's client says of a stream that ended while it wrote: no answer of the service."""

RUN_ID = "polos-run-id"
SHOWN = 300
"""Bytes of a request that a finding shows."""

KNOWN = 200
"""Runs that messages may name."""

Metadata = tuple[tuple[str, str | bytes], ...]

ODD_METADATA: tuple[Metadata, ...] = (
    (),
    (("x-empty", ""), ("x-many", "v" * 2000)),
    tuple((f"x-{number}", "v") for number in range(100)),
    (("x-bytes-bin", bytes(range(256))),),
    (
        ("grpc-tags-bin", b"\xff" * 20),
        ("grpc-trace-bin", b"\0" * 29),
        ("traceparent", "00-nonsense"),
    ),
    (("polos-run-id", "mine"), ("authorization", "Bearer nonsense"), ("content-language", "xx")),
    (("x-huge", "v" * 7000),),
    (("x-beyond-any-bound", "v" * 300_000),),
)


@dataclass(frozen=True, slots=True)
class Method:
    """A method as it is called with bytes."""

    path: str
    streams_in: bool
    streams_out: bool


@dataclass(frozen=True, slots=True)
class Answer:
    """How a call ended: its status, and all that led to it."""

    method: str
    how: str
    code: grpc.StatusCode
    details: str
    sent: bytes

    @property
    def bad(self) -> bool:
        """Whether no input may be answered so."""
        return self.code in BAD and self.details != LOCAL

    def __str__(self) -> str:
        """Return what is needed to send it again."""
        return f"{self.code.name} {self.details!r}: {self.method} {self.how} {self.sent[:SHOWN]!r}"


@dataclass(frozen=True, slots=True)
class Plan:
    """A call to make.

    Attributes:
        messages: the bytes of each request.
        leave_after: responses after which the caller goes away; None: it stays.

    """

    method: Method
    how: str
    messages: Sequence[bytes]
    metadata: Metadata
    compression: grpc.Compression
    timeout: float
    leave_after: int | None


def methods_of(channel: Any) -> list[MethodDescriptor]:
    """Ask the service which methods it has."""
    database = ProtoReflectionDescriptorDatabase(channel)
    pool = DescriptorPool(database)
    found = [pool.FindServiceByName(name) for name in sorted(database.get_services())]
    return [method for service in found for method in service.methods]


def plan(
    method: MethodDescriptor,
    messages: Messages,
    random: Random,
    credentials: Sequence[Metadata] = ((),),
) -> Plan:
    """Plan a call of a method, with some of these credentials."""
    how = random.choice(HOW)
    more = random.choice(ODD_METADATA) if random.random() < 0.3 else ()
    count = random.randint(0, 3) if method.client_streaming else 1
    return Plan(
        method=Method(
            f"/{method.containing_service.full_name}/{method.name}",
            method.client_streaming,
            method.server_streaming,
        ),
        how=how,
        messages=[encoded(method, how, messages, random) for _ in range(count)],
        metadata=(*random.choice(credentials), *more),
        compression=random.choice((grpc.Compression.NoCompression, grpc.Compression.Gzip)),
        timeout=random.choice((0.0, 0.001, 0.05)) if random.random() < 0.2 else CALL_TIMEOUT,
        leave_after=random.randrange(3) if random.random() < 0.5 else None,
    )


def encoded(method: MethodDescriptor, how: str, messages: Messages, random: Random) -> bytes:
    """Return the bytes of a request."""
    if how == "empty":
        return b""
    if how == "garbage":
        return random.randbytes(random.choice((1, 10, 1000, 100_000)))
    made = {"plain": messages.plain, "nearly": messages.nearly}.get(how, messages.of)
    data = made(method.input_type, random).SerializeToString()
    return mutated(data, random) if how == "mutated" else data


class Caller:
    """Makes calls over one channel, and collects how each ended."""

    def __init__(self, channel: grpc.aio.Channel) -> None:
        self.answers: list[Answer] = []
        self.run_ids: list[str] = []
        self._channel = channel

    async def make(self, plan: Plan) -> None:
        """Make a call."""
        call = self._open(plan)
        try:
            await self._read(plan, call)
        except (grpc.aio.AioRpcError, TimeoutError):
            pass
        except asyncio.CancelledError:
            # The service may end a call as cancelled, which nobody did here.
            if (task := asyncio.current_task()) is None or task.cancelling():
                raise
        finally:
            call.cancel()
        code, details = await call.code(), await call.details()
        answer = Answer(plan.method.path, plan.how, code, details or "", b"|".join(plan.messages))
        self.answers.append(answer)

    def _open(self, plan: Plan) -> Any:
        more: dict[str, Any] = {
            "metadata": plan.metadata,
            "compression": plan.compression,
            "timeout": plan.timeout,
        }
        path = plan.method.path
        channel: Any = self._channel
        if plan.method.streams_in:
            made = channel.stream_stream if plan.method.streams_out else channel.stream_unary
            return made(path)(each(plan.messages), **more)
        if plan.method.streams_out:
            return channel.unary_stream(path)(plan.messages[0], **more)
        return channel.unary_unary(path)(plan.messages[0], **more)

    async def _read(self, plan: Plan, call: Any) -> None:
        if not plan.method.streams_out:
            if plan.leave_after == 0:
                await asyncio.sleep(0)
                return
            await call
            return
        await self._remember(call)
        seen = 0
        async with asyncio.timeout(0.3 if plan.leave_after is None else 1.0):
            async for _ in call:
                seen += 1
                if plan.leave_after is not None and seen > plan.leave_after:
                    return

    async def _remember(self, call: Any) -> None:
        for name, value in await call.initial_metadata():
            if name == RUN_ID and len(self.run_ids) < KNOWN:
                self.run_ids.append(value)


async def each(messages: Sequence[bytes]) -> AsyncIterator[bytes]:
    """Yield the requests of a stream."""
    for message in messages:
        yield message
