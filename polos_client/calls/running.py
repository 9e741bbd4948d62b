"""How an agent's run is started and seen to its end: run, stream and invoke."""

from __future__ import annotations

import asyncio
from typing import Any, NoReturn

import grpc.aio

from polos.v1.run_pb2 import Run
from polos.v1.run_service_pb2 import StreamRunRequest, StreamRunResponse
from polos_client.calls import follow
from polos_client.calls.backoff import Backoff
from polos_client.calls.client import PolosClient, raise_if_own_cancellation
from polos_client.calls.handle import ENDED_OTHERWISE, ExecutionHandle
from polos_client.calls.start import Start
from polos_client.calls.stream import AgentStream
from polos_client.deadlines import is_number
from polos_client.errors import ConnectionLost, InvalidRequest, PolosError, RunTimeout
from polos_client.fold import RunAccumulator, outcome_usage
from polos_client.result import AgentResult

RUN_ID_KEY = "polos-run-id"
"""The initial metadata in which StreamRun names the run."""

_Call = grpc.aio.UnaryStreamCall[StreamRunRequest, StreamRunResponse]


async def run(client: PolosClient, start: Start, timeout: float | None) -> AgentResult:
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
    _prepare(client, start)
    begun = asyncio.get_running_loop().time()
    started = await client.start(start.create_request(streaming=False))
    folded = RunAccumulator(started.run_id)
    try:
        async with asyncio.timeout_at(None if timeout is None else begun + timeout):
            await follow.fold(client, started.run_id, into=folded)
    except TimeoutError:
        await _give_up(client, started.run_id, folded, timeout)
    return folded.result()


async def stream(client: PolosClient, start: Start) -> AgentStream:
    """Start a run and return its stream, when the run is on disk.

    Raises:
        CallError: the service refused.
        ConnectionLost: it could not be reached.

    """
    _prepare(client, start)
    request = start.stream_request()
    backoff = Backoff(client.patience)
    while True:
        call = (await client.stub()).StreamRun(request)
        try:
            return AgentStream(client, await _run_id(client, call), call)
        except grpc.aio.AioRpcError as error:
            failure = client.refused(error)
        # The request's id makes a start whose answer was lost the same start again.
        await backoff.wait(failure)


async def invoke(client: PolosClient, start: Start, *, streaming: bool) -> ExecutionHandle:
    """Start a run and return its handle, when the run is on disk.

    Raises:
        CallError: the service refused.
        ConnectionLost: it could not be reached.

    """
    _prepare(client, start)
    return ExecutionHandle.of(await client.start(start.create_request(streaming=streaming)))


def _prepare(client: Any, start: Start) -> None:
    """Let the client do what a run of the agent needs, if it is one."""
    if not isinstance(client, PolosClient):
        told = f"must be a PolosClient, not {client!r:.80}; it comes before the input"
        raise InvalidRequest({"client": told})
    client.prepare(start.agent)


async def _run_id(client: PolosClient, call: _Call) -> str:
    """Return the run that the call started; raise what it failed with."""
    try:
        async with asyncio.timeout(follow.SILENCE):
            metadata = await call.initial_metadata()
            if run_id := metadata.get(RUN_ID_KEY):
                return str(run_id)
            await call.read()  # raises the status that came instead
    except TimeoutError as error:
        call.cancel()
        raise ConnectionLost(
            f"{client.address} did not answer the start within {follow.SILENCE:g} s"
        ) from error
    except asyncio.CancelledError:
        call.cancel()
        raise_if_own_cancellation()
        raise client.closed() from None
    call.cancel()
    raise ConnectionLost(
        f"what listens at {client.address} named no run: it is no Polos service of this version"
    )


async def _give_up(
    client: PolosClient, run_id: str, folded: RunAccumulator, timeout: float | None
) -> None:
    """Cancel a run that takes too long and raise RunTimeout, unless it has ended meanwhile."""
    try:
        ended = await client.cancel_run(run_id)
    except PolosError as error:
        _timed_out(run_id, folded, f"took longer than {timeout:g} s; cancelling it failed: {error}")
    if ended.state in ENDED_OTHERWISE:
        await follow.fold(client, run_id, into=folded)
        return
    _timed_out(run_id, folded, f"took longer than {timeout:g} s and was cancelled", ended)


def _timed_out(
    run_id: str, folded: RunAccumulator, what: str, ended: Run | None = None
) -> NoReturn:
    told = outcome_usage(ended.outcome) if ended is not None else None
    raise RunTimeout(
        f"run {run_id} {what}",
        run_id=run_id,
        reason="run_timeout",
        text=folded.text,
        usage=told or folded.usage,
    )
