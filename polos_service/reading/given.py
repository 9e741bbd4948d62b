"""What a run was started with, out of its definition."""

from __future__ import annotations

import json

from polos.v1.run_pb2 import RunInput
from polos_service.agents.definition import conversation_of
from polos_service.errors import Unable
from polos_service.runs.preview import preview_of
from polos_service.workflows.definition import Definition as WorkflowDefinition


def input_of(pinned: bytes) -> RunInput | None:
    """Return the input in a definition; None if there is none, or this version cannot read it."""
    for read in (agent_input, workflow_input):
        try:
            return read(pinned)
        except (Unable, LookupError, TypeError, ValueError):
            continue
    return None


def agent_input(pinned: bytes) -> RunInput:
    """Return the conversation with an agent; one message of text is that text."""
    conversation = conversation_of(pinned)
    given = RunInput(preview=preview_of(conversation))
    match conversation:
        case [{"role": "user", "content": str(text), **others}] if not others:
            given.text = text
        case _:
            given.messages_json = json.dumps(
                conversation, ensure_ascii=False, separators=(",", ":")
            )
    return given


def workflow_input(pinned: bytes) -> RunInput | None:
    """Return the payload of a workflow; None if there is none."""
    payload = WorkflowDefinition.unpin(pinned).payload_json
    if payload is None:
        return None
    return RunInput(preview=preview_of(payload), payload_json=payload)
