"""PolosClient: the way to a service, and its unary calls."""

from __future__ import annotations

import asyncio
import os
import re
from collections.abc import Awaitable, Callable
from types import TracebackType
from typing import TYPE_CHECKING, Self, TypeVar

import grpc.aio

from polos.v1 import run_service_pb2 as rpc
from polos.v1.agent_pb2 import Agent as AgentMessage
from polos.v1.agent_service_pb2 import GetAgentRequest, ListAgentsRequest
from polos.v1.agent_service_pb2_grpc import AgentServiceStub
from polos.v1.run_pb2 import Run
from polos.v1.run_service_pb2_grpc import RunServiceStub
from polos_client.calls.backoff import Backoff
from polos_client.calls.status import is_transient, to_error
from polos_client.errors import ConnectionLost, DefinitionError, PolosError

if TYPE_CHECKING:
    from polos.v1.run_service_pb2_grpc import RunServiceAsyncStub
    from polos_client.define.agent import Agent

PATIENCE = 10.0
"""Seconds for which a call that reaches nobody is made again, at most."""

DEADLINE = 30.0
"""Seconds after which one attempt of a unary call is given up."""

_DEFAULT_ADDRESS = "127.0.0.1:50051"

_ADDRESS = re.compile(r"(unix|dns):\S+|(\[[\w:.%]+\]|[^\s:/\[\]]+):(?P<port>\d{1,5})")
_PORTS = 65536

_OPTIONS = [
    # A link that has been silent for 30 s is asked, and given up 10 s later. Heartbeats come
    # every 15 s, so a healthy stream never gets as far, and no server counts our pings.
    ("grpc.keepalive_time_ms", 30_000),
    ("grpc.keepalive_timeout_ms", 10_000),
    ("grpc.max_receive_message_length", 4 * 1024 * 1024),
    # By default grpc waits up to two minutes before it tries a lost address again.
    ("grpc.initial_reconnect_backoff_ms", 100),
    ("grpc.max_reconnect_backoff_ms", 2_000),
]

_Answer = TypeVar("_Answer")


