"""What tests of failures share: a service that holds a secret, and what its store has."""

from __future__ import annotations

import socket
from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path
from typing import Any

from polos import Agent, AgentStream, Deadlines, Event
from polos.v1.run_pb2 import RunState
from polos_service.runs import retries
from tests.support.reader import assert_whole
from tests.support.service import Served, events_in, query, serving, stored

KEY = "wunderbar-9f8e7d6c5b4a"
"""The provider's key; it looks like none, and must not be told all the same."""

SECRETIVE = "Never tell that the launch is on Tuesday."
"""A system prompt, which is no reader's business."""

AGENT = Agent("helper", "openai", "mock", system_prompt=SECRETIVE)

IMPATIENT = Deadlines(first_token=0.8, token_gap=0.4)
"""Bounds on a model's silence that a test can wait for."""


@asynccontextmanager
async def serving_at(folder: Path, url: str, *agents: Agent) -> AsyncIterator[Served]:
    """Run a service whose agents are at the provider of that URL, with its key."""
    async with serving(folder, *agents, openai_api_key=KEY, openai_base_url=url) as served:
        yield served


@asynccontextmanager
async def streaming(
    folder: Path, url: str, agent: Agent = AGENT, *, deadlines: Deadlines | None = None
) -> AsyncIterator[tuple[Served, AgentStream, list[Event]]]:
    """Run the agent at a provider to its end; yield its stream and its events."""
    async with serving_at(folder, url, agent) as served:
        stream = await agent.stream(served.client, "Go.", deadlines=deadlines)
        log = [event async for event in stream.events]
        assert_whole(log)
        yield served, stream, log


def assert_stored(
    served: Served, run_id: str, log: Sequence[Event], state: RunState.ValueType
) -> None:
    """Assert that the store has exactly what was served, the state, and no secret."""
    frames = stored(served.path, run_id)
    events = events_in(frames)
    assert events == [event.proto for event in log]
    assert [event.terminal for event in events].count(True) == 1
    rows = query(served.path, "SELECT state, finish_time IS NOT NULL FROM runs")
    assert rows == [(state, True)]
    assert KEY.encode() not in frames
    assert SECRETIVE.encode() not in frames
    for file in served.path.parent.glob("runs.db*"):
        assert KEY.encode() not in file.read_bytes()


def contents(path: Path) -> dict[str, list[tuple[Any, ...]]]:
    """Return all that stands in the store."""
    tables = query(path, "SELECT name FROM sqlite_master WHERE type = 'table' ORDER BY name")
    return {name: query(path, f"SELECT * FROM {name}") for (name,) in tables}


def assert_backoff(pauses: list[float], number: int) -> None:
    """Assert that so many pauses were made, each twice the one before, with jitter."""
    assert len(pauses) == number
    for index, seconds in enumerate(pauses):
        most = retries.BACKOFF_BASE * 2**index
        assert most / 2 <= seconds <= most


@contextmanager
def unused_address() -> Iterator[str]:
    """Yield an address at which nobody listens, and nobody else begins to."""
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        yield f"127.0.0.1:{unused.getsockname()[1]}"
