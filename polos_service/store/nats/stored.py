"""A message as a stream has it, in the two forms in which JetStream answers."""

from __future__ import annotations

import base64
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from nats.aio.msg import Msg

HEADER = b"NATS/1.0\r\n"


@dataclass(frozen=True, kw_only=True, slots=True)
class Stored:
    """A message of a stream. `sequence` is the stream's number for it."""

    subject: str
    sequence: int
    data: bytes
    headers: Mapping[str, str]
    time: str


def from_leader(message: Mapping[str, Any]) -> Stored:
    """Return the message that a stream's leader answered with, as JSON."""
    raw = base64.b64decode(message.get("hdrs", "")).removeprefix(HEADER)
    return Stored(
        subject=message["subject"],
        sequence=message["seq"],
        data=base64.b64decode(message.get("data", "")),
        headers=headers_of(raw),
        time=message["time"],
    )


def from_replica(message: Msg, headers: Mapping[str, str]) -> Stored:
    """Return the message of a stream that a direct get brought."""
    return Stored(
        subject=headers["Nats-Subject"],
        sequence=int(headers["Nats-Sequence"]),
        data=message.data,
        headers=headers,
        time=headers["Nats-Time-Stamp"],
    )


def headers_of(raw: bytes) -> dict[str, str]:
    """Return the headers of a message as the stream has them."""
    pairs = (line.partition(":") for line in raw.decode(errors="replace").split("\r\n") if line)
    return {name: value.strip() for name, _, value in pairs}


def seconds_of(time: str) -> float:
    """Return a message's time as seconds since the epoch."""
    return datetime.fromisoformat(time).timestamp()
