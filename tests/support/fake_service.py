"""A RunService that plays a given log over a real socket, and fails where it is told to."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

import grpc
import grpc.aio
from google.protobuf.any_pb2 import Any as PackedAny
from google.protobuf.duration_pb2 import Duration
from google.protobuf.message import Message
from google.rpc.error_details_pb2 import ErrorInfo, RetryInfo
from google.rpc.status_pb2 import Status
from grpc_status import rpc_status

from polos.v1 import event_pb2 as pb
from polos.v1 import run_pb2
from polos.v1 import run_service_pb2 as rpc
from polos.v1.run_service_pb2_grpc import RunServiceServicer, add_RunServiceServicer_to_server
from polos_client.calls.client import PolosClient

Context = grpc.aio.ServicerContext[Any, Any]
End = Callable[[Context], Awaitable[None]]

RUN = "run-1"
AGENT = "demo"


def event(
    sequence: int, *, run_id: str = RUN, parent: str | None = None, **payload: Any
) -> pb.Event:
    made = pb.Event(run_id=run_id, sequence=sequence, workflow_id=AGENT, **payload)
    if parent is not None:
        made.parent_run_id = parent
    made.create_time.FromJsonString("2026-01-02T03:04:05.5Z")
    return made


def delta(
    content: str, *, step: int = 1, attempt: int = 1, key: str | None = None
) -> dict[str, Any]:
    step_key = key or f"llm:{step}"
    return {
        "text_delta": pb.TextDelta(content=content, step_key=step_key, step=step, attempt=attempt)
    }


def answer_log(words: Sequence[str] = ("The ", "sum ", "is ", "3.")) -> list[pb.Event]:
    """Return the log of a run that says `words` and ends."""
    payloads: list[dict[str, Any]] = [
        {"agent_start": pb.AgentStart(agent_id=AGENT, provider="scripted", streaming=True)},
        {"step_start": pb.StepStart(step_key="llm:1", step_type="llm", attempt=1)},
        *(delta(word) for word in words),
        {"agent_finish": finish("".join(words)), "terminal": True},
    ]
    return numbered(payloads)


def finish(result: str, **fields: Any) -> pb.AgentFinish:
    return pb.AgentFinish(
        result=result,
        usage=pb.Usage(input_tokens=5, output_tokens=4, total_tokens=9),
        cost=pb.Cost(usd_micros=1500),
        finish_reason=pb.FINISH_REASON_STOP,
        total_steps=1,
        duration=Duration(seconds=1, nanos=500_000_000),
        **fields,
    )


def numbered(payloads: Sequence[dict[str, Any]]) -> list[pb.Event]:
    return [event(index, **payload) for index, payload in enumerate(payloads, 1)]


def run_of(state: run_pb2.RunState.ValueType, **fields: Any) -> run_pb2.Run:
    run = run_pb2.Run(run_id=RUN, workflow_id=AGENT, state=state, **fields)
    run.create_time.FromJsonString("2026-01-02T03:04:05Z")
    return run


def ended(outcome: pb.Event, state: run_pb2.RunState.ValueType, **fields: Any) -> run_pb2.Run:
    run = run_of(state, outcome=outcome, **fields)
    run.finish_time.FromJsonString("2026-01-02T03:05:05Z")
    return run


def completed(**fields: Any) -> run_pb2.Run:
    outcome = event(7, agent_finish=finish("The sum is 3."), terminal=True)
    return ended(outcome, run_pb2.RUN_STATE_COMPLETED, **fields)


def abort(code: grpc.StatusCode, text: str = "as told") -> End:
    async def end(context: Context) -> None:
        await context.abort(code, text)

    return end


def refuse(
    code: grpc.StatusCode, reason: str, *details: Message, text: str = "no", **metadata: str
) -> End:
    """End with the status of a domain error."""
    info = ErrorInfo(reason=reason, domain="polos.v1", metadata=metadata)

    async def end(context: Context) -> None:
        packed = []
        for one in (info, *details):
            packed.append(PackedAny())
            packed[-1].Pack(one)
        status = Status(code=code.value[0], message=text, details=packed)
        await context.abort_with_status(rpc_status.to_status(status))

    return end


def draining(seconds: float) -> End:
    hint = RetryInfo(retry_delay=Duration(nanos=int(seconds * 1e9)))
    return refuse(grpc.StatusCode.UNAVAILABLE, "DRAINING", hint)


async def hang(context: Context) -> None:
    """Say nothing until the call is cancelled."""
    await asyncio.Event().wait()


async def end_ok(context: Context) -> None:
    """End with OK."""


@dataclass
class Play:
    """What one attach does: sends events after its cursor, up to `until`, then ends."""

    end: End = end_ok
    until: int | None = None
    back: int = 0
    """Events before the cursor that are sent again."""
    gap: int = 0
    """Events after the cursor that are left out."""
    heartbeats: int = 0
    """Responses without events, before all others."""
    named: bool = True
    """Whether the run is named in the initial metadata."""
    rest: bool = False
    """Whether the events after `until` follow once `end` has returned."""


UNAUTHENTICATED = refuse(
    grpc.StatusCode.UNAUTHENTICATED, "UNAUTHENTICATED", text="The key has ended.", cause="expired"
)
"""How the service refuses a call, and how it ends a stream, whose key has ended."""


@dataclass
class FakeService(RunServiceServicer):
    """Plays `log`; each attach takes the next of `plays`, then whole plays."""

    log: list[pb.Event] = field(default_factory=answer_log)
    plays: list[Play] = field(default_factory=list)
    refusals: list[End] = field(default_factory=list)
    """How the next unary calls end instead of answering."""
    run: run_pb2.Run = field(default_factory=lambda: run_pb2.Run(run_id=RUN, workflow_id=AGENT))
    batch: int = 3
    cursors: list[int] = field(default_factory=list)
    """The cursor of each attach; -1 for a StreamRun."""
    starts: list[Any] = field(default_factory=list)
    cancels: list[str] = field(default_factory=list)
    keys: list[str] = field(default_factory=list)
    """The key of each call; `None` if it had none."""
    accepted: set[str] | None = None
    """The keys that are taken; None: all, and calls without one."""
    open_calls: int = 0
    changed: asyncio.Condition = field(default_factory=asyncio.Condition)

    async def StreamRun(  # noqa: N802
        self, request: rpc.StreamRunRequest, context: Any
    ) -> AsyncIterator[rpc.StreamRunResponse]:
        self.starts.append(request)
        self.cursors.append(-1)
        async for events in self._play(0, context):
            yield rpc.StreamRunResponse(events=events, latest_sequence=len(self.log))

    async def StreamWorkflow(  # noqa: N802
        self, request: rpc.StreamWorkflowRequest, context: Any
    ) -> AsyncIterator[rpc.StreamWorkflowResponse]:
        self.cursors.append(request.after_sequence)
        async for events in self._play(request.after_sequence, context):
            yield rpc.StreamWorkflowResponse(events=events, latest_sequence=len(self.log))

    async def _play(self, after: int, context: Any) -> AsyncIterator[list[pb.Event]]:
        await self._check_key(context)
        play = self.plays.pop(0) if self.plays else Play()
        self.open_calls += 1
        try:
            if play.named:
                await context.send_initial_metadata((("polos-run-id", RUN),))
            for _ in range(play.heartbeats):
                yield []
            events = self.log[max(0, after - play.back) + play.gap : play.until]
            for start in range(0, len(events), self.batch):
                yield events[start : start + self.batch]
            await play.end(context)
            if play.rest and play.until is not None:
                yield self.log[play.until :]
        finally:
            self.open_calls -= 1
            async with self.changed:
                self.changed.notify_all()

    async def CreateRun(self, request: Any, context: Any) -> rpc.CreateRunResponse:  # noqa: N802
        self.starts.append(request)
        await self._refuse(context)
        return rpc.CreateRunResponse(run=self.run)

    async def GetRun(self, request: Any, context: Any) -> rpc.GetRunResponse:  # noqa: N802
        await self._refuse(context)
        return rpc.GetRunResponse(run=self.run)

    async def ListRuns(self, request: Any, context: Any) -> rpc.ListRunsResponse:  # noqa: N802
        await self._refuse(context)
        return rpc.ListRunsResponse(runs=[self.run])

    async def CancelRun(self, request: Any, context: Any) -> rpc.CancelRunResponse:  # noqa: N802
        self.cancels.append(request.run_id)
        await self._refuse(context)
        return rpc.CancelRunResponse(run=self.run)

    async def DeleteRun(self, request: Any, context: Any) -> rpc.DeleteRunResponse:  # noqa: N802
        self.cancels.append(request.run_id)
        await self._refuse(context)
        return rpc.DeleteRunResponse()

    async def CreateRunToken(  # noqa: N802
        self, request: Any, context: Any
    ) -> rpc.CreateRunTokenResponse:
        await self._refuse(context)
        return rpc.CreateRunTokenResponse(token=f"token for {request.run_id}")

    async def ResumeRun(self, request: Any, context: Any) -> rpc.ResumeRunResponse:  # noqa: N802
        await self._refuse(context)
        return rpc.ResumeRunResponse()

    async def ListWaits(self, request: Any, context: Any) -> rpc.ListWaitsResponse:  # noqa: N802
        await self._refuse(context)
        return rpc.ListWaitsResponse()

    async def _check_key(self, context: Context) -> None:
        said = dict(context.invocation_metadata() or ()).get("authorization")
        key = str(said).removeprefix("Bearer ")
        self.keys.append(key)
        if self.accepted is not None and key not in self.accepted:
            await UNAUTHENTICATED(context)

    async def _refuse(self, context: Context) -> None:
        await self._check_key(context)
        if self.refusals:
            await self.refusals.pop(0)(context)

    async def no_open_calls(self) -> None:
        """Wait until no stream is open any more."""
        async with asyncio.timeout(5), self.changed:
            await self.changed.wait_for(lambda: not self.open_calls)


@asynccontextmanager
async def serving(
    service: FakeService,
    port: int = 0,
    *,
    credentials: grpc.ServerCredentials | None = None,
    options: Sequence[tuple[str, Any]] = (),
    interceptors: Sequence[grpc.aio.ServerInterceptor] = (),
) -> AsyncIterator[str]:
    """Serve on loopback and give the address."""
    server = grpc.aio.server(
        options=[("grpc.so_reuseport", 0), *options], interceptors=interceptors
    )
    add_RunServiceServicer_to_server(service, server)
    bound = (
        server.add_insecure_port(f"127.0.0.1:{port}")
        if credentials is None
        else server.add_secure_port(f"127.0.0.1:{port}", credentials)
    )
    await server.start()
    try:
        yield f"127.0.0.1:{bound}"
    finally:
        await server.stop(None)


@asynccontextmanager
async def connected(service: FakeService, **options: Any) -> AsyncIterator[PolosClient]:
    """Serve, and give a client of it."""
    async with serving(service) as address, PolosClient(address, **options) as client:
        yield client


class Link:
    """A TCP proxy whose connections can be cut.

    Attributes:
        address: where it listens.
        accepted: how many connections it has accepted.

    """

    def __init__(self, target: str) -> None:
        self._host, port = target.split(":")
        self._port = int(port)
        self._writers: list[asyncio.StreamWriter] = []
        self.address = ""
        self.accepted = 0

    @asynccontextmanager
    async def open(self) -> AsyncIterator[Link]:
        server = await asyncio.start_server(self._accept, "127.0.0.1", 0)
        self.address = f"127.0.0.1:{server.sockets[0].getsockname()[1]}"
        try:
            yield self
        finally:
            server.close()
            self.cut()
            await server.wait_closed()

    def cut(self) -> None:
        """Reset every connection."""
        for writer in self._writers:
            writer.transport.abort()
        self._writers.clear()

    async def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.accepted += 1
        back, forth = await asyncio.open_connection(self._host, self._port)
        self._writers += [writer, forth]
        await asyncio.gather(_copy(reader, forth), _copy(back, writer))


async def _copy(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    try:
        while data := await reader.read(65536):
            writer.write(data)
            await writer.drain()
    except OSError:
        pass
    finally:
        writer.close()
