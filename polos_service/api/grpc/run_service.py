"""RunService: starts runs, streams their logs, and manages them."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator
from typing import Any

import grpc

from polos.v1 import run_service_pb2 as pb
from polos_client.errors import InvalidRequest
from polos_service.agents.start import Starts
from polos_service.api.grpc import PROJECT
from polos_service.api.grpc.details import Details
from polos_service.api.grpc.messages import page_of, query_of, run_of
from polos_service.api.grpc.tail import Tails
from polos_service.runs.executor import Executor
from polos_service.store import ENDED, RunStore

CANCEL_WAIT = 5.0
"""Seconds that `CancelRun` waits for the terminal event."""

Context = grpc.aio.ServicerContext[Any, Any]


class RunService:
    """The servicer; its streams answer with frames, which are bytes."""

    def __init__(self, store: RunStore, starts: Starts, executor: Executor, tails: Tails) -> None:
        self._store = store
        self._starts = starts
        self._executor = executor
        self._tails = tails
        self._details = Details(store, tails.turns)

    async def StreamRun(
        self, request: pb.StreamRunRequest, context: Context
    ) -> AsyncIterator[bytes]:
        """Start a run and stream it."""
        run_id = await self._starts.start(
            PROJECT,
            pb.CreateRunRequest(
                agent_id=request.agent_id,
                input=request.input,
                input_messages_json=request.input_messages_json,
                options=request.options if request.HasField("options") else None,
                request_id=request.request_id,
                streaming=True,
            ),
        )
        del request  # an input of 1 MiB, for which a reader has no use
        await context.send_initial_metadata((("polos-run-id", run_id),))
        async for response in self._tails.tail(PROJECT, run_id, 0):
            yield response

    async def StreamWorkflow(
        self, request: pb.StreamWorkflowRequest, context: Context
    ) -> AsyncIterator[bytes]:
        """Stream a run that exists."""
        required("workflow_run_id", request.workflow_run_id)
        if request.after_sequence < 0:
            raise InvalidRequest({"after_sequence": f"is {request.after_sequence}, not 0 or more"})
        record = await self._store.get(PROJECT, request.workflow_run_id)
        await context.send_initial_metadata((("polos-run-id", record.run_id),))
        async for response in self._tails.tail(PROJECT, record.run_id, request.after_sequence):
            yield response

    async def CreateRun(
        self, request: pb.CreateRunRequest, context: Context
    ) -> pb.CreateRunResponse:
        """Start a run."""
        run_id = await self._starts.start(PROJECT, request)
        return pb.CreateRunResponse(run=run_of(await self._store.get(PROJECT, run_id)))

    async def GetRun(self, request: pb.GetRunRequest, context: Context) -> pb.GetRunResponse:
        """Return a run with its outcome and tool results."""
        required("run_id", request.run_id)
        return pb.GetRunResponse(run=await self._details.whole(PROJECT, request.run_id))

    async def ListRuns(self, request: pb.ListRunsRequest, context: Context) -> pb.ListRunsResponse:
        """Return a page of runs."""
        query = query_of(request)
        return page_of(await self._store.list(PROJECT, query), query.limit)

    async def CancelRun(
        self, request: pb.CancelRunRequest, context: Context
    ) -> pb.CancelRunResponse:
        """Cancel a run, and wait a little for its end."""
        required("run_id", request.run_id)
        await self._executor.cancel(PROJECT, request.run_id)
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(CANCEL_WAIT):
                await self._ended(request.run_id)
        return pb.CancelRunResponse(run=await self._details.ended(PROJECT, request.run_id))

    async def DeleteRun(
        self, request: pb.DeleteRunRequest, context: Context
    ) -> pb.DeleteRunResponse:
        """Remove an ended run."""
        required("run_id", request.run_id)
        await self._store.delete(PROJECT, request.run_id)
        return pb.DeleteRunResponse()

    async def _ended(self, run_id: str) -> None:
        record = await self._store.get(PROJECT, run_id)
        while record.state not in ENDED:
            await self._store.wait(PROJECT, run_id, record.latest)
            record = await self._store.get(PROJECT, run_id)


def required(field: str, value: str) -> None:
    """Refuse an empty field."""
    if not value:
        raise InvalidRequest({field: "is empty"})
