"""RunService: starts runs, streams their logs, and manages them."""

from __future__ import annotations

from typing import Any

import grpc

from polos.v1 import run_service_pb2 as pb
from polos_client.errors import InvalidRequest
from polos_client.event import seconds
from polos_client.wire import RUN_ID_KEY, root_of
from polos_service.access import Access
from polos_service.api.grpc.handlers import needs
from polos_service.api.grpc.messages import (
    details_of,
    page_of,
    query_of,
    result_limit,
    run_of,
    timestamp,
)
from polos_service.api.grpc.replies import asked_of, reply_of, shown, token_of
from polos_service.api.grpc.requests import as_create, run_request
from polos_service.caller import RUNS_READ, RUNS_RESUME, RUNS_WRITE, Caller
from polos_service.runs.frame import SECOND
from polos_service.service import Runs
from polos_service.sidethread import SideThread
from polos_service.store import ENDED

Context = grpc.aio.ServicerContext[Any, Any]


class RunService:
    """The servicer; its streams answer with frames, which are bytes."""

    def __init__(self, runs: Runs, side_thread: SideThread, access: Access) -> None:
        self._runs = runs
        self._waits = runs.waits
        self._access = access
        self._side_thread = side_thread

    @needs(RUNS_WRITE, RUNS_READ)
    async def StreamRun(
        self, caller: Caller, request: pb.StreamRunRequest, context: Context
    ) -> None:
        """Start a run and stream it."""
        run_id = await self._start(caller, as_create(request))
        del request  # an input of 1 MiB, for which a reader has no use
        await self._stream(caller, run_id, 0, context)

    @needs(RUNS_READ, run_field="workflow_run_id")
    async def StreamWorkflow(
        self, caller: Caller, request: pb.StreamWorkflowRequest, context: Context
    ) -> None:
        """Stream a run that exists."""
        required("workflow_run_id", request.workflow_run_id)
        if request.after_sequence < 0:
            raise InvalidRequest({"after_sequence": f"is {request.after_sequence}, not 0 or more"})
        await self._runs.require(caller, request.workflow_run_id)
        await self._stream(caller, request.workflow_run_id, request.after_sequence, context)

    @needs(RUNS_WRITE)
    async def CreateRun(
        self, caller: Caller, request: pb.CreateRunRequest, context: Context
    ) -> pb.CreateRunResponse:
        """Start a run."""
        run_id = await self._start(caller, request)
        return pb.CreateRunResponse(run=run_of(await self._runs.record(caller, run_id)))

    @needs(RUNS_READ, run_field="run_id")
    async def GetRun(
        self, caller: Caller, request: pb.GetRunRequest, context: Context
    ) -> pb.GetRunResponse:
        """Return a run with its outcome and tool results."""
        required("run_id", request.run_id)
        limit = result_limit(request)
        details = await self._runs.get(caller, request.run_id, limit, tree=request.include_tree)
        context.add_done_callback(lambda _: details.release())  # type: ignore[arg-type]  # as in slots
        run = details_of(details)
        if request.include_input:
            given = await self._runs.input(caller, request.run_id)
            if given is not None:
                run.input.CopyFrom(given)
        if details.record.state not in ENDED:
            root = root_of(request.run_id)
            waits = await self._waits.open(caller, root)
            run.open_waits.extend(shown([one for one in waits if details.has(one.run_id)]))
            early = await self._waits.early(caller, root)
            run.early_answers.extend(key for run_id, key in early if details.has(run_id))
        return pb.GetRunResponse(run=run, tree=details.tree)

    @needs(RUNS_READ)
    async def ListRuns(
        self, caller: Caller, request: pb.ListRunsRequest, context: Context
    ) -> pb.ListRunsResponse:
        """Return a page of runs."""
        query = query_of(request)
        return page_of(await self._runs.list(caller, query), query.limit)

    @needs(RUNS_WRITE)
    async def CancelRun(
        self, caller: Caller, request: pb.CancelRunRequest, context: Context
    ) -> pb.CancelRunResponse:
        """Cancel a run, and wait a little for its end."""
        required("run_id", request.run_id)
        run = details_of(await self._runs.cancel(caller, request.run_id))
        if not caller.may(RUNS_READ):
            run.ClearField("outcome")
        return pb.CancelRunResponse(run=run)

    @needs(RUNS_WRITE)
    async def DeleteRun(
        self, caller: Caller, request: pb.DeleteRunRequest, context: Context
    ) -> pb.DeleteRunResponse:
        """Remove an ended run."""
        required("run_id", request.run_id)
        await self._runs.delete(caller, request.run_id)
        return pb.DeleteRunResponse()

    @needs(RUNS_READ)
    async def CreateRunToken(
        self, caller: Caller, request: pb.CreateRunTokenRequest, context: Context
    ) -> pb.CreateRunTokenResponse:
        """Create a token for reading one run."""
        required("run_id", request.run_id)
        await self._runs.require(caller, request.run_id)
        lifetime = seconds(request.lifetime) if request.HasField("lifetime") else None
        token, expires = await self._access.run_readers.token(caller, request.run_id, lifetime)
        return pb.CreateRunTokenResponse(
            token=token, expire_time=timestamp(round(expires * SECOND))
        )

    @needs(RUNS_RESUME)
    async def ResumeRun(
        self, caller: Caller, request: pb.ResumeRunRequest, context: Context
    ) -> pb.ResumeRunResponse:
        """Answer a wait."""
        reply = await self._side_thread.call(request.ByteSize(), reply_of, request)
        wait = await self._waits.resume(caller, reply)
        if wait is not None and not caller.may(RUNS_READ):
            wait.ClearField("data_json")
        return pb.ResumeRunResponse(wait=wait)

    @needs(RUNS_READ)
    async def ListWaits(
        self, caller: Caller, request: pb.ListWaitsRequest, context: Context
    ) -> pb.ListWaitsResponse:
        """Return a page of open waits."""
        waits, place = await self._waits.page(caller, asked_of(request))
        token = "" if place is None else token_of(place)
        return pb.ListWaitsResponse(waits=waits, next_page_token=token)

    async def _stream(self, caller: Caller, run_id: str, after: int, context: Context) -> None:
        """Write a run's log. This is not a generator, which a tool could end (see `Tail`)."""
        await context.send_initial_metadata(((RUN_ID_KEY, run_id),))
        tailing = self._runs.tail(caller, run_id, after)
        with tailing as tail, self._access.streams.ending(caller, tail.refuse):
            while (response := await tail.next()) is not None:
                await context.write(response)

    async def _start(self, caller: Caller, request: pb.CreateRunRequest) -> str:
        kind = self._runs.kind(caller, request.agent_id)
        start = await self._side_thread.call(request.ByteSize(), run_request, caller, request, kind)
        return await self._runs.start(start)


def required(field: str, value: str) -> None:
    """Refuse an empty field."""
    if not value:
        raise InvalidRequest({field: "is empty"})
