"""For code without an event loop: calls that block their thread until they are done.

All of them run in one event loop of the process, in a thread of its own, which begins with the
first call. A process that was forked gets a loop of its own.
"""

from __future__ import annotations

import asyncio
import functools
import os
import threading
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable, Iterator
from contextvars import ContextVar
from typing import Any, Concatenate, ParamSpec, Protocol, Self, TypeVar

from polos_client.calls.client import PolosClient
from polos_client.calls.events import stream_workflow
from polos_client.calls.handle import ExecutionHandle
from polos_client.calls.stream import AgentStream, TextChunk
from polos_client.event import Event
from polos_client.result import AgentResult

P = ParamSpec("P")
T = TypeVar("T")
T_co = TypeVar("T_co", covariant=True)

blocked_loop: ContextVar[asyncio.AbstractEventLoop | None] = ContextVar("blocked", default=None)
"""The event loop of the thread that waits for what runs in this context; None if it has none."""

_END = object()
"""What stands for the end of an iterator: StopAsyncIteration does not leave a coroutine."""


class _Background:
    """The loop of this process in which all calls run."""

    def __init__(self) -> None:
        self._starting = threading.Lock()
        self._thread: threading.Thread | None = None
        self._loop = asyncio.new_event_loop()

    def wait(self, work: Awaitable[T]) -> T:
        """Return what comes of the work; if this thread is interrupted, the work is cancelled."""
        caller = _running_loop()

        async def awaited() -> T:
            blocked_loop.set(caller)
            return await work

        self._start()
        if threading.current_thread() is self._thread:
            if asyncio.iscoroutine(work):
                work.close()
            raise RuntimeError(
                "A call of polos.sync would wait for itself here: await the async API instead."
            )
        future = asyncio.run_coroutine_threadsafe(awaited(), self._loop)
        try:
            return future.result()
        except BaseException:
            future.cancel()
            raise

    def drop(self, source: AsyncGenerator[Any, None]) -> None:
        """Close what nobody reads any more, without waiting: a finalizer may call this."""
        self._loop.call_soon_threadsafe(lambda: asyncio.ensure_future(source.aclose()))

    def _start(self) -> None:
        with self._starting:
            if self._thread is None:
                run = self._loop.run_forever
                self._thread = threading.Thread(target=run, name="polos-sync", daemon=True)
                self._thread.start()


def _running_loop() -> asyncio.AbstractEventLoop | None:
    """Return the event loop that runs in this thread; None if there is none."""
    try:
        return asyncio.get_running_loop()
    except RuntimeError:
        return None


_background = _Background()


def _begin_anew() -> None:
    """Forget the loop of the process that this one was forked from: its thread is not here."""
    global _background  # noqa: PLW0603 - the process is another one
    _background = _Background()


if hasattr(os, "register_at_fork"):  # not on Windows, which does not fork
    os.register_at_fork(after_in_child=_begin_anew)


def wait(work: Awaitable[T]) -> T:
    """Return the result of any coroutine of the async API: `wait(handle.get(client))`.

    Ctrl-C, or another exception in the waiting thread, cancels it.

    Raises:
        RuntimeError: it is called in the event loop that would have to do the work.

    """
    return _background.wait(work)


def iterate(source: AsyncIterator[T]) -> Iterator[T]:
    """Iterate over any async iterator of the async API, for example `iterate(stream.events)`.

    A loop that is left early closes it.

    Raises:
        RuntimeError: it is called in the event loop that would have to do the work.

    """
    background = _background
    try:
        while (item := background.wait(_next(source))) is not _END:
            yield item
    finally:
        if isinstance(source, AsyncGenerator):
            background.drop(source)


async def _next(source: AsyncIterator[T]) -> Any:
    return await anext(source, _END)


def _blocking(
    method: Callable[Concatenate[PolosClient, P], Awaitable[T]],
) -> Callable[Concatenate[SyncClient, P], T]:
    """Return a method that calls this one of the async client, and waits."""

    @functools.wraps(method)
    def call(self: SyncClient, /, *args: P.args, **kwargs: P.kwargs) -> T:
        return wait(method(self.client, *args, **kwargs))

    return call


def _iterating(
    method: Callable[Concatenate[PolosClient, P], AsyncIterator[T]],
) -> Callable[Concatenate[SyncClient, P], Iterator[T]]:
    """Return a method that goes through what this one of the async client yields."""

    @functools.wraps(method)
    def call(self: SyncClient, /, *args: P.args, **kwargs: P.kwargs) -> Iterator[T]:
        return iterate(method(self.client, *args, **kwargs))

    return call


