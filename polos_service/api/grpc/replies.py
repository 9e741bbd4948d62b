"""From requests about waits to values, and back to messages."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence

from polos.v1 import run_service_pb2 as pb
from polos.v1.run_pb2 import Wait
from polos_client.errors import InvalidRequest
from polos_client.wire import ANSWER_LIMIT, REQUEST_ID_LIMIT
from polos_service.api.grpc.messages import PAGE_BYTES, page_size
from polos_service.api.parsing import ParseError, parse
from polos_service.limits import KEY_LIMIT, NAME_LIMIT
from polos_service.reply import Reply
from polos_service.waits import Asked, Place

TOKEN = re.compile(r"([0-9]{1,19})\.([0-9]{1,19})\.([!-~]{1,128})")
"""The token of a page: time, id and root run of the last wait of the page before."""

LARGEST = 2**63 - 1
"""The largest time or id that a store can compare."""


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
    if not (request.step_key or request.wait_id):
        wrong["step_key"] = "is empty: name the wait by its key, or by its wait_id"
    if (size := len(request.step_key.encode())) > KEY_LIMIT:
        wrong["step_key"] = f"has {size} bytes, the limit is {KEY_LIMIT}"
    if (size := len(request.request_id)) > REQUEST_ID_LIMIT:
        wrong["request_id"] = f"has {size} characters, the limit is {REQUEST_ID_LIMIT}"
    if (size := len(request.workflow_id)) > NAME_LIMIT:
        wrong["workflow_id"] = f"has {size} characters, the limit is {NAME_LIMIT}"
    data = None
    if (size := len(request.data_json.encode())) > ANSWER_LIMIT:
        wrong["data_json"] = f"has {size} bytes, the limit is {ANSWER_LIMIT}"
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
        workflow_id=request.workflow_id,
    )


def asked_of(request: pb.ListWaitsRequest) -> Asked:
    """Return the page that a request asks for.

    Raises:
        InvalidRequest: a field is wrong.

    """
    return Asked(
        limit=page_size(request.page_size),
        size=PAGE_BYTES,
        after=place_of(request.page_token),
        workflow_id=request.workflow_id,
    )


def place_of(token: str) -> Place | None:
    """Return the place that the token of a page stands for; None for the first page.

    Raises:
        InvalidRequest: it is not such a token.

    """
    if not token:
        return None
    found = TOKEN.fullmatch(token)
    if found is not None:
        create_time, wait_id = int(found[1]), int(found[2])
        if max(create_time, wait_id) <= LARGEST:
            return create_time, found[3], wait_id
    raise InvalidRequest({"page_token": "is not a next_page_token of ListWaits"})


def token_of(place: Place) -> str:
    """Return the token of the page behind a place."""
    create_time, run_id, wait_id = place
    return f"{create_time}.{wait_id}.{run_id}"


def shown(waits: Sequence[Wait]) -> Iterator[Wait]:
    """Yield as many waits as a response may hold, at least one."""
    size = 0
    for number, wait in enumerate(waits):
        size += wait.ByteSize()
        if number and size > PAGE_BYTES:
            return
        yield wait
