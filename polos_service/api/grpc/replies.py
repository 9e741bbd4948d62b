"""From requests about waits to values, and back to messages."""

from __future__ import annotations

import json
from collections.abc import Sequence

from polos.v1 import run_service_pb2 as pb
from polos_client.errors import InvalidRequest
from polos_client.wire import REQUEST_ID_LIMIT, STATE_LIMIT
from polos_service.api.grpc.messages import PAGE_BYTES
from polos_service.api.parsing import ParseError, parse
from polos_service.limits import KEY_LIMIT
from polos_service.store import WaitRecord
from polos_service.waits import Reply, waiting

PLACE_PARTS = 3
"""Parts of the token of a page: the time, the run, the wait."""


def reply_of(request: pb.ResumeRunRequest) -> Reply:
    """Return the answer that a request gives.

    Raises:
        InvalidRequest: fields are wrong; it names all of them.

    """
    wrong: dict[str, str] = {}
    if not request.run_id:
        wrong["run_id"] = "is empty"
    if request.wait_id < 0:
        wrong["wait_id"] = f"is {request.wait_id}, not 0 or more"
    if (size := len(request.step_key.encode())) > KEY_LIMIT:
        wrong["step_key"] = f"has {size} bytes, the limit is {KEY_LIMIT}"
    if (size := len(request.request_id)) > REQUEST_ID_LIMIT:
        wrong["request_id"] = f"has {size} characters, the limit is {REQUEST_ID_LIMIT}"
    data = None
    if (size := len(request.data_json.encode())) > STATE_LIMIT:
        wrong["data_json"] = f"has {size} bytes, the limit is {STATE_LIMIT}"
    else:
        try:
            data = parse(request.data_json)
        except ParseError as error:
            wrong[f"data_json{error.path}"] = str(error)
    if wrong:
        raise InvalidRequest(wrong)
    return Reply(
        run_id=request.run_id,
        step_key=request.step_key,
        wait_id=request.wait_id,
        data_json=request.data_json,
        data=data,
        request_id=request.request_id,
    )


def place_of(token: str) -> tuple[int, str, int] | None:
    """Return the place that the token of a page stands for; None for the first page.

    Raises:
        InvalidRequest: it is not such a token.

    """
    if not token:
        return None
    try:
        create_time, run_id, wait_id = json.loads(token)
        if not (isinstance(run_id, str) and isinstance(create_time, int)):
            raise TypeError  # noqa: TRY301 - one answer to everything that is wrong
        return create_time, run_id, int(wait_id)
    except (TypeError, ValueError):
        what = "is not a next_page_token of ListWaits"
        raise InvalidRequest({"page_token": what}) from None


def waits_page(records: Sequence[WaitRecord], limit: int, workflow_id: str) -> pb.ListWaitsResponse:
    """Return a page of waits: as many as a response may hold, at least one.

    Args:
        records: the waits, at most `limit`.
        limit: how many were looked for; if there are as many, there may be more.
        workflow_id: whose waits are told; empty for all.

    """
    page = pb.ListWaitsResponse()
    size = 0
    last: WaitRecord | None = None
    for record in records:
        wait = waiting(record)
        if not workflow_id or wait.workflow_id == workflow_id:
            size += len(record.data)
            if page.waits and size > PAGE_BYTES:
                page.next_page_token = token_of(last)
                return page
            page.waits.append(wait)
        last = record
    if len(records) == limit:
        page.next_page_token = token_of(last)
    return page


def token_of(record: WaitRecord | None) -> str:
    """Return the token of the page behind a wait."""
    return "" if record is None else json.dumps(record.place)
