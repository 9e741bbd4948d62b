"""A message as a stream has it, in the two forms in which JetStream answers."""

from __future__ import annotations

import base64
import re
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any

HEADER = b"NATS/1.0\r\n"

NUMBER = re.compile(r"[0-9]{1,19}")


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


def from_replica(data: bytes, headers: Mapping[str, str]) -> Stored | None:
    """Return the message of a stream that these headers describe; None if they do not.

    JetStream adds them to what a direct get brings, and to what a stream republishes, in
    place of any that the message's writer gave it.
    """
    subject, sequence = headers.get("Nats-Subject"), headers.get("Nats-Sequence", "")
    time = headers.get("Nats-Time-Stamp")
    if subject is None or time is None or not NUMBER.fullmatch(sequence):
        return None
    return Stored(subject=subject, sequence=int(sequence), data=data, headers=headers, time=time)


def headers_of(raw: bytes) -> dict[str, str]:
    """Return the headers of a message as the stream has them."""
    pairs = (line.partition(":") for line in raw.decode(errors="replace").split("\r\n") if line)
    return {name: value.strip() for name, _, value in pairs}


def seconds_of(time: str) -> float:
    """Return a message's time as seconds since the epoch."""
    return datetime.fromisoformat(time).timestamp()
