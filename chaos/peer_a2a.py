"""What the a2a-sdk does where this service is tested: run, not read.

    python -m chaos.peer_a2a

Needs what `make bench` installs: the server is the benchmark's (`bench.peers.a2a`), once with
tasks in memory, once in SQLite. A slow provider says `w0 w1 w2 ...`; each situation is played
once in each.
"""

from __future__ import annotations

import asyncio
import os
import sys
import tempfile
import time
import uuid
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from typing import Any

import grpc
from a2a.types import (
    CancelTaskRequest,
    GetTaskRequest,
    Message,
    Part,
    Role,
    SendMessageRequest,
    StreamResponse,
    SubscribeToTaskRequest,
    TaskState,
)
from a2a.types.a2a_pb2_grpc import A2AServiceStub

from chaos.provider import HEAD, chunked, receive, send

TOKENS = 100
"""Tokens of a whole answer."""

GAP = 0.02
"""Seconds between two tokens."""

VERSION = (("a2a-version", "1.0"),)
"""What the server wants to be told with each call."""


class SlowProvider:
    """Says a token at a time; an answer to "cut" ends after ten, without a finish reason.

    Attributes:
        url: where it answers.
        leaves: when callers were seen to leave, by the monotonic clock.
        asked: how many requests came.

    """

    def __init__(self) -> None:
        self.url = ""
        self.leaves: list[float] = []
        self.asked = 0

    @asynccontextmanager
    async def serving(self) -> AsyncIterator[None]:
        """Serve for as long as the block."""
        server = await asyncio.start_server(self._answer, "127.0.0.1", 0)
        self.url = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}/v1"
        try:
            yield
        finally:
            server.close()

    async def _answer(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        body = await receive(reader)
        self.asked += 1
        cut = body["messages"][-1]["content"] == "cut"
        leaving = asyncio.create_task(reader.read(1))
        leaving.add_done_callback(self._leave)
        with suppress(ConnectionError):
            writer.write(HEAD)
            for index in range(10 if cut else TOKENS):
                await send(writer, {"content": f"w{index} "})
                await asyncio.sleep(GAP)
            if not cut:
                await send(writer, {}, finish="stop")
                writer.write(chunked(b"data: [DONE]\n\n"))
            writer.write(b"0\r\n\r\n")
            await writer.drain()
        writer.close()

    def _leave(self, leaving: asyncio.Task[bytes]) -> None:
        leaving.exception()  # a reset is a way to leave, too
        self.leaves.append(time.monotonic())


class Peer:
    """The server of a2a-sdk, in a process of its own, and calls to it."""

    def __init__(self, provider: SlowProvider, store: str | None) -> None:
        self._provider = provider
        self._arguments = [] if store is None else [store]
        self._process: asyncio.subprocess.Process | None = None
        self._channel: grpc.aio.Channel | None = None
        self.stub: Any = None

    async def start(self) -> None:
        """Start a process, and connect."""
        self._process = await asyncio.create_subprocess_exec(
            *(sys.executable, "-m", "bench.peers.a2a", *self._arguments),
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.DEVNULL,
            env={**os.environ, "OPENAI_BASE_URL": self._provider.url, "OPENAI_API_KEY": "none"},
        )
        line = await self._process.stdout.readline() if self._process.stdout else b""
        self._channel = grpc.aio.insecure_channel(line.decode().split()[-1])
        self.stub = A2AServiceStub(self._channel)

    async def kill(self) -> None:
        """End it with SIGKILL."""
        if self._channel is not None:
            await self._channel.close()
        if self._process is not None:
            self._process.kill()
            await self._process.wait()

    def send(self, text: str) -> Any:
        """Start a task and stream it."""
        message = Message(message_id=uuid.uuid4().hex, role=Role.ROLE_USER, parts=[Part(text=text)])
        return self.stub.SendStreamingMessage(SendMessageRequest(message=message), metadata=VERSION)

    def subscribe(self, task: str) -> Any:
        """Stream a task that exists."""
        return self.stub.SubscribeToTask(SubscribeToTaskRequest(id=task), metadata=VERSION)

    async def state(self, task: str) -> str:
        """Return a task's state, or the status that asking for it failed with."""
        try:
            found = await self.stub.GetTask(GetTaskRequest(id=task), metadata=VERSION)
        except grpc.aio.AioRpcError as error:
            return error.code().name
        return str(TaskState.Name(found.status.state)).removeprefix("TASK_STATE_")


async def some(call: Any, count: int) -> tuple[str, list[str]]:
    """Read a stream up to so many tokens; return the task's id and the tokens."""
    task, tokens = "", list[str]()
    async for response in call:
        task = task or response.task.id or response.artifact_update.task_id
        tokens += words(response)
        if len(tokens) >= count:
            break
    return task, tokens


async def rest(call: Any, seconds: float = 5.0) -> tuple[list[str], str]:
    """Read a stream to its end, or as long as that; return the tokens and how it ended."""
    tokens: list[str] = []
    try:
        async with asyncio.timeout(seconds):
            async for response in call:
                tokens += words(response)
    except TimeoutError:
        return tokens, f"still open after {seconds:g} s"
    except grpc.aio.AioRpcError as error:
        return tokens, error.code().name
    return tokens, "OK"


def words(response: StreamResponse) -> list[str]:
    """Return the tokens in a response: of an update, or of the snapshot of a task."""
    artifacts = [*response.task.artifacts, response.artifact_update.artifact]
    return [word for one in artifacts for part in one.parts for word in part.text.split()]


def compared(seen: list[str]) -> str:
    """Return what is wrong with the tokens of a whole answer."""
    numbers = [int(word[1:]) for word in seen]
    lost = TOKENS - len(set(numbers))
    return f"{len(seen)} tokens: {lost} lost, {len(numbers) - len(set(numbers))} doubled"


async def returns(peer: Peer, _provider: SlowProvider) -> str:
    """The client drops after 20 tokens and comes back after half a second."""
    call = peer.send("go")
    task, seen = await some(call, 20)
    call.cancel()
    await asyncio.sleep(0.5)
    more, ended = await rest(peer.subscribe(task))
    return f"{compared(seen + more)}; the second stream ended with {ended}"


async def killed(peer: Peer, provider: SlowProvider) -> str:
    """The server is killed after 20 tokens and started again."""
    task, _ = await some(peer.send("go"), 20)
    asked = provider.asked
    await peer.kill()
    await peer.start()
    before = await peer.state(task)
    more, ended = await rest(peer.subscribe(task))
    again = provider.asked - asked
    return (
        f"state {before}; subscribing: {len(more)} tokens, {ended}; "
        f"model asked again {again} times; state then {await peer.state(task)}"
    )


async def cut(peer: Peer, _provider: SlowProvider) -> str:
    """The provider's stream ends after 10 tokens, without a finish reason."""
    task, _ = await some(peer.send("cut"), TOKENS)
    await asyncio.sleep(0.5)
    return f"state {await peer.state(task)}"


async def cancelled(peer: Peer, provider: SlowProvider) -> str:
    """The task is cancelled after 20 tokens."""
    call = peer.send("go")
    task, _ = await some(call, 20)
    provider.leaves.clear()
    begun = time.monotonic()
    try:
        await peer.stub.CancelTask(CancelTaskRequest(id=task), metadata=VERSION)
        answered = "OK"
    except grpc.aio.AioRpcError as error:
        answered = error.code().name
    took = time.monotonic() - begun
    await asyncio.sleep(TOKENS * GAP)
    left = [f"{1000 * (leave - begun):.0f} ms after" for leave in provider.leaves] or ["never"]
    return (
        f"answered {answered} after {1000 * took:.0f} ms; state {await peer.state(task)}; "
        f"model call closed: {left[0]}"
    )


async def main() -> None:
    """Play every situation with both stores."""
    provider = SlowProvider()
    async with provider.serving():
        for situation in (returns, killed, cut, cancelled):
            print((situation.__doc__ or "").strip())
            for name in ("memory", "sqlite"):
                with tempfile.TemporaryDirectory() as folder:
                    store = str(Path(folder) / "tasks.db") if name == "sqlite" else None
                    peer = Peer(provider, store)
                    await peer.start()
                    try:
                        print(f"  {name}: {await situation(peer, provider)}", flush=True)
                    finally:
                        await peer.kill()


if __name__ == "__main__":
    asyncio.run(main())
