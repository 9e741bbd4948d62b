"""How a run is started and seen to its end: run, stream and invoke."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from typing import Any, NoReturn

import grpc.aio

from polos.v1.event_pb2 import Event
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
from polos_client.calls.start import Start, checked_payload
from polos_client.calls.states import ENDED_OTHERWISE
from polos_client.calls.stream import AgentStream
from polos_client.deadlines import Patience, is_number
from polos_client.errors import (
    ConnectionLost,
    InvalidRequest,
    PolosError,
    RunTimeout,
    WorkflowTimeoutError,
)
from polos_client.fold import RunAccumulator, outcome_usage
from polos_client.result import AgentResult
from polos_client.typed import typed
from polos_client.waits import wait_kind

_TOLD_WAITS = 10
"""Open waits that an error names at most."""

_Call = grpc.aio.UnaryStreamCall[StreamRunRequest, StreamRunResponse]


def prepare(client: object, definition: Definition) -> None:
    """Let the client do what a run of the definition needs, if it is a client.

    Raises:
        InvalidRequest: it is not.

    """
    checked_client(client).prepare(definition)


async def run(
    client: Connection, start: Start, timeout: float | None, output: Any = None
) -> AgentResult:
    """Start a run of an agent, see it to its end and return its result.

    `output` is the type of the agent's answers; None if it answers with text.

    Raises:
        RunError: the run ended without a result, `timeout` included.
        WorkflowTimeoutError: a `timeout` that is Patience is over.
        CallError: the service refused, or an argument cannot be used.
        ConnectionLost: it could not be reached.
        ResultMismatch: the result is of a class that this process does not have.

    """
    return (await _to_the_end(client, start, timeout)).result(output)


async def run_workflow(
    client: Connection, start: Start, timeout: float | None, returned: Any
) -> Any:
    """Start a run of a workflow, see it to its end and return what its function returned.

    `returned` is the type that the function says it returns; None if it says nothing.

    Raises:
        RunError, WorkflowTimeoutError, CallError, ConnectionLost: as `run`.
        DefinitionError: the result does not fit the class that it had.

    """
    folded = await _to_the_end(client, start, timeout)
    result = folded.result()
    if folded.outcome is None or not folded.outcome.HasField("workflow_finish"):
        return result
    finish = folded.outcome.workflow_finish
    return typed(finish.result_json, finish.result_schema, returned)


async def _to_the_end(client: Connection, start: Start, timeout: float | None) -> RunAccumulator:
    """Start a run and return the fold of its events, once it has ended.

    The start itself is not cut short by `timeout`, so that the run that is cancelled then
    is always known.
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
        if isinstance(timeout, Patience):
            await _lose_patience(client, started.run_id, folded, timeout)
        else:
            await _give_up(client, started.run_id, folded, timeout)
    return folded


async def stream(client: Connection, start: Start, output: Any = None) -> AgentStream:
    """Start a run and return its stream, when the run is on disk.

    `output` is the type of the agent's answers; None if it answers with text.

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
        return AgentStream(client, ExecutionHandle.of_start(start, run_id), call, output)


async def invoke(client: Connection, start: Start, *, streaming: bool) -> ExecutionHandle:
    """Start a run and return its handle, when the run is on disk.

    Raises:
        CallError: the service refused.
        ConnectionLost: it could not be reached.

    """
    return ExecutionHandle.of(await client.create_run(start.create_request(streaming=streaming)))


async def invoke_by_id(client: Connection, start: Start, payload: Any) -> ExecutionHandle:
    """Start what has this id, an agent or a workflow, and return the run's handle.

    Only the service knows which it is, and it starts neither an agent with a payload nor a
    workflow with an input. So the first start that it accepts is the right one. An agent's refusal
    of a payload says that the input is missing.

    Raises:
        CallError: the service refused, or an argument cannot be used.
        ConnectionLost: it could not be reached.

    """
    try:
        streaming = checked_payload({} if payload is None else payload)
        options = payload.get("provider_kwargs") or {}
        agents = replace(start, input=payload["input"], provider_options=options)
        return await invoke(client, agents, streaming=streaming)
    except InvalidRequest as error:
        refused_as_agent = error
    try:
        return await invoke(client, replace(start, payload=payload), streaming=False)
    except InvalidRequest as error:
        is_agent = "input" in error.violations
        raise (refused_as_agent if is_agent else error) from None


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


async def _lose_patience(
    client: Connection, run_id: str, folded: RunAccumulator, timeout: float
) -> None:
    """Raise WorkflowTimeoutError and leave the run alone, unless it has ended meanwhile."""
    rest = ""
    try:
        found = await client.get_run(run_id)
    except PolosError:
        pass  # that it cannot be asked what it waits for is not the caller's question
    else:
        if found.HasField("outcome"):
            await fold(client, run_id, into=folded)
            return
        waits = [
            f"{one.step_key!r} ({wait_kind(one.kind)}, wait_id {one.wait_id})"
            for one in found.open_waits[:_TOLD_WAITS]
        ]
        rest = f" It waits for an answer to {', '.join(waits)}." if waits else ""
    raise WorkflowTimeoutError(
        run_id,
        float(timeout),
        f"run {run_id} has not ended within {timeout:g} s, and continues.{rest} "
        f"events.stream_workflow(client, workflow_run_id={run_id!r}) reads it to its end; a "
        "timeout of yours would cancel it",
    )


def _timed_out(
    run_id: str,
    folded: RunAccumulator,
    timeout: float | None,
    rest: str,
    ended: Run | None = None,
) -> NoReturn:
    outcome = Event() if ended is None else ended.outcome
    raise RunTimeout(
        f"run {run_id} took longer than {timeout:g} s{rest}",
        run_id=run_id,
        timeout_seconds=timeout,
        reason="run_timeout",
        text=folded.text,
        usage=outcome_usage(outcome) or folded.usage,
        spent=outcome_usage(outcome, "spent"),
    )
