"""Connection: a channel to a service for each event loop, and calls that are retried."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Protocol, Self, TypeVar

import grpc.aio

from polos.v1 import run_service_pb2 as rpc
from polos.v1.run_pb2 import Run
from polos.v1.run_service_pb2_grpc import RunServiceStub
from polos_client import wire
from polos_client.calls.backoff import Backoff
from polos_client.calls.status import is_transient, to_error
from polos_client.calls.target import Target
from polos_client.errors import ConnectionLost, InvalidRequest, PolosError

PATIENCE = 10.0
"""Seconds for which an unreachable service is retried, at most."""

DEADLINE = 30.0
"""Seconds after which one attempt of a unary call is given up."""

OPTIONS = [
    ("grpc.keepalive_time_ms", wire.PING_AFTER_MS),
    ("grpc.keepalive_timeout_ms", wire.PING_TIMEOUT_MS),
    ("grpc.max_receive_message_length", wire.RESPONSE_LIMIT),
    # By default grpc waits up to two minutes before it tries a lost address again.
    ("grpc.initial_reconnect_backoff_ms", 100),
    ("grpc.max_reconnect_backoff_ms", 2_000),
]
"""What each channel is made with."""

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
    """What can be run, as far as calls know it; `id` is unique in a service."""

    id: str


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
        self._credentials = target.credentials
        self._metadata = (
            ()
            if target.api_key is None
            else ((wire.AUTHORIZATION_KEY, f"Bearer {target.api_key}"),)
        )
        self._channels: dict[asyncio.AbstractEventLoop, grpc.aio.Channel] = {}

    @property
    def secure(self) -> bool:
        """Whether it connects over TLS."""
        return self._credentials is not None

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

    def prepare(self, definition: Definition) -> None:
        """Do what a run of `definition` needs; called before each start that has one.

        Nothing here, where the service has loaded its definitions itself. A service in this
        process overrides it to load the definition.
        """

    async def channel(self) -> grpc.aio.Channel:
        """Return the running loop's channel to the service.

        A service in this process overrides it to start first.
        """
        loop = asyncio.get_running_loop()
        self._drop_closed()
        if loop not in self._channels:
            self._channels[loop] = (
                grpc.aio.insecure_channel(self.address, options=OPTIONS)
                if self._credentials is None
                else grpc.aio.secure_channel(self.address, self._credentials, options=OPTIONS)
            )
        return self._channels[loop]

    async def close(self) -> None:
        """Close the running loop's channel; calls under way raise ConnectionLost."""
        self._drop_closed()
        channel = self._channels.pop(asyncio.get_running_loop(), None)
        if channel is not None:
            await channel.close()

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
            try:
                send = method(await self.channel())
                return await send(request, timeout=DEADLINE, metadata=self._metadata)
            except grpc.aio.AioRpcError as error:
                failure = self.refused(error)
            except asyncio.CancelledError:
                raise_if_own_cancellation()
                raise self.closed() from None
            await backoff.wait(failure)

    async def open(
        self,
        method: Callable[[grpc.aio.Channel], grpc.aio.UnaryStreamMultiCallable[_Request, _Answer]],
        request: _Request,
    ) -> grpc.aio.UnaryStreamCall[_Request, _Answer]:
        """Open a stream of responses; whether it is refused shows when it is read."""
        return method(await self.channel())(request, metadata=self._metadata)

    async def create_run(self, request: rpc.CreateRunRequest) -> Run:
        """Start a run and return it when it is on disk.

        A `request_id` makes it safe to try again where an answer was lost; a request
        without one might start a second run.

        Raises:
            CallError: the service refused.
            ConnectionLost: it could not be reached.

        """
        return (await self.call(lambda channel: RunServiceStub(channel).CreateRun, request)).run

    async def get_run(self, run_id: str) -> Run:
        """Return a run as it stands, with its result unless that exceeds RESULT_LIMIT bytes.

        Raises:
            RunNotFound: there is no such run.
            CallError: the service refused.
            ConnectionLost: it could not be reached.

        """
        request = rpc.GetRunRequest(run_id=checked_id(run_id), max_result_bytes=wire.RESULT_LIMIT)
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
