"""One run's events exactly once, over any number of reconnects.

A reader holds a cursor, the sequence of the last event it has seen. Whatever breaks the
connection, it asks for the log after that cursor; every response is checked against it.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Awaitable, Sequence
from contextlib import aclosing
from typing import TypeVar

import grpc.aio

from polos.v1 import event_pb2 as pb
from polos.v1 import run_service_pb2 as rpc
from polos.v1.run_service_pb2_grpc import RunServiceStub
from polos_client import wire
from polos_client.calls.backoff import Backoff
from polos_client.calls.connection import Connection, raise_if_own_cancellation
from polos_client.calls.status import TRANSIENT
from polos_client.errors import CallError, ConnectionLost, PolosError, Unauthenticated
from polos_client.event import Event
from polos_client.fold import RunAccumulator
from polos_client.wire import SILENCE

Response = rpc.StreamRunResponse | rpc.StreamWorkflowResponse
LogCall = (
    grpc.aio.UnaryStreamCall[rpc.StreamRunRequest, rpc.StreamRunResponse]
    | grpc.aio.UnaryStreamCall[rpc.StreamWorkflowRequest, rpc.StreamWorkflowResponse]
)

_Answer = TypeVar("_Answer")


class _DroppedError(Exception):
    """The connection broke; the log can be read on from the cursor."""

    def __init__(self, failure: grpc.aio.AioRpcError | PolosError, call: LogCall | None) -> None:
        super().__init__(str(failure))
        self.failure = failure
        self.call = call


async def follow(
    connection: Connection, run_id: str, *, after: int = 0, opened: LogCall | None = None
) -> AsyncGenerator[Sequence[pb.Event], None]:
    """Yield a run's events in batches, as they come, until its terminal event.

    Args:
        connection: where the service is.
        run_id: the root run, or a child, which has gaps between its events.
        after: the cursor to begin after; 0 is the start.
        opened: a call that reads the log from the start already; it is used up.

    Raises:
        ConnectionLost: the service could not be reached for the
            connection's `reconnect_timeout`, or broke its protocol.
        CallError: the service refused: there is no such run, for example.

    """
    reader = _Reader(connection, run_id, after)
    backoff = Backoff(connection.reconnect_timeout)
    while not reader.ended:
        try:
            async with aclosing(reader.attach(opened, backoff)) as batches:
                async for batch in batches:
                    yield batch
        except _DroppedError as dropped:
            await reader.wait(backoff, dropped)
        opened = None


async def events(
    connection: Connection,
    run_id: str,
    workflow_id: str | None = None,
    *,
    after: int = 0,
    opened: LogCall | None = None,
) -> AsyncGenerator[Event, None]:
    """Yield what `follow` yields, one by one, as programs see it.

    `workflow_id` is what the run executes, for the topic; as the log says where it is None.
    """
    async with aclosing(follow(connection, run_id, after=after, opened=opened)) as batches:
        async for batch in batches:
            for proto in batch:
                if proto.run_id == run_id:
                    workflow_id = proto.workflow_id
                yield Event(proto, run_id, workflow_id)


async def fold(
    connection: Connection,
    run_id: str,
    *,
    into: RunAccumulator | None = None,
    opened: LogCall | None = None,
) -> RunAccumulator:
    """Read a run to its end and return the fold of its events.

    Args:
        connection: where the service is.
        run_id: the root run, or a child.
        into: a fold to go on with, from its last event; default: a new one.
        opened: as in `follow`.

    Raises:
        ConnectionLost: as in `follow`.
        CallError: as in `follow`.

    """
    folded = RunAccumulator(run_id) if into is None else into
    async with aclosing(
        follow(connection, run_id, after=folded.sequence, opened=opened)
    ) as batches:
        async for batch in batches:
            folded.add(batch)
    return folded


class _Reader:
    """Reads one log, attached to one call after the other."""

    def __init__(self, connection: Connection, run_id: str, after: int) -> None:
        self._connection = connection
        self._run_id = run_id
        self._after = after
        self._cursor = after
        self._begun = False  # a stream of this run has begun
        self.ended = False

    async def attach(
        self, opened: LogCall | None, backoff: Backoff
    ) -> AsyncGenerator[Sequence[pb.Event], None]:
        """Yield what one call brings, after the cursor.

        Raises:
            _DroppedError: the connection broke.

        """
        call = opened or await self._open()
        try:
            if (await self._answer(call, call.initial_metadata())).get(wire.RUN_ID_KEY):
                self._begun = True
                self._connection.reached()
                backoff.reached()  # the service answers each stream at once: not an outage
            while not self.ended and (response := await self._read(call)) is not None:
                backoff.reset()
                if fresh := self._fresh(response):
                    yield fresh
        finally:
            call.cancel()  # leaving an iteration does not end the call by itself
        self._end()

    async def wait(self, backoff: Backoff, dropped: _DroppedError) -> None:
        """Wait before the next call.

        Raises:
            ConnectionLost: it takes too long.
            CallError: the service refused.

        """
        failure = dropped.failure
        try:
            if isinstance(failure, PolosError):
                self._connection.unreached()
                await backoff.wait(failure)
            else:
                await self._connection.failed(failure, backoff, dropped.call)
        except CallError as refusal:
            if isinstance(refusal, TRANSIENT) or refusal is failure:
                raise self._lost(f"reading run {self._run_id} failed: {refusal}") from refusal
            raise self._refused(refusal) from None
        except ConnectionLost as error:
            raise self._lost(f"reading run {self._run_id} failed: {error}") from error

    async def _open(self) -> LogCall:
        request = rpc.StreamWorkflowRequest(
            workflow_run_id=self._run_id, after_sequence=self._cursor
        )
        try:
            return await self._connection.open(
                lambda channel: RunServiceStub(channel).StreamWorkflow, request
            )
        except Unauthenticated as error:  # nobody says which key to send
            if not self._begun:
                raise
            raise _DroppedError(error, None) from error

    async def _read(self, call: LogCall) -> Response | None:
        """Return the next response; None after the last one."""
        response = await self._answer(call, call.read())
        return response if isinstance(response, Response) else None

    async def _answer(self, call: LogCall, waiting: Awaitable[_Answer]) -> _Answer:
        """Return what the call brings next."""
        try:
            async with asyncio.timeout(SILENCE):
                return await waiting
        except grpc.aio.AioRpcError as error:
            raise _DroppedError(error, call) from error
        except TimeoutError as error:
            silent = (
                f"{self._connection.address} sent nothing for {SILENCE:g} s, not even a heartbeat"
            )
            raise _DroppedError(ConnectionLost(silent), call) from error
        except asyncio.CancelledError:
            raise_if_own_cancellation()
            raise self._lost(str(self._connection.closed())) from None

    def _fresh(self, response: Response) -> Sequence[pb.Event]:
        """Return the events after the cursor, and move it."""
        events = list(response.events)
        if response.covered_through:
            return self._part(events, response.covered_through)
        due = range(self._cursor + 1, self._cursor + 1 + len(events))
        if [event.sequence for event in events] != list(due):
            events = [event for event in events if self._is_fresh(event)]
        elif events:
            self._cursor = due[-1]
        self.ended = bool(events) and events[-1].terminal
        return events

    def _part(self, events: list[pb.Event], covered: int) -> Sequence[pb.Event]:
        """Return those of a child's events that are after the cursor, and move it.

        There are gaps between them. The service says how far it has looked.
        """
        sequences = [event.sequence for event in events]
        if sequences != sorted({*sequences}) or (sequences and sequences[-1] > covered):
            raise self._lost(
                f"the stream of run {self._run_id} sent events {sequences[0]} to {sequences[-1]} "
                f"out of order, or beyond {covered}: something in between changed them"
            )
        events = [event for event in events if event.sequence > self._cursor]
        self._cursor = max(self._cursor, covered)
        self.ended = bool(events) and events[-1].terminal
        return events

    def _is_fresh(self, event: pb.Event) -> bool:
        """Return whether the event is the next one, and move the cursor; False: it was seen."""
        if event.sequence > self._cursor + 1:
            raise self._lost(
                f"the stream of run {self._run_id} jumped from event {self._cursor} to "
                f"{event.sequence}: the service lost events, or something in between changed them"
            )
        fresh = event.sequence == self._cursor + 1
        self._cursor = max(self._cursor, event.sequence)
        return fresh

    def _end(self) -> None:
        """Judge a stream that ended with OK."""
        if self.ended:
            return
        if self._cursor > self._after or not self._after:
            raise self._lost(
                f"the stream of run {self._run_id} ended after event {self._cursor}, without the "
                "event that ends the run: what was read is not complete"
            )
        self.ended = True  # we began at the run's terminal event: there is nothing after it

    def _refused(self, refusal: CallError) -> CallError:
        """Return the refusal with what it takes to read on."""
        refusal.run_id, refusal.cursor = self._run_id, self._cursor
        if isinstance(refusal, Unauthenticated):
            told = (
                f"{refusal}; run {self._run_id} continues. It was read up to event {self._cursor}: "
                "resume with another credential, or pass a function as api_key to the client"
            )
            refusal.args = (told,)
        return refusal

    def _lost(self, message: str) -> ConnectionLost:
        return ConnectionLost(message, run_id=self._run_id, cursor=self._cursor)
