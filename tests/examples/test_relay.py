"""What the relay of the examples passes on besides the stream: deadline, cancellation, messages.

The service behind it is the test's own, so that it sees what reaches it.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import grpc.aio
import pytest

from examples.relay_service import Relay
from polos.v1 import run_service_pb2 as pb
from polos.v1 import run_service_pb2_grpc as services
from polos.v1.event_pb2 import Event, TextDelta
from tests.support.process import PATIENCE

# Field 2 is latest_sequence = 7; field 99 is of a version that the relay does not know.
FRAME = b"\x10\x07" + b"\x98\x06\x01"


BIG = pb.StreamRunResponse(events=[Event(text_delta=TextDelta(content="long" * 100_000))])


class Upstream(services.RunServiceServicer):
    """Sends a frame, and then nothing, or ever more, until the caller leaves."""

    def __init__(self, *, ever_more: bool = False) -> None:
        self._ever_more = ever_more
        self.remaining: float | None = None
        self.left = asyncio.Event()

    async def StreamRun(  # noqa: N802 - named by the proto
        self, request: pb.StreamRunRequest, context: Any
    ) -> AsyncIterator[pb.StreamRunResponse]:
        self.remaining = context.time_remaining()
        await context.send_initial_metadata((("polos-run-id", request.agent_id),))
        yield pb.StreamRunResponse.FromString(FRAME)
        try:
            while self._ever_more:
                yield BIG
            await asyncio.Event().wait()
        finally:
            self.left.set()


@asynccontextmanager
async def served(servicer: services.RunServiceServicer) -> AsyncIterator[grpc.aio.Channel]:
    server = grpc.aio.server(options=[("grpc.so_reuseport", 0)])
    services.add_RunServiceServicer_to_server(servicer, server)
    port = server.add_insecure_port("127.0.0.1:0")
    await server.start()
    try:
        async with grpc.aio.insecure_channel(f"127.0.0.1:{port}") as channel:
            yield channel
    finally:
        await server.stop(grace=None)


@asynccontextmanager
async def relayed(
    *, ever_more: bool = False
) -> AsyncIterator[tuple[services.RunServiceAsyncStub, Upstream]]:
    """Yield the way to a relay, and the service behind it."""
    upstream = Upstream(ever_more=ever_more)  # type: ignore[abstract] # as the relay itself
    async with served(upstream) as behind, served(Relay(behind)) as channel:  # type: ignore[abstract]
        yield services.RunServiceStub(channel), upstream


async def test_frames_and_the_runs_id_are_passed_on_as_they_are() -> None:
    async with relayed() as (stub, _):
        call = stub.StreamRun(pb.StreamRunRequest(agent_id="anyone"), timeout=PATIENCE)
        response = await call.read()
        assert isinstance(response, pb.StreamRunResponse)
        assert response.SerializeToString() == FRAME
        assert dict(await call.initial_metadata())["polos-run-id"] == "anyone"
        call.cancel()


@pytest.mark.parametrize("ever_more", [False, True])
async def test_a_caller_that_leaves_ends_the_call_behind(*, ever_more: bool) -> None:
    async with relayed(ever_more=ever_more) as (stub, upstream):
        call = stub.StreamRun(pb.StreamRunRequest())
        await call.read()
        assert upstream.remaining is None
        assert not upstream.left.is_set()
        call.cancel()
        await asyncio.wait_for(upstream.left.wait(), PATIENCE)


async def test_a_deadline_holds_for_the_call_behind() -> None:
    async with relayed() as (stub, upstream):
        call = stub.StreamRun(pb.StreamRunRequest(), timeout=2)
        await call.read()
        assert upstream.remaining is not None
        assert 0 < upstream.remaining < 3
        with pytest.raises(grpc.aio.AioRpcError) as raised:
            await call.read()
        assert raised.value.code() is grpc.StatusCode.DEADLINE_EXCEEDED
        await asyncio.wait_for(upstream.left.wait(), PATIENCE)
