"""How a run is started and seen to its end: run, stream and invoke."""

from __future__ import annotations

import asyncio
from typing import NoReturn

import grpc.aio

from polos.v1.run_pb2 import Run
from polos.v1.run_service_pb2 import StreamRunRequest, StreamRunResponse
from polos.v1.run_service_pb2_grpc import RunServiceStub
from polos_client import wire
from polos_client.calls.backoff import Backoff
from polos_client.calls.connection import (
    Connection,
    Definition,
    checked_client,
    raise_if_own_cancellation,
)
from polos_client.calls.follow import fold
from polos_client.calls.handle import ExecutionHandle
from polos_client.calls.start import Start
from polos_client.calls.states import ENDED_OTHERWISE
from polos_client.calls.stream import AgentStream
from polos_client.deadlines import is_number
from polos_client.errors import ConnectionLost, InvalidRequest, PolosError, RunTimeout
from polos_client.fold import RunAccumulator, outcome_usage
from polos_client.result import AgentResult

_Call = grpc.aio.UnaryStreamCall[StreamRunRequest, StreamRunResponse]


def prepare(client: object, definition: Definition) -> None:
    """Let the client do what a run of the definition needs, if it is a client.

    Raises:
        InvalidRequest: it is not.

    """
    checked_client(client).prepare(definition)


async def run(client: Connection, start: Start, timeout: float | None) -> AgentResult:
    """Start a run, see it to its end and return its result.

    The start itself is not cut short by `timeout`, so that the run that is cancelled then
    is always known.

    Raises:
        RunError: the run ended without a result, `timeout` included.
        CallError: the service refused, or an argument cannot be used.
        ConnectionLost: it could not be reached.

    """
    if timeout is not None and not (is_number(timeout) and timeout > 0):
        wanted = "it must be a number of seconds above 0, or None"
        raise InvalidRequest({"timeout": f"is {timeout!r}; {wanted}"})
    begun = asyncio.get_running_loop().time()
    started = await client.create_run(start.create_request(streaming=False))
    folded = RunAccumulator(started.run_id)
    try:
        async with asyncio.timeout_at(None if timeout is None else begun + timeout):
            await fold(client, started.run_id, into=folded)
    except TimeoutError:
        await _give_up(client, started.run_id, folded, timeout)
    return folded.result()


async def stream(client: Connection, start: Start) -> AgentStream:
    """Start a run and return its stream, when the run is on disk.

    Raises:
        CallError: the service refused.
        ConnectionLost: it could not be reached.

    """
    request = start.stream_request()
    backoff = Backoff(client.patience)
    while True:
        call = await client.open(lambda channel: RunServiceStub(channel).StreamRun, request)
        try:
            run_id = await _run_id(client, call)
        except grpc.aio.AioRpcError as error:
            # The request's id makes a start whose answer was lost the same start again.
            await client.failed(error, backoff, call)
            continue
        client.reached()
        return AgentStream(client, ExecutionHandle.of_start(start, run_id), call)


async def invoke(client: Connection, start: Start, *, streaming: bool) -> ExecutionHandle:
    """Start a run and return its handle, when the run is on disk.

    Raises:
        CallError: the service refused.
        ConnectionLost: it could not be reached.

    """
    return ExecutionHandle.of(await client.create_run(start.create_request(streaming=streaming)))


async def _run_id(client: Connection, call: _Call) -> str:
    """Return the run that the call started; raise what it failed with."""
    try:
        async with asyncio.timeout(wire.SILENCE):
            metadata = await call.initial_metadata()
            if run_id := metadata.get(wire.RUN_ID_KEY):
                return str(run_id)
            await call.read()  # raises the status that came instead
    except TimeoutError as error:
        call.cancel()
        raise ConnectionLost(
            f"{client.address} did not respond to the start within {wire.SILENCE:g} s"
        ) from error
    except asyncio.CancelledError:
        call.cancel()
        raise_if_own_cancellation()
        raise client.closed() from None
    call.cancel()
    raise ConnectionLost(
        f"the server at {client.address} named no run: it is not a Polos service of this version"
    )


async def _give_up(
    client: Connection, run_id: str, folded: RunAccumulator, timeout: float | None
) -> None:
    """Cancel a run that takes too long and raise RunTimeout, unless it has ended meanwhile."""
    try:
        ended = await client.cancel_run(run_id)
    except PolosError as error:
        _timed_out(run_id, folded, timeout, f"; cancelling it failed: {error}")
    if ended.state in ENDED_OTHERWISE:
        await fold(client, run_id, into=folded)
        return
    _timed_out(run_id, folded, timeout, " and was cancelled", ended)


def _timed_out(
    run_id: str,
    folded: RunAccumulator,
    timeout: float | None,
    rest: str,
    ended: Run | None = None,
) -> NoReturn:
    told = outcome_usage(ended.outcome) if ended is not None else None
    raise RunTimeout(
        f"run {run_id} took longer than {timeout:g} s{rest}",
        run_id=run_id,
        timeout_seconds=timeout,
        reason="run_timeout",
        text=folded.text,
        usage=told or folded.usage,
    )
