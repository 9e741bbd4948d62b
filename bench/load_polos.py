"""Loads that do more than read answers as they come, and what they are compared with."""

from __future__ import annotations

import asyncio
import time
import urllib.request
from collections.abc import Awaitable, Callable
from contextlib import aclosing
from statistics import median
from typing import Any

import grpc

from bench.app import relay
from bench.load import Measured, count
from bench.prompt import Prompt
from bench.readers import GrpcReader
from polos import PolosClient, events
from polos.v1.run_service_pb2 import StreamWorkflowRequest

GONE = 10**9
"""Tokens of an answer that is never released."""


async def first_event(address: str, runs: int) -> Measured:
    """Return the median time from `agent.stream` to the run's first event."""
    client = PolosClient(address)
    return {"p50_ms": await timed(lambda: started(client), runs)}


async def started(client: PolosClient) -> None:
    """Start a run and read its first event."""
    stream = await relay.stream(client, str(Prompt(1)))
    async with aclosing(stream.events) as found:
        await anext(found)


async def timed(work: Callable[[], Awaitable[None]], times: int) -> float:
    """Return the median of how many milliseconds `work` takes, alone, with a pause after each."""
    taken = []
    for _ in range(times + 20):
        begun = time.perf_counter_ns()
        await work()
        taken.append(time.perf_counter_ns() - begun)
        await asyncio.sleep(0.002)  # what it left behind is not the next one's cost
    return median(taken[20:]) / 1e6


async def stored(address: str, runs: int, finished: str) -> Measured:
    """Time start, attach and list, each alone."""
    client = PolosClient(address)
    attach = finished or (await relay.run(client, str(Prompt(1)))).agent_run_id

    async def attached() -> None:
        async for _ in events.stream_workflow(client, workflow_run_id=attach):
            pass

    async def listed() -> None:
        async for _ in client.list_runs(workflow_id="relay", limit=50):
            pass

    return {
        "start_ms": await timed(lambda: started(client), runs),
        "attach_ms": await timed(attached, runs),
        "list_ms": await timed(listed, runs),
    }


async def replay(address: str, tokens: int, times: int) -> Measured:
    """Run once, then read the finished run again and again."""
    client = PolosClient(address)
    stream = await relay.stream(client, str(Prompt(tokens)))
    result = await stream.result()
    iterated, texts = [], []
    for _ in range(times):
        begun = time.perf_counter()
        seen = 0
        async for event in events.stream_workflow(client, workflow_run_id=result.agent_run_id):
            seen = event.sequence_id
        iterated.append(seen / (time.perf_counter() - begun))
        texts.append(seen / await text_seconds(client, tokens))
    return {"events": max(iterated), "text": max(texts), "count": seen}


async def text_seconds(client: PolosClient, tokens: int) -> float:
    """Return the seconds that `AgentStream.text` takes for a run that has ended."""
    stream = await relay.stream(client, str(Prompt(tokens)))
    async for _ in events.stream_workflow(client, workflow_run_id=stream.id):
        pass  # another reader waits for the end: the stream itself has read nothing yet
    begun = time.perf_counter()
    assert await stream.text()
    return time.perf_counter() - begun


async def bare_rate(address: str, tokens: int) -> Measured:
    """Return the events a second of the floor."""
    reader = GrpcReader(address)
    await count(reader, Prompt(100))
    begun = time.perf_counter()
    await count(reader, Prompt(tokens))
    return {"events": tokens / (time.perf_counter() - begun)}


async def fan_out(
    address: str,
    upstream: str,
    readers: int,
    tokens: int,
    stalled: bool,  # noqa: FBT001
) -> Measured:
    """Let many read one run as it goes; one more may have stopped to read."""
    client = PolosClient(address)
    handle = await relay.invoke(
        client, {"input": str(Prompt(tokens, hold="fan")), "streaming": True}
    )
    attached = asyncio.Semaphore(0)

    async def read() -> int:
        seen = 0
        async for event in events.stream_workflow(client, workflow_run_id=handle.id):
            if not seen:
                attached.release()
            seen = event.sequence_id
        return seen

    stall = StalledReader(address, handle.id) if stalled else None
    reads = [asyncio.create_task(read()) for _ in range(readers)]
    for _ in range(readers):
        await attached.acquire()
    begun = time.perf_counter()
    await release(upstream, "fan")
    seen = await asyncio.gather(*reads)
    seconds = time.perf_counter() - begun
    if stall is not None:
        await stall.close()
    assert len(set(seen)) == 1, f"readers saw {set(seen)} events"
    return {"events": sum(seen) / seconds, "seconds": seconds}


class StalledReader:
    """Attaches on a connection of its own and never reads."""

    def __init__(self, address: str, run_id: str) -> None:
        options = (("grpc.use_local_subchannel_pool", 1),)
        self._channel = grpc.aio.insecure_channel(address, options=options)
        stream: grpc.aio.UnaryStreamMultiCallable[StreamWorkflowRequest, bytes]
        stream = self._channel.unary_stream(
            "/polos.v1.RunService/StreamWorkflow",
            request_serializer=StreamWorkflowRequest.SerializeToString,
        )
        self._call = stream(StreamWorkflowRequest(workflow_run_id=run_id))

    async def close(self) -> None:
        """Leave."""
        self._call.cancel()
        await self._channel.close()


async def release(upstream: str, name: str) -> None:
    """Let the answers begin that are held under this name."""
    request = urllib.request.Request(f"http://{upstream}/release/{name}", method="POST")
    await asyncio.to_thread(lambda: urllib.request.urlopen(request).close())  # noqa: S310


async def idle(name: str, address: str, pid: int, readers: int) -> Measured:
    """Attach readers to a silent run; return the server's bytes of memory for each."""
    from bench.processes import Server  # noqa: PLC0415

    server = Server(address, pid)
    open_one = bare_idle(address) if name == "bare" else await polos_idle(address)
    await attach_all(open_one, 50)  # what the first readers need is not theirs alone
    before = server.memory
    calls = await attach_all(open_one, readers)
    await asyncio.sleep(1)
    return {"bytes": (server.memory - before) / readers, "readers": len(calls)}


Attach = Callable[[], Awaitable[Any]]


async def attach_all(attach: Attach, readers: int) -> list[Any]:
    """Attach readers, and return them: they are kept by who holds them."""
    KEPT.extend(made := [await attach() for _ in range(readers)])
    return made


KEPT: list[Any] = []


def bare_idle(address: str) -> Attach:
    """Return what attaches to a stream of the floor that stays silent."""
    reader = GrpcReader(address)

    async def attach() -> Any:
        texts = reader.texts(str(Prompt(1, hold="ever")))
        await anext(aiter(texts))
        return texts

    return attach


async def polos_idle(address: str) -> Attach:
    """Return what attaches to a run of the product that stays silent."""
    client = PolosClient(address)
    handle = await relay.invoke(
        client, {"input": str(Prompt(GONE, hold="ever")), "streaming": True}
    )

    async def attach() -> Any:
        found = events.stream_workflow(client, workflow_run_id=handle.id)
        await anext(found)
        return found

    return attach
