"""`request_id=`: a program that repeats a start, after a crash for example, gets the same run."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest

from polos_client.budget import Budget
from polos_client.calls.client import PolosClient
from polos_client.define.agent import Agent
from polos_client.define.scripted import pause, turn
from polos_client.errors import InvalidRequest, RequestIdReused, RunCancelled
from tests.support.service import query, scripted, serving

FINE = scripted("fine", id="fine")
OTHER = scripted("other", id="other")
FOREVER = scripted(turn("half", pause()), id="forever")

Starting = Callable[..., Awaitable[str]]
"""Starts a run of an agent and returns its id."""


async def run(agent: Agent, client: PolosClient, input: str = "Go.", **more: Any) -> str:
    return (await agent.run(client, input, **more)).agent_run_id


async def stream(agent: Agent, client: PolosClient, input: str = "Go.", **more: Any) -> str:
    live = await agent.stream(client, input, **more)
    assert await live.text() == "fine"
    return live.id


async def invoke(agent: Agent, client: PolosClient, input: str = "Go.", **more: Any) -> str:
    return (await agent.invoke(client, {"input": input}, **more)).id


async def by_id(agent: Agent, client: PolosClient, input: str = "Go.", **more: Any) -> str:
    return (await client.invoke(agent.id, {"input": input}, **more)).id


@pytest.mark.parametrize("start", [run, stream, invoke, by_id])
async def test_the_same_id_and_arguments_are_the_same_run(tmp_path: Path, start: Starting) -> None:
    async with serving(tmp_path, FINE) as served:
        first = await start(FINE, served.client, request_id="é" * 128)
        assert await start(FINE, served.client, request_id="é" * 128) == first
        assert await start(FINE, served.client, request_id="another") != first
        assert await start(FINE, served.client) != await start(FINE, served.client)
        assert query(served.path, "SELECT count(*) FROM runs") == [(4,)]


@pytest.mark.parametrize("start", [run, stream, invoke, by_id])
async def test_the_same_id_with_other_arguments_is_refused(tmp_path: Path, start: Starting) -> None:
    async with serving(tmp_path, FINE, OTHER) as served:
        first = await start(FINE, served.client, request_id="once")
        with pytest.raises(RequestIdReused) as refused:
            await start(FINE, served.client, "Stop.", request_id="once")
        assert refused.value.metadata == {"request_id": "once", "run_id": first}
        with pytest.raises(RequestIdReused, match=r"other arguments: .* the budget"):
            await start(FINE, served.client, request_id="once", budget=Budget(tokens=7))
        with pytest.raises(RequestIdReused):
            await start(OTHER, served.client, request_id="once")


@pytest.mark.parametrize("start", [run, stream, invoke, by_id])
async def test_an_id_that_cannot_be_used_is_refused(tmp_path: Path, start: Starting) -> None:
    wrong: dict[Any, str] = {
        "x" * 129: "request_id has 129 characters; at most 128",
        "": "request_id is empty",
        7: "request_id must be a text, not 7",
    }
    async with serving(tmp_path, FINE) as served:
        for request_id, told in wrong.items():
            with pytest.raises(InvalidRequest, match=told):
                await start(FINE, served.client, request_id=request_id)
        assert query(served.path, "SELECT count(*) FROM runs") == [(0,)]


async def test_a_run_that_is_under_way_is_read_from_its_start(tmp_path: Path) -> None:
    async with serving(tmp_path, FOREVER) as served:
        first = await FOREVER.stream(served.client, "Go.", request_id="once")
        assert await anext(aiter(first.text_chunks)) == "half"
        again = await FOREVER.stream(served.client, "Go.", request_id="once")
        assert again.id == first.id
        assert await anext(aiter(again.text_chunks)) == "half"
        await served.client.cancel_execution(first.id)
        for stream in (first, again):
            with pytest.raises(RunCancelled):
                await stream.result()
