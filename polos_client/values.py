"""Values of messages as programs read them."""

from __future__ import annotations

from datetime import UTC
from typing import Any

from google.protobuf.timestamp_pb2 import Timestamp


def iso(time: Timestamp) -> str:
    """Return a time in ISO 8601, in UTC."""
    return time.ToDatetime(tzinfo=UTC).isoformat()


def enum_name(enum: Any, prefix: str, value: int) -> str:
    """Return the name of an enum's value in lower case without its prefix."""
    try:
        return str(enum.Name(value)).removeprefix(prefix).lower()
    except ValueError:  # of a later version
        return "unknown"
