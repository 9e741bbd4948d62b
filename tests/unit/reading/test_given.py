"""The input of a run, out of the definition that any version has stored."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from polos.v1.run_service_pb2 import CreateRunRequest
from polos_client.define.agent import Agent
from polos_client.define.context import WorkflowContext
from polos_client.define.scripted import script
from polos_client.define.tool import tool
from polos_client.define.workflow import workflow
from polos_service.agents.definition import Definition
from polos_service.api.grpc.requests import run_request
from polos_service.caller import ANONYMOUS
from polos_service.models.openai.form import messages_of
from polos_service.reading.given import input_of
from polos_service.workflows.definition import Definition as WorkflowDefinition

DATA = Path(__file__).parents[2] / "data" / "definitions"

PLAIN = Agent("plain", "scripted", script("Hello."))


@tool(approval="always")
async def pay() -> str:
    """Pay."""
    return "paid"


APPROVED = Agent("approved", "scripted", script("Hello."), tools=[pay])
SETTINGS = Agent("settings", "scripted", script("Hello."), provider_kwargs={"seed": 1})

MESSAGES = [
    {"role": "system", "content": "Be brief."},
    {"role": "user", "name": "Kim", "content": "First."},
    {
        "role": "assistant",
        "content": "Noted.",
        "tool_calls": [
            {"id": "c", "type": "function", "function": {"name": "f", "arguments": '{"a": 1}'}}
        ],
    },
    {"role": "tool", "tool_call_id": "c", "content": "rain"},
    {
        "role": "user",
        "content": [
            {"type": "text", "text": "What is\nthis?"},
            {"type": "image_url", "image_url": {"url": "data:image/png;base64,aGk="}},
        ],
    },
]


def pinned(agent: Agent, **fields: Any) -> bytes:
    """Return the definition of a run as it is stored."""
    request = run_request(ANONYMOUS, CreateRunRequest(agent_id=agent.id, **fields), "agent")
    conversation, wrong = messages_of(request.payload, agent.provider)
    assert not wrong
    return Definition.pin(agent, request, conversation).stored(request.payload)


@pytest.mark.parametrize("agent", [PLAIN, APPROVED, SETTINGS], ids=lambda one: one.id)
def test_a_text_is_given_as_it_was_sent(agent: Agent) -> None:
    given = input_of(pinned(agent, input=' "Go"\n now\x07. '))
    assert given is not None
    assert (given.WhichOneof("given"), given.text) == ("text", ' "Go"\n now\x07. ')
    assert given.preview == '"Go" now .'


@pytest.mark.parametrize("agent", [PLAIN, APPROVED, SETTINGS], ids=lambda one: one.id)
def test_messages_are_given_as_they_were_sent(agent: Agent) -> None:
    given = input_of(pinned(agent, input_messages_json=json.dumps(MESSAGES)))
    assert given is not None
    assert json.loads(given.messages_json) == MESSAGES
    assert given.preview == "What is this? [image]"


@pytest.mark.parametrize("path", sorted(DATA.glob("*.json")), ids=lambda path: path.stem)
def test_every_version_s_definition_tells_its_input(path: Path) -> None:
    given = input_of(path.read_bytes())
    assert given is not None
    first, *_ = json.loads(given.messages_json)
    assert first == {"role": "user", "content": "Weather in Tōkyō?"}
    assert given.preview


@workflow(id="order")
async def order(ctx: WorkflowContext, payload: dict[str, Any]) -> None:
    """Do nothing."""


@pytest.mark.parametrize("payload", ['{"item":\n "tea"}', "null", None])
def test_a_payload_is_given_as_it_was_sent(payload: str | None) -> None:
    sent = CreateRunRequest(agent_id="order", payload_json=payload)
    request = run_request(ANONYMOUS, sent, "workflow")
    given = input_of(WorkflowDefinition.pin(order, request).model_dump_json().encode())
    if payload is None:
        assert given is None
    else:
        assert given is not None
        assert (given.WhichOneof("given"), given.payload_json) == ("payload_json", payload)
        assert given.preview == " ".join(payload.split())


@pytest.mark.parametrize(
    "change",
    [
        {"messages": None},
        {"messages": 5},
        {"messages": ["\ud800"]},
        {"v": 2},
        {"v": 2, "conversation": {"v": 1, "messages": [{"role": "user", "parts": [{}]}]}},
        {"v": 99},
        {"kind": "later"},
    ],
)
def test_a_definition_that_cannot_be_read_tells_nothing(change: dict[str, Any]) -> None:
    stored = json.loads((DATA / "0.1.0.json").read_bytes())
    assert input_of(json.dumps(stored | change).encode()) is None


@pytest.mark.parametrize("lost", [b"", b"x", b"5", b"[]"])
def test_a_definition_that_is_lost_tells_nothing(lost: bytes) -> None:
    assert input_of(lost) is None
