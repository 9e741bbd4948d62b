"""What is open at once is bounded, and those who are within the bounds notice nothing."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from itertools import cycle
from pathlib import Path
from typing import Any

import grpc
import grpc.aio
import pytest
from grpc_health.v1 import health_pb2
from grpc_reflection.v1alpha import reflection_pb2

from polos.v1 import run_service_pb2 as pb
from polos.v1.run_pb2 import RunState
from polos.v1.run_service_pb2_grpc import RunServiceStub
from polos_client.calls.status import to_error
from polos_client.define.scripted import pause, turn
from polos_client.errors import CallError, TooManyCalls
from polos_service.api.grpc import guard
from tests.support.service import BOUND, Served, scripted, serving, until

Code = grpc.StatusCode
SILENT = scripted(turn("Hello ", pause()))


@asynccontextmanager
async def connection(served: Served) -> AsyncIterator[grpc.aio.Channel]:
    """Open a connection of one's own."""
    own = (("grpc.use_local_subchannel_pool", 1),)
    address = f"127.0.0.1:{served.service.port}"
    async with grpc.aio.insecure_channel(address, own) as channel:
        yield channel


async def attached(channel: Any, run_id: str) -> Any:
    """Attach a reader, and return when it is."""
    call = RunServiceStub(channel).StreamWorkflow(pb.StreamWorkflowRequest(workflow_run_id=run_id))
    await call.read()
    return call


async def refusal(call: Any) -> CallError:
    """Return what a call is refused with."""
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await call
    assert caught.value.code() is Code.RESOURCE_EXHAUSTED
    error = to_error(caught.value, "the service")
    assert isinstance(error, CallError)
    return error


async def test_with_all_streams_taken_a_bystander_can_look_and_cancel(tmp_path: Path) -> None:
    bounds = {"max_streams": 3, "max_connection_streams": 2}
    async with serving(tmp_path, SILENT, **bounds) as served:
        run_id = await served.start(SILENT)
        async with connection(served) as one, connection(served) as two, connection(served) as by:
            readers = [await attached(channel, run_id) for channel in (one, one, two)]
            for channel, kind in ((one, "this connection"), (by, "the service")):
                error = await refusal(attached(channel, run_id))
                assert isinstance(error, TooManyCalls)
                assert error.retry_after == 1.0
                assert error.metadata["kind"] == "stream"
                assert kind in str(error)
            runs: Any = RunServiceStub(by)
            assert (await runs.GetRun(pb.GetRunRequest(run_id=run_id))).run.run_id == run_id
            answer = await runs.CancelRun(pb.CancelRunRequest(run_id=run_id))
            assert answer.run.state == RunState.RUN_STATE_CANCELLED
            for call in readers:
                while await call.read() is not grpc.aio.EOF:
                    pass
            again = await attached(by, run_id)
            assert await again.code() is Code.OK


async def test_a_reader_that_left_gives_its_place_to_the_next(tmp_path: Path) -> None:
    async with serving(tmp_path, SILENT, max_streams=1) as served:
        run_id = await served.start(SILENT)
        (await attached(served.channel, run_id)).cancel()

        async def attaches() -> bool:
            try:
                (await attached(served.channel, run_id)).cancel()
            except grpc.aio.AioRpcError:
                return False
            return True

        await until(attaches, "the place is free again")


async def test_the_client_waits_for_a_place(tmp_path: Path) -> None:
    async with serving(tmp_path, SILENT, max_streams=1) as served:
        run_id = await served.start(SILENT)
        reader = await attached(served.channel, run_id)
        asking = asyncio.create_task(SILENT.stream(served.client, "Go."))
        done, _ = await asyncio.wait({asking}, timeout=0.2)
        assert not done
        reader.cancel()
        async with asyncio.timeout(BOUND):
            assert (await asking).id


async def test_watchers_of_health_and_reflection_are_streams(tmp_path: Path) -> None:
    async with serving(tmp_path, SILENT, max_streams=1) as served:
        watch = served.health().Watch(health_pb2.HealthCheckRequest())
        await watch.read()
        run_id = await served.start(SILENT)
        assert isinstance(await refusal(attached(served.channel, run_id)), TooManyCalls)
        told = served.reflection().ServerReflectionInfo()
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await told.write(reflection_pb2.ServerReflectionRequest(list_services=""))
            await told.read()
            raise AssertionError(await told.code())
        assert caught.value.code() is Code.RESOURCE_EXHAUSTED
        checked = await served.health().Check(health_pb2.HealthCheckRequest())
        assert checked.status == health_pb2.HealthCheckResponse.SERVING


async def unsent(channel: grpc.aio.Channel, method: str) -> Any:
    """Open a call that never sends its request."""
    open_call: Any = channel.stream_unary(method)
    call = open_call()
    await call.wait_for_connection()
    return call


async def test_calls_that_never_send_their_request_are_counted_and_given_up(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    method = "/polos.v1.RunService/GetRun"
    monkeypatch.setattr(guard, "REQUEST_WAIT", BOUND)
    async with serving(tmp_path, SILENT, max_calls=4) as served:
        run_id = await served.start(SILENT)
        get: Any = pb.GetRunRequest(run_id=run_id)
        async with connection(served) as one, connection(served) as two:
            idle: list[Any] = []
            channels = cycle([one, two])

            async def full() -> bool:
                try:
                    await served.runs.GetRun(get)
                except grpc.aio.AioRpcError as error:
                    return isinstance(to_error(error, "the service"), TooManyCalls)
                return False

            async def filled() -> bool:
                if await full():
                    return True
                # This may be refused as well, if GetRun takes the last place meanwhile.
                idle.append(await unsent(next(channels), method))
                return False

            await until(filled, "all places are taken")
            reader = await attached(served.channel, run_id)  # streams have places of their own
            reader.cancel()
            for call in idle:
                call.cancel()

        async def room() -> bool:
            return not await full()

        await until(room, "the places are free again")
        monkeypatch.setattr(guard, "REQUEST_WAIT", 0.05)
        async with connection(served) as slow:
            call = await unsent(slow, method)
            with pytest.raises(grpc.aio.AioRpcError) as caught:
                await call
            assert caught.value.code() is Code.INVALID_ARGUMENT
            assert "did not arrive within 0.05 s" in str(caught.value.details())
        assert (await served.runs.GetRun(get)).run.run_id == run_id


async def test_connections_beyond_the_bound_are_closed(tmp_path: Path) -> None:
    async with serving(tmp_path, SILENT, max_connections=2) as served:
        await served.start(SILENT)
        address = ("127.0.0.1", served.service.port)
        _, first = await asyncio.open_connection(*address)
        read, second = await asyncio.open_connection(*address)
        async with asyncio.timeout(BOUND):
            while await read.read(1000):  # settings of an HTTP/2 server, then the end
                pass
        assert await served.start(SILENT)
        first.close()
        second.close()


async def test_metadata_and_requests_beyond_the_bounds_are_refused(tmp_path: Path) -> None:
    async with serving(tmp_path, SILENT) as served:
        list_runs: Any = served.runs.ListRuns
        for metadata, size in (((("x", "y" * 20_000),), 0), ((), 3 * 1024 * 1024)):
            with pytest.raises(grpc.aio.AioRpcError) as caught:
                await list_runs(pb.ListRunsRequest(page_token="x" * size), metadata=metadata)
            assert caught.value.code() is Code.RESOURCE_EXHAUSTED
        assert not (await list_runs(pb.ListRunsRequest())).runs
