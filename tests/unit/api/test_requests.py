"""What is kept of a request that starts a run."""

from __future__ import annotations

import json
from pathlib import Path

from polos.v1.run_service_pb2 import CreateRunRequest, StreamRunRequest
from polos_service.api.grpc.requests import as_create, run_request
from polos_service.caller import Caller

CALLER = Caller(project="mine", principal="me", scopes=frozenset())

DIGEST_0_1_0 = "4288d5029733662844bd832c77cc214a2ed6b4f5c97f8c1e175f71d740e3cb7e"
"""What version 0.1.0 stored of the request below."""


def request() -> CreateRunRequest:
    """Return the request whose definition is among the data."""
    path = Path(__file__).parents[2] / "data" / "definitions" / "0.1.0.json"
    definition = json.loads(path.read_bytes())
    messages = json.dumps(definition["messages"])
    start = CreateRunRequest(
        agent_id="weather", input_messages_json=messages, request_id="r", streaming=True
    )
    start.options.session_id = "session-1"
    start.options.user_id = "user-1"
    start.options.initial_state_json = '{"unit": "celsius", "big": 123456789012345678901234567890}'
    start.options.provider_options_json = '{"seed": 7}'
    return start


def test_a_digest_is_what_version_0_1_0_made_of_the_same_request() -> None:
    assert run_request(CALLER, request()).digest.hex() == DIGEST_0_1_0


def test_a_digest_is_the_same_whatever_the_request_id_and_however_the_run_is_read() -> None:
    start = request()
    streamed = StreamRunRequest(
        agent_id=start.agent_id,
        input_messages_json=start.input_messages_json,
        options=start.options,
        request_id="another",
    )
    again = run_request(CALLER, as_create(streamed))
    assert again.digest.hex() == DIGEST_0_1_0
    start.options.user_id = "user-2"
    assert run_request(CALLER, start).digest.hex() != DIGEST_0_1_0


def test_a_request_becomes_a_value() -> None:
    value = run_request(CALLER, request())
    assert (value.caller, value.runnable_id, value.request_id) == (CALLER, "weather", "r")
    assert (value.session_id, value.user_id, value.streaming) == ("session-1", "user-1", True)
    assert [message["role"] for message in value.payload][:2] == ["user", "assistant"]
    assert (value.model_options, value.initial_state["unit"]) == ({"seed": 7}, "celsius")
    assert value.size == request().ByteSize()
    assert value.parent is None


def test_what_is_not_said_is_none() -> None:
    value = run_request(CALLER, CreateRunRequest(agent_id="demo", input="Go."))
    assert value.payload == [{"role": "user", "content": "Go."}]
    assert (value.session_id, value.user_id, value.request_id) == (None, None, None)
    assert (value.streaming, value.model_options, value.initial_state) == (False, {}, {})
    assert value.deadlines.run is None
