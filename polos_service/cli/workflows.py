"""`polos workflows`: the workflows that the service has loaded."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from polos_service.cli.output import print_json
from polos_service.cli.service import AsJson, Way, call, calls_service
from polos_service.cli.table import print_table

if TYPE_CHECKING:
    from polos.v1.agent_pb2 import Workflow

COLUMNS = ("WORKFLOW", "PAYLOAD", "VERSION", "DESCRIPTION")


@calls_service
def workflows(*, as_json: AsJson = False, way: Way) -> None:
    """List the served workflows by id; with `--json`, with the JSON Schema of their payloads."""
    found = list(map(as_dict, call(way, lambda client: client.list_workflows())))
    if as_json:
        for one in found:
            print_json(one)
        return
    print_table(COLUMNS, list(map(row_of, found)))


def as_dict(workflow: Workflow) -> dict[str, Any]:
    """Return the workflow; what has no value is absent."""
    from polos_client.event import parsed  # noqa: PLC0415 - protobuf: `--help` needs none

    shown: dict[str, Any] = {"workflow_id": workflow.workflow_id}
    if workflow.description:
        shown["description"] = workflow.description
    shown["code_version"] = workflow.code_version
    if workflow.HasField("payload_schema_json"):
        shown["payload"] = parsed(workflow.payload_schema_json)
    if workflow.HasField("state_schema_json"):
        shown["initial_state"] = parsed(workflow.state_schema_json)
    return shown


def row_of(workflow: dict[str, Any]) -> list[str]:
    """Return what `as_dict` made as a table's row, with the first line of the description."""
    payload = workflow.get("payload")
    kind = "-" if payload is None else payload.get("title", payload.get("type", "any"))
    description = workflow.get("description", "").partition("\n")[0]
    return [workflow["workflow_id"], kind, workflow["code_version"], description]
