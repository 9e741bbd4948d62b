"""Waits as programs and people read them, and `polos waits`."""

from __future__ import annotations

import shlex
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Annotated, Any

import typer

from polos_service.cli.output import brief, json_of, print_json
from polos_service.cli.records import iso, span
from polos_service.cli.service import AsJson, Way, call, calls_service
from polos_service.cli.table import print_table

if TYPE_CHECKING:
    from google.protobuf.timestamp_pb2 import Timestamp

    from polos.v1.event_pb2 import Event, Resumed
    from polos.v1.run_pb2 import Wait
    from polos_client.calls.client import PolosClient

COLUMNS = ("RUN", "KEY", "WAIT", "KIND", "AGE", "EXPIRES", "QUESTION")

PAGE = 1000
"""Waits of a page at most, which the service sets."""

QUESTION = 120
"""Characters of a question that a list shows at most."""


@calls_service
def waits(
    *,
    workflow: Annotated[str, typer.Option(help="Only waits of this workflow or agent.")] = "",
    limit: Annotated[int, typer.Option(min=1, help="Maximum number of waits.")] = 20,
    everything: Annotated[bool, typer.Option("--all", help="List all waits.")] = False,
    as_json: AsJson = False,
    way: Way,
) -> None:
    """List what runs are waiting for: questions and approvals, oldest first.

    Answer them with `polos runs resume`, `polos runs approve` or `polos runs reject`.
    """
    found = call(way, lambda client: listed(client, workflow, None if everything else limit))
    if as_json:
        for wait in found:
            print_json(as_dict(wait))
        return
    now = datetime.now(UTC)
    print_table(COLUMNS, [row_of(wait, now) for wait in found])


async def listed(client: PolosClient, workflow: str, limit: int | None) -> list[Wait]:
    """Return open waits, the oldest first, at most `limit`."""
    from polos.v1.run_service_pb2 import ListWaitsRequest  # noqa: PLC0415 - slow for `--help`
    from polos.v1.run_service_pb2_grpc import RunServiceStub  # noqa: PLC0415

    found: list[Wait] = []
    request = ListWaitsRequest(workflow_id=workflow)
    while limit is None or len(found) < limit:
        request.page_size = PAGE if limit is None else min(limit - len(found), PAGE)
        page = await client.call(lambda channel: RunServiceStub(channel).ListWaits, request)
        found += page.waits
        if not page.next_page_token:
            break
        request.page_token = page.next_page_token
    return found


def wait_of(event: Event) -> Wait:
    """Return the wait that a `suspended` event begins."""
    from polos.v1.run_pb2 import Wait  # noqa: PLC0415 - protobuf: `--help` needs none

    told = event.suspended
    wait = Wait(
        run_id=event.run_id,
        step_key=told.step_key,
        wait_id=event.sequence,
        kind=told.kind,
        data_json=told.data_json,
        workflow_id=event.workflow_id,
    )
    wait.create_time.CopyFrom(event.create_time)
    if told.HasField("expire_time"):
        wait.expire_time.CopyFrom(told.expire_time)
    return wait


def kind_name(kind: int) -> str:
    """Return what a wait is for; "unknown" if a later version of the service says it."""
    from polos.v1.event_pb2 import WaitKind  # noqa: PLC0415 - protobuf: `--help` needs none

    try:
        return WaitKind.Name(kind).removeprefix("WAIT_KIND_").lower()  # type: ignore[arg-type]
    except ValueError:
        return "unknown"


def as_dict(wait: Wait) -> dict[str, Any]:
    """Return the wait; what has no value is absent."""
    from polos_client.event import parsed  # noqa: PLC0415 - protobuf: `--help` needs none

    shown = {
        "run_id": wait.run_id,
        "workflow_id": wait.workflow_id,
        "step_key": wait.step_key,
        "wait_id": wait.wait_id,
        "kind": kind_name(wait.kind),
        "data": parsed(wait.data_json) if wait.data_json else None,
        "created_at": iso(wait.create_time),
        "expires_at": iso(wait.expire_time) if wait.HasField("expire_time") else None,
    }
    return {name: value for name, value in shown.items() if value is not None}


