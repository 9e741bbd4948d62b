"""Connection: a channel to a service for each event loop, and calls that are retried."""

from __future__ import annotations

import asyncio
import time
import weakref
from collections.abc import Callable
from functools import partial
from typing import Any, Protocol, Self, TypeVar

import grpc.aio

from polos.v1 import run_service_pb2 as rpc
from polos.v1.run_pb2 import Run
from polos.v1.run_service_pb2_grpc import RunServiceStub
from polos_client import wire
from polos_client.calls.backoff import Backoff
from polos_client.calls.channels import Channels
from polos_client.calls.credential import Credential, Metadata
from polos_client.calls.probe import Fault
from polos_client.calls.prober import UNKNOWN, Prober, fault_told_by, lost, way_to
from polos_client.calls.status import is_transient, to_error
from polos_client.calls.target import Target
from polos_client.errors import ConnectionLost, InvalidRequest, Unauthenticated
from polos_client.names import in_python

PATIENCE = 10.0
"""Seconds for which an unreachable service is retried, at most."""

DEADLINE = 30.0
"""Seconds after which one attempt of a unary call is given up."""

NAME_PATIENCE = 1.0
"""Seconds for which a name that cannot be resolved is tried again, before the first contact."""

_UNCONNECTED = {grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.DEADLINE_EXCEEDED}
"""The statuses of a call that found no connection."""

_CONNECTING = {
    grpc.ChannelConnectivity.CONNECTING,
    grpc.ChannelConnectivity.TRANSIENT_FAILURE,
}
"""How a channel stands that has no connection and tries to get one."""

_Request = TypeVar("_Request")
_Answer = TypeVar("_Answer")


def checked_id(value: object) -> str:
    """Return the id of a run.

    Raises:
        InvalidRequest: it is not a string, or is empty.

    """
    if not isinstance(value, str) or not value:
        raise InvalidRequest({"run_id": f"must be a string such as handle.id, not {value!r:.80}"})
    return value


class Definition(Protocol):
    """What can be run, as far as calls know it."""

    @property
    def id(self) -> str:
        """Its id, unique in a service."""
        ...


