"""Bounds of what an event holds, and of what waits. Values are checked where they enter."""

from __future__ import annotations

EVENT_LIMIT = 512 * 1024
"""Bytes of an encoded event at most: one bound for every store."""

OUTPUT_LIMIT = 480 * 1024
"""Bytes of a step's output, and of its private part; leaves room in an event for the rest. What a
model says beyond that stands in several events."""

PIECE_LIMIT = 256 * 1024
"""Bytes of a piece of what exceeds one event, of a private line that is such a piece, and of the
arguments of a tool call in one event."""

MESSAGE_LIMIT = 4096
"""Characters of a failure's message that are kept."""

CALLS_LIMIT = 128
"""Tool calls in one answer of a model."""

NAME_LIMIT = 256
"""Bytes of a name from outside, for example of a tool that a model asks for."""

ID_LIMIT = 8 * 1024
"""Bytes of an id from outside: some gateways put a model's state into the id of a call."""

KEY_LIMIT = 1024
"""Bytes of a step's key: each event of a child has that of the step which began the child."""

MAX_QUEUED = 10_000
"""Runs that may be queued if the settings say nothing else: more would wait for hours."""