def row_of(wait: Wait, now: datetime) -> list[str]:
    """Return the wait as a table's row."""
    age = span(now - wait.create_time.ToDatetime(tzinfo=UTC))
    until = local(wait.expire_time) if wait.HasField("expire_time") else ""
    kind = kind_name(wait.kind)
    return [wait.run_id, wait.step_key, str(wait.wait_id), kind, age, until, question(wait)]


def data_of(wait: Wait) -> dict[str, Any]:
    """Return what is shown to whoever answers; empty unless it is an object."""
    from polos_client.event import parsed  # noqa: PLC0415 - protobuf: `--help` needs none

    data = parsed(wait.data_json)
    return data if isinstance(data, dict) else {}


def form_of(wait: Wait) -> dict[str, Any]:
    """Return the form that describes the answer; empty if there is none."""
    form = data_of(wait).get("_form")
    return form if isinstance(form, dict) else {}


def approved_call(wait: Wait) -> tuple[str, Any]:
    """Return the tool that an approval is about, and its input."""
    context = form_of(wait).get("context")
    context = context if isinstance(context, dict) else {}
    return str(context.get("tool", "unknown")), context.get("input", {})


def question(wait: Wait, most: int = QUESTION) -> str:
    """Return on a line what is asked; empty for a timer, and where nothing is told."""
    if kind_name(wait.kind) == "approval":
        tool, given = approved_call(wait)
        return brief(f"{tool}({json_of(given)})", most)
    form = form_of(wait)
    told = [one for name in ("title", "description") if isinstance(one := form.get(name), str)]
    plain = {name: value for name, value in data_of(wait).items() if not name.startswith("_")}
    return brief(": ".join(filter(None, told)) or (json_of(plain) if plain else ""), most)


def asks(wait: Wait, *, until: bool = True) -> str:
    """Return on a line what a wait is for, and with `until` how long it may take."""
    limited = until and wait.HasField("expire_time")
    limit = [f"until {local(wait.expire_time)}"] if limited else []
    asked = question(wait)
    match kind_name(wait.kind):
        case "timer":
            told = "waits"
        case "run":
            told = f"waits for the run {data_of(wait).get('run_id', '')}"
        case "approval":
            told = f"waits for approval: {asked}"
        case _:
            told = f"waits for an answer: {asked}" if asked else "waits for an answer"
    return " · ".join([wait.step_key, told, *limit])


def ending_of(resumed: Resumed) -> str:
    """Return on a line how a wait ended, and who answered what."""
    match resumed.WhichOneof("outcome"):
        case None:
            return "the time has come"
        case "expired":
            ran = kind_name(resumed.kind) == "run"
            return "it has not ended in time" if ran else "nobody answered in time"
        case "cancelled":
            return "no longer waited for"
    by = f" by {resumed.principal}" if resumed.principal else ""
    late = "no longer waited for, but " if resumed.given_up else ""
    if kind_name(resumed.kind) == "run":
        return f"{late}it has ended: {brief(resumed.data_json)}"
    if kind_name(resumed.kind) == "approval":
        return late + decision(resumed.data_json, by)
    return f"{late}answered{by}: {brief(resumed.data_json)}"


def decision(data_json: str, by: str) -> str:
    """Return on a line how an approval was answered."""
    from polos_client.event import parsed  # noqa: PLC0415 - protobuf: `--help` needs none

    data = parsed(data_json)
    data = data if isinstance(data, dict) else {}
    told = f"approved{by}" if data.get("approved") is True else f"rejected{by}"
    if "arguments" in data:
        told += f" with changed arguments {brief(json_of(data['arguments']))}"
    return f"{told}: {brief(str(data['feedback']))}" if data.get("feedback") else told


def how_to_answer(wait: Wait, way: Way) -> str:
    """Return the command that answers a wait from elsewhere."""
    key = wait.step_key
    is_argument = key.isprintable() and not key.startswith("-")
    end = shlex.join([wait.run_id, *([key] if is_argument else ["--wait-id", str(wait.wait_id)])])
    flags = f" {way.flags()}".rstrip()
    if kind_name(wait.kind) == "approval":
        return f"Answer with: polos runs approve {end}{flags} (or reject)"
    return f"Answer with: polos runs resume {end} --data JSON{flags}"


def local(time: Timestamp) -> str:
    """Return a time by the clock of this machine, to the second."""
    return time.ToDatetime(tzinfo=UTC).astimezone().strftime("%Y-%m-%d %H:%M:%S %Z")