class Runs(Protocol[T_co]):
    """An Agent or a Workflow: its `run` takes a client, and what else it documents."""

    @property
    def run(self) -> Callable[..., Awaitable[T_co]]:
        """Run it, and return its result."""
        ...


class Starts(Protocol):
    """An Agent or a Workflow: its `invoke` takes a client, and what else it documents."""

    @property
    def invoke(self) -> Callable[..., Awaitable[ExecutionHandle]]:
        """Start it, and return its handle."""
        ...


class Streams(Protocol):
    """An Agent: its `stream` takes a client, and what else it documents."""

    @property
    def stream(self) -> Callable[..., Awaitable[AgentStream]]:
        """Start it, and return its stream."""
        ...


class SyncStream:
    """The stream of an agent's run: `AgentStream` for code without an event loop.

    Its members may be used in any order, more than once, and in several threads.

    Attributes:
        stream: the async stream.
        id: the run.

    """

    def __init__(self, stream: AgentStream) -> None:
        self.stream = stream
        self.id = self.agent_run_id = stream.id

    def __repr__(self) -> str:
        return f"<SyncStream {self.id}>"

    @property
    def events(self) -> Iterator[Event]:
        """Every event from the start, until the terminal one; as `AgentStream.events`."""
        return iterate(self.stream.events)

    @property
    def text_chunks(self) -> Iterator[TextChunk]:
        """The text of the agent's model calls, as it is generated; as `AgentStream.text_chunks`."""
        return iterate(self.stream.text_chunks)

    @property
    def partial(self) -> Iterator[Any]:
        """The answer as far as it is written, as JSON values; as `AgentStream.partial`."""
        return iterate(self.stream.partial)

    def text(self) -> str:
        """Return the whole text, once the run has ended; as `AgentStream.text`."""
        return wait(self.stream.text())

    def result(self) -> AgentResult:
        """Return the result, once the run has ended; as `AgentStream.result`."""
        return wait(self.stream.result())

    def get(self) -> dict[str, Any]:
        """Return the state of the run; as `ExecutionHandle.get`."""
        return wait(self.stream.get())

    def cancel(self) -> bool:
        """Cancel the run; False if it had already ended otherwise."""
        return wait(self.stream.cancel())


class SyncClient:
    """A client for code without an event loop; any number of threads may use it.

        polos = SyncClient(PolosClient("localhost:50051"))
        result = polos.run(agent, "Hello")

    Create it before or after a process forks, but use it only after: gRPC does not survive a fork.
    `with` closes its connection at the end, and starts and stops a service in this process
    (`SyncClient(Polos())`).

    Attributes:
        client: the async client.

    """

    def __init__(self, client: PolosClient | None = None) -> None:
        """Wrap an async client; None: one with the address from the environment."""
        self.client = client if client is not None else PolosClient()

    def __enter__(self) -> Self:
        wait(self.client.__aenter__())
        return self

    def __exit__(self, *_: object) -> None:
        wait(self.client.__aexit__(None, None, None))

    def __repr__(self) -> str:
        return f"<SyncClient {self.client.address}>"

    def run(self, target: Runs[T], *args: Any, **kwargs: Any) -> T:
        """Run an agent or a workflow, and return its result; as its own `run`."""
        return wait(target.run(self.client, *args, **kwargs))

    def start(self, target: Starts, *args: Any, **kwargs: Any) -> ExecutionHandle:
        """Start an agent or a workflow, and return its handle; as its own `invoke`.

        `invoke` starts an agent or a workflow by its id, without its definition.
        """
        return wait(target.invoke(self.client, *args, **kwargs))

    def stream(self, target: Streams, *args: Any, **kwargs: Any) -> SyncStream:
        """Start an agent, and return the stream of its run; as its own `stream`."""
        return SyncStream(wait(target.stream(self.client, *args, **kwargs)))

    invoke = _blocking(PolosClient.invoke)
    batch_invoke = _blocking(PolosClient.batch_invoke)
    resume = _blocking(PolosClient.resume)
    get_execution = _blocking(PolosClient.get_execution)
    get_input = _blocking(PolosClient.get_input)
    get_tree = _blocking(PolosClient.get_tree)
    cancel_execution = _blocking(PolosClient.cancel_execution)
    delete_run = _blocking(PolosClient.delete_run)
    run_token = _blocking(PolosClient.run_token)
    get_agent = _blocking(PolosClient.get_agent)
    list_agents = _blocking(PolosClient.list_agents)
    list_workflows = _blocking(PolosClient.list_workflows)
    list_runs = _iterating(PolosClient.list_runs)
    list_waits = _iterating(PolosClient.list_waits)
    stream_workflow = _iterating(stream_workflow)
