"""From records and logs to the messages of the API."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

from google.protobuf.timestamp_pb2 import Timestamp

from polos.v1 import run_service_pb2 as pb
from polos.v1.event_pb2 import Event, StepFinish, ToolCall
from polos.v1.run_pb2 import Run, RunState, ToolResult
from polos_client.errors import InvalidRequest
from polos_service.api.tail import READ_LIMIT
from polos_service.runs.frame import SECOND, decode
from polos_service.store import RunQuery, RunRecord, RunStore

PAGE_SIZE = 50
PAGE_LIMIT = 1000
"""Runs or agents a page: where nothing is asked for, and at most."""

FIRST_SECOND = -62_135_596_800
LAST_SECOND = 253_402_300_799
"""Seconds since the epoch that a `google.protobuf.Timestamp` may hold."""

RESULTS_LIMIT = 1024 * 1024
"""Bytes of tool results in an answer of `GetRun` at most."""


def run_of(record: RunRecord) -> Run:
    """Return the record as a message."""
    return Run(
        run_id=record.run_id,
        workflow_id=record.workflow_id,
        state=record.state,
        session_id=record.session_id,
        user_id=record.user_id,
        streaming=record.streaming,
        create_time=timestamp(record.create_time),
        start_time=timestamp(record.start_time),
        finish_time=timestamp(record.finish_time),
        latest_sequence=record.latest,
    )


async def details_of(store: RunStore, project: str, run_id: str) -> Run:
    """Return the run with what its log says of outcome and tool results.

    Raises:
        RunNotFound: there is no such run.

    """
    run = run_of(await store.get(project, run_id))
    calls: dict[str, ToolCall] = {}
    size = 0
    async for event in events_of(store, project, run_id):
        if event.sequence > run.latest_sequence:
            break  # it came after the record, which says nothing of it
        if event.terminal:
            run.outcome.CopyFrom(event)
        elif event.step_start.HasField("tool_call"):
            calls[event.step_start.step_key] = event.step_start.tool_call
        elif event.step_finish.HasField("tool_call"):
            result = result_of(event.step_finish, calls)
            size += result.ByteSize()
            if size > RESULTS_LIMIT:
                run.tool_results_omitted += 1
            else:
                run.tool_results.append(result)
    return run


def result_of(finish: StepFinish, calls: dict[str, ToolCall]) -> ToolResult:
    """Return a tool step's end, with the arguments from its start."""
    result = ToolResult(
        tool_call=calls.get(finish.step_key, finish.tool_call), step_key=finish.step_key
    )
    if finish.HasField("failure"):
        result.failure.CopyFrom(finish.failure)
    else:
        result.result_json = finish.result_json
    return result


async def events_of(store: RunStore, project: str, run_id: str) -> AsyncIterator[Event]:
    """Yield what the log holds now, and give the loop a turn between pieces."""
    after = 0
    while True:
        part = await store.read(project, run_id, after, READ_LIMIT)
        if not part.frames:
            return
        for frame in part.frames:
            for event in decode(frame.data):
                yield event
        after = part.frames[-1].last
        await asyncio.sleep(0)


def query_of(request: pb.ListRunsRequest) -> RunQuery:
    """Return what the request asks for.

    Raises:
        InvalidRequest: a field is wrong.

    """
    return RunQuery(
        limit=page_size(request.page_size),
        before=request.page_token or None,
        workflow_id=request.workflow_id or None,
        state=request.state if request.state != RunState.RUN_STATE_UNSPECIFIED else None,
        session_id=request.session_id or None,
        user_id=request.user_id or None,
        created_from=nanoseconds(request, "created_from"),
        created_before=nanoseconds(request, "created_before"),
    )


def page_size(asked: int) -> int:
    """Return how many a page has (AIP-158).

    Raises:
        InvalidRequest: it is negative.

    """
    if asked < 0:
        raise InvalidRequest({"page_size": f"is {asked}, not 0 or more"})
    return min(asked or PAGE_SIZE, PAGE_LIMIT)


def nanoseconds(request: pb.ListRunsRequest, field: str) -> int | None:
    """Return a time field as nanoseconds since the epoch, None where it is absent.

    Raises:
        InvalidRequest: it is no time.

    """
    if not request.HasField(field):  # type: ignore[arg-type]  # both names are fields
        return None
    value: Timestamp = getattr(request, field)
    if not (FIRST_SECOND <= value.seconds <= LAST_SECOND and 0 <= value.nanos < SECOND):
        raise InvalidRequest({field: "is not a time from year 1 to year 9999"})
    # No run is that old or that young; the store counts in 64 bits.
    return max(-(2**63), min(2**63 - 1, value.seconds * SECOND + value.nanos))


def timestamp(time: int | None) -> Timestamp | None:
    """Return nanoseconds since the epoch as a message."""
    return None if time is None else Timestamp(seconds=time // SECOND, nanos=time % SECOND)