class PolosClient:
    """The way to a service. May be made anywhere, also outside an event loop.

    It connects when it is first used, once in each event loop, and may be used by any
    number of tasks. After `close` it connects anew if it is used again.

    Attributes:
        address: `host:port` of the service; `[::1]:port`, `unix:path` and `dns:///host:port`
            are taken, too.
        reconnect_timeout: seconds for which a reader of a run tries to reach a service
            that has gone before it raises ConnectionLost; other calls try no longer, and
            10 s at most.

    """

    def __init__(self, address: str | None = None, *, reconnect_timeout: float = 60.0) -> None:
        """Remember the address; None: that in POLOS_ADDRESS, else 127.0.0.1:50051.

        What is no address is refused with a DefinitionError.
        """
        self.address = _checked(address or os.environ.get("POLOS_ADDRESS") or _DEFAULT_ADDRESS)
        self.reconnect_timeout = reconnect_timeout
        self._channels: dict[asyncio.AbstractEventLoop, grpc.aio.Channel] = {}

    def __repr__(self) -> str:
        return f"<{type(self).__name__} {self.address}>"

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        await self.close()

    @property
    def patience(self) -> float:
        """Seconds for which a call that reaches nobody is made again."""
        return min(PATIENCE, self.reconnect_timeout)

    def prepare(self, agent: Agent) -> None:
        """Do what a run of `agent` needs; called before each start.

        Nothing here, where the service has loaded its agents itself. A service in this
        process overrides it to load the agent.
        """

    async def channel(self) -> grpc.aio.Channel:
        """Return the running loop's channel to the service.

        A service in this process overrides it to start first.
        """
        loop = asyncio.get_running_loop()
        self._drop_closed()
        if loop not in self._channels:
            self._channels[loop] = grpc.aio.insecure_channel(self.address, options=_OPTIONS)
        return self._channels[loop]

    async def stub(self) -> RunServiceAsyncStub:
        """Return the calls of RunService in the running loop."""
        return RunServiceStub(await self.channel())

    async def close(self) -> None:
        """Close the running loop's channel; calls under way raise ConnectionLost."""
        self._drop_closed()
        channel = self._channels.pop(asyncio.get_running_loop(), None)
        if channel is not None:
            await channel.close()

    async def start(self, request: rpc.CreateRunRequest) -> Run:
        """Start a run and return it when it is on disk.

        A `request_id` makes it safe to try again where an answer was lost; a request
        without one might start a second run.

        Raises:
            CallError: the service refused.
            ConnectionLost: it could not be reached.

        """
        answer = await self._call(
            lambda channel: RunServiceStub(channel).CreateRun(request, timeout=DEADLINE)
        )
        return answer.run

    async def get_run(self, run_id: str) -> Run:
        """Return a run as it stands.

        Raises:
            RunNotFound: there is no such run.
            CallError: the service refused.
            ConnectionLost: it could not be reached.

        """
        request = rpc.GetRunRequest(run_id=run_id)
        answer = await self._call(
            lambda channel: RunServiceStub(channel).GetRun(request, timeout=DEADLINE)
        )
        return answer.run

    async def cancel_run(self, run_id: str) -> Run:
        """Cancel a run and return it, ended or with its cancellation on the way.

        Raises:
            RunNotFound: there is no such run.
            CallError: the service refused.
            ConnectionLost: it could not be reached.

        """
        request = rpc.CancelRunRequest(run_id=run_id)
        answer = await self._call(
            lambda channel: RunServiceStub(channel).CancelRun(request, timeout=DEADLINE)
        )
        return answer.run

    async def list_runs(self, request: rpc.ListRunsRequest) -> rpc.ListRunsResponse:
        """Return a page of runs, the newest first.

        Raises:
            CallError: the service refused.
            ConnectionLost: it could not be reached.

        """
        return await self._call(
            lambda channel: RunServiceStub(channel).ListRuns(request, timeout=DEADLINE)
        )

    async def delete_run(self, run_id: str) -> None:
        """Remove an ended run, with its log.

        Never tried again by itself: after a lost answer that would find no run.

        Raises:
            RunNotFound: there is no such run.
            RunNotFinished: it has not ended.
            CallError: the service refused.
            ConnectionLost: it could not be reached.

        """
        request = rpc.DeleteRunRequest(run_id=run_id)
        await self._call(
            lambda channel: RunServiceStub(channel).DeleteRun(request, timeout=DEADLINE),
            again=False,
        )

    async def get_agent(self, agent_id: str) -> AgentMessage:
        """Return an agent that the service has loaded.

        Raises:
            AgentNotFound: there is no such agent.
            CallError: the service refused.
            ConnectionLost: it could not be reached.

        """
        request = GetAgentRequest(agent_id=agent_id)
        answer = await self._call(
            lambda channel: AgentServiceStub(channel).GetAgent(request, timeout=DEADLINE)
        )
        return answer.agent

    async def list_agents(self) -> list[AgentMessage]:
        """Return all agents that the service has loaded, by id.

        Raises:
            CallError: the service refused.
            ConnectionLost: it could not be reached.

        """
        agents: list[AgentMessage] = []
        request = ListAgentsRequest()
        while True:
            page = await self._call(
                lambda channel: AgentServiceStub(channel).ListAgents(request, timeout=DEADLINE)
            )
            agents += page.agents
            if not page.next_page_token:
                return agents
            request.page_token = page.next_page_token

    async def _call(
        self,
        send: Callable[[grpc.aio.Channel], Awaitable[_Answer]],
        *,
        again: bool = True,
    ) -> _Answer:
        """Make a unary call, and, unless not `again`, once more where it reached nobody."""
        backoff = Backoff(self.patience if again else 0.0)
        while True:
            try:
                return await send(await self.channel())
            except grpc.aio.AioRpcError as error:
                failure = self.refused(error)
            except asyncio.CancelledError:
                raise_if_own_cancellation()
                raise self.closed() from None
            await backoff.wait(failure)

    def refused(self, error: grpc.aio.AioRpcError) -> PolosError:
        """Return what a failed call means, if the call may be made again.

        Raises:
            PolosError: it may not.

        """
        meaning = to_error(error, self.address)
        if not is_transient(error, meaning):
            raise meaning from None
        return meaning

    def closed(self) -> ConnectionLost:
        """Return the error of a call that `close` has ended."""
        return ConnectionLost(f"the client of {self.address} was closed during a call")

    def _drop_closed(self) -> None:
        """Forget the channels of loops that are closed; nobody can use or await them."""
        for loop in [one for one in self._channels if one.is_closed()]:
            del self._channels[loop]


def _checked(address: object) -> str:
    found = _ADDRESS.fullmatch(address) if isinstance(address, str) else None
    if found is None or int(found["port"] or 0) >= _PORTS:
        raise DefinitionError(f"the address {address!r} must be HOST:PORT, without http://")
    return found[0]


def raise_if_own_cancellation() -> None:
    """Raise the CancelledError at hand again if it is the current task that is cancelled.

    A call that is cancelled locally raises CancelledError too. To let that pass would end
    a task that nobody has cancelled.
    """
    task = asyncio.current_task()
    if task is None or task.cancelling():
        raise  # noqa: PLE0704 - called from an except clause