class Connection:
    """The way to a service, and the calls that starts, handles and streams are made of.

    It connects when it is first used, once in each event loop, and may be used by any
    number of tasks. After `close` it connects anew if it is used again.

    Attributes:
        address: where the service is.
        reconnect_timeout: seconds for which a reader of a run tries to reach a service
            that has gone.

    """

    def __init__(self, target: Target, *, reconnect_timeout: float = 60.0) -> None:
        """Remember the service; nothing is sent."""
        self.address = target.address
        self.reconnect_timeout = reconnect_timeout
        self._channels = Channels(target.credentials)
        self._credential = Credential(target.api_key)
        self._sent: weakref.WeakKeyDictionary[Any, Metadata] = weakref.WeakKeyDictionary()
        self._prober = Prober(target.credentials)
        self._reached = False
        self._lost_since: float | None = None

    def __repr__(self) -> str:
        return f"<{type(self).__name__} {self.address}>"

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.close()

    @property
    def patience(self) -> float:
        """Seconds for which a call that reaches nobody is made again."""
        return min(PATIENCE, self.reconnect_timeout)

    @property
    def lost_seconds(self) -> float | None:
        """Seconds since calls have failed to reach the service; None unless one is retried."""
        return None if self._lost_since is None else time.monotonic() - self._lost_since

    def prepare(self, definition: Definition) -> None:
        """Do what a run of `definition` needs; called before each start that has one.

        Nothing here, where the service has loaded its definitions itself. A service in this
        process overrides it to load the definition.
        """

    async def channel(self) -> grpc.aio.Channel:
        """Return the running loop's channel to the service.

        A service in this process overrides it to start first.
        """
        return self._channels.get(self.address)

    async def close(self) -> None:
        """Close the running loop's channel; calls under way raise ConnectionLost."""
        await self._channels.close()

    async def reach(self, within: float) -> None:
        """Connect.

        Raises:
            ConnectionLost: it took longer than `within` seconds, or cannot succeed.
            DefinitionError: the process was forked from one whose client was connected.

        """
        channel = await self.channel()
        try:
            async with asyncio.timeout(within):
                state = channel.get_state(try_to_connect=True)
                while state is not grpc.ChannelConnectivity.READY:
                    if state is grpc.ChannelConnectivity.TRANSIENT_FAILURE:
                        fault = await self._prober.find(self.address)
                        if fault is not None and (fault.final or fault.unnamed):
                            raise lost(self.address, fault)
                    await channel.wait_for_state_change(state)
                    state = channel.get_state(try_to_connect=True)
        except TimeoutError:
            fault = await self._prober.find(self.address)
            raise lost(self.address, fault or UNKNOWN) from None

    async def call(
        self,
        method: Callable[[grpc.aio.Channel], grpc.aio.UnaryUnaryMultiCallable[_Request, _Answer]],
        request: _Request,
        *,
        again: bool = True,
    ) -> _Answer:
        """Make a unary call; with `again`, repeat it for `patience` seconds while that may help.

        Raises:
            CallError: the service refused.
            ConnectionLost: it could not be reached, or `close` ended the call.

        """
        backoff = Backoff(self.patience if again else 0.0)
        while True:
            metadata = await self._credential.metadata()
            channel = await self.channel()  # kept: one whose certificates changed may go away
            try:
                answer = await method(channel)(request, timeout=DEADLINE, metadata=metadata)
            except grpc.aio.AioRpcError as error:
                failure = error
            except asyncio.CancelledError:
                raise_if_own_cancellation()
                raise self.closed() from None
            else:
                self.reached()
                return answer
            await self.failed(failure, backoff, metadata)

    async def open(
        self,
        method: Callable[[grpc.aio.Channel], grpc.aio.UnaryStreamMultiCallable[_Request, _Answer]],
        request: _Request,
    ) -> grpc.aio.UnaryStreamCall[_Request, _Answer]:
        """Open a stream of responses; whether it is refused shows when it is read.

        Raises:
            Unauthenticated: the function that returns the API key failed.

        """
        metadata = await self._credential.metadata()
        channel = await self.channel()
        call = method(channel)(request, metadata=metadata)
        call.add_done_callback(partial(_outlive, channel))
        self._sent[call] = metadata
        return call

    async def create_run(self, request: rpc.CreateRunRequest) -> Run:
        """Start a run and return it when it is on disk.

        A `request_id` makes it safe to try again where an answer was lost; a request
        without one might start a second run.

        Raises:
            CallError: the service refused.
            ConnectionLost: it could not be reached.

        """
        return (await self.call(lambda channel: RunServiceStub(channel).CreateRun, request)).run

    async def get_run(self, run_id: str, *, include_input: bool = False) -> Run:
        """Return a run as it stands, with its result unless that exceeds RESULT_LIMIT bytes.

        Args:
            run_id: the run, a root run or a child.
            include_input: whether its `input` has what it was started with.

        Raises:
            RunNotFound: there is no such run.
            CallError: the service refused.
            ConnectionLost: it could not be reached.

        """
        request = rpc.GetRunRequest(
            run_id=checked_id(run_id),
            max_result_bytes=wire.RESULT_LIMIT,
            include_input=include_input,
        )
        return (await self.call(lambda channel: RunServiceStub(channel).GetRun, request)).run

    async def cancel_run(self, run_id: str) -> Run:
        """Cancel a run and return it, ended or with its cancellation on the way.

        Raises:
            RunNotFound: there is no such run.
            CallError: the service refused.
            ConnectionLost: it could not be reached.

        """
        request = rpc.CancelRunRequest(run_id=checked_id(run_id))
        return (await self.call(lambda channel: RunServiceStub(channel).CancelRun, request)).run

    def reached(self) -> None:
        """Note that the service has answered."""
        self._reached = True
        self._lost_since = None

    def unreached(self) -> None:
        """Note that a call is made again, because it did not reach the service."""
        if self._lost_since is None:
            self._lost_since = time.monotonic()

    async def failed(self, error: grpc.aio.AioRpcError, backoff: Backoff, sent: object) -> None:
        """Wait until a call that failed may be made again.

        Args:
            error: what it failed with.
            backoff: how long it was tried already.
            sent: the call if it is a stream, else the metadata of the call.

        Raises:
            PolosError: what the failure means, if the call may not be made again.

        """
        meaning = to_error(error, way_to(self.address))
        if isinstance(meaning, Unauthenticated) and self._credential.renewable:
            if backoff.renewed:
                raise meaning from None
            backoff.renewed = True
            metadata = sent if isinstance(sent, tuple) else self._sent.get(sent)
            self._credential.renew(metadata)
            return
        if isinstance(meaning, InvalidRequest):
            raise in_python(meaning) from None
        if not is_transient(error, meaning):
            raise meaning from None
        bound = None
        if isinstance(meaning, ConnectionLost):
            self.unreached()
        if isinstance(meaning, ConnectionLost) and (fault := await self._fault_of(error)):
            meaning = lost(self.address, fault, error.code().name)
            if fault.final and not (fault.inferred and self._reached):
                raise meaning from None
            bound = NAME_PATIENCE if fault.unnamed and not self._reached else None
        await backoff.wait(meaning, bound)

    def closed(self) -> ConnectionLost:
        """Return the error of a call that `close` has ended."""
        return ConnectionLost(f"the client of {self.address} was closed during a call")

    async def _fault_of(self, error: grpc.aio.AioRpcError) -> Fault | None:
        """Return what keeps the client from the service, if that explains the failed call."""
        if error.code() not in _UNCONNECTED:
            return None
        state = (await self.channel()).get_state()
        if state not in _CONNECTING:
            return None
        return await self._prober.find(self.address) or fault_told_by(error.details() or "")


def _outlive(_channel: grpc.aio.Channel, _call: object) -> None:
    """Do nothing; as a call's callback, keep the channel for as long as the call."""


def raise_if_own_cancellation() -> None:
    """Raise the CancelledError at hand again if it is the current task that is cancelled.

    A call that is cancelled locally raises CancelledError too. To let that pass would end
    a task that nobody has cancelled.
    """
    task = asyncio.current_task()
    if task is None or task.cancelling():
        raise  # noqa: PLE0704 - called from an except clause


def checked_client(value: object) -> Connection:
    """Return the client that a call was given.

    Raises:
        InvalidRequest: it is not one.

    """
    if not isinstance(value, Connection):
        told = f"must be a PolosClient, not {value!r:.80}; it is the first argument"
        raise InvalidRequest({"client": told})
    return value
