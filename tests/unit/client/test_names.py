"""The fields that a service finds wrong have the names that Python gives them."""

from __future__ import annotations

import pytest

from polos_client.errors import InvalidRequest
from polos_client.names import in_python


@pytest.mark.parametrize(
    ("field", "name"),
    [
        ("payload_json", "payload"),
        ("payload_json.a[0]", "payload.a[0]"),
        ("input", "input"),
        ("input_messages_json[2].content", "input[2].content"),
        ("data_json", "data"),
        ("options.provider_options_json.min_p", "provider_kwargs.min_p"),
        ("options.initial_state_json", "initial_state"),
        ("options.timeout", "run_timeout_seconds"),
        ("options.deadlines.token_gap", "deadlines.token_gap"),
        ("options.session_id", "session_id"),
        ("request_id", "request_id"),
    ],
)
def test_a_field_is_named_as_in_python(field: str, name: str) -> None:
    error = in_python(InvalidRequest({field: "is empty"}))
    assert str(error) == f"{name} is empty"
    assert error.violations == {name: "is empty"}
