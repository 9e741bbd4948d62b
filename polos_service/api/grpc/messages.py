"""From records to the messages of the API, and from those to queries."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from google.protobuf.message import Message
from google.protobuf.timestamp_pb2 import Timestamp

from polos.v1 import run_service_pb2 as pb
from polos.v1.event_pb2 import Event
from polos.v1.run_pb2 import Run, RunState
from polos_client.errors import InvalidRequest
from polos_client.wire import PAGE_LIMIT, RESULT_LIMIT
from polos_service.reading.details import RunDetails
from polos_service.runs.frame import SECOND
from polos_service.store import RunQuery, RunRecord

PAGE_SIZE = 50
"""Runs or agents a page where the request names no number."""

RESULT_BYTES = 2560 * 1024
"""Bytes of a long result where the request names no number: with the results of tools the response
is below the 4 MiB that gRPC takes by default."""

RESULT_BYTES_WITH_INPUT = 1536 * 1024
"""The same where the response has the run's input, too."""

FIRST_SECOND = -62_135_596_800
"""The least number of seconds since the epoch that a `google.protobuf.Timestamp` may hold."""

LAST_SECOND = 253_402_300_799
"""The greatest number of seconds since the epoch that it may hold."""

PAGE_BYTES = 1024 * 1024
"""Bytes of runs or agents a page, unless the first alone is larger."""


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
        blocked_reason=record.left or None,
        parent_run_id=record.parent.run_id if record.parent else "",
        parent_step_key=record.parent.step_key if record.parent else "",
    )


def details_of(details: RunDetails) -> Run:
    """Return the record with what is known beyond it as a message."""
    run = run_of(details.record)
    if details.outcome is not None:
        run.outcome.CopyFrom(details.outcome)
        copy_spent(details.outcome, run)
    if details.origin is not None:
        run.parent_run_id, run.parent_step_key = details.origin.run_id, details.origin.step_key
        run.root_workflow_id = details.root_workflow_id
    run.tool_results.extend(details.tool_results)
    run.tool_results_omitted = details.omitted
    return run


def copy_spent(outcome: Event, run: Run) -> None:
    """Copy what a run has spent from its last event, as far as that tells it."""
    ended: Any = getattr(outcome, outcome.WhichOneof("payload") or "", None)
    for name in ("spent", "spent_cost"):
        if hasattr(ended, name) and ended.HasField(name):
            getattr(run, name).CopyFrom(getattr(ended, name))


def page_of(records: Sequence[RunRecord], limit: int) -> pb.ListRunsResponse:
    """Return a page of runs: as many as a response may hold, at least one.

    Args:
        records: the runs, at most `limit`.
        limit: how many were looked for; if there are as many, there may be more.

    """
    page = pb.ListRunsResponse()
    size = 0
    for record in records:
        run = run_of(record)
        if record.input_preview:
            run.input.preview = record.input_preview
        size += run.ByteSize()
        if page.runs and size > PAGE_BYTES:
            break
        page.runs.append(run)
    if len(records) == limit or len(page.runs) < len(records):
        page.next_page_token = page.runs[-1].run_id
    return page


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
        parent_run_id=request.parent_run_id or None,
    )


def result_limit(request: pb.GetRunRequest) -> int:
    """Return how many bytes a long result may have.

    Raises:
        InvalidRequest: the number that the request names is negative.

    """
    asked = request.max_result_bytes
    if asked < 0:
        raise InvalidRequest({"max_result_bytes": f"is {asked}, not 0 or more"})
    default = RESULT_BYTES_WITH_INPUT if request.include_input else RESULT_BYTES
    return min(asked or default, RESULT_LIMIT)


def page_size(asked: int) -> int:
    """Return how many a page has (AIP-158).

    Raises:
        InvalidRequest: it is negative.

    """
    if asked < 0:
        raise InvalidRequest({"page_size": f"is {asked}, not 0 or more"})
    return min(asked or PAGE_SIZE, PAGE_LIMIT)


def nanoseconds(request: Message, field: str) -> int | None:
    """Return a time field as nanoseconds since the epoch, None where it is absent.

    Raises:
        InvalidRequest: it is out of range.

    """
    if not request.HasField(field):
        return None
    value: Timestamp = getattr(request, field)
    if not (FIRST_SECOND <= value.seconds <= LAST_SECOND and 0 <= value.nanos < SECOND):
        raise InvalidRequest({field: "is not a time from year 1 to year 9999"})
    # No run is that old or that young; the store counts in 64 bits.
    return max(-(2**63), min(2**63 - 1, value.seconds * SECOND + value.nanos))


def timestamp(time: int | None) -> Timestamp | None:
    """Return nanoseconds since the epoch as a message."""
    return None if time is None else Timestamp(seconds=time // SECOND, nanos=time % SECOND)
