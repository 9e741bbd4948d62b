"""The types of the `openai` package, as what is right."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from openai.types.responses.response_create_params import ResponseCreateParamsStreaming
from pydantic import TypeAdapter

_REQUEST: TypeAdapter[Any] = TypeAdapter(ResponseCreateParamsStreaming)


def assert_valid(body: Mapping[str, Any]) -> None:
    """Assert that a request has the types of the API, and no member that is not in it."""
    assert _walked(_REQUEST.validate_python(body)) == body


def _walked(value: Any) -> Any:
    """Return what was validated; lists are validated only while they are read."""
    if isinstance(value, dict):
        return {name: _walked(member) for name, member in value.items()}
    if isinstance(value, list | Iterator):
        return [_walked(member) for member in value]
    return value
