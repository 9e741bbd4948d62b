"""What the client refuses by itself: before anything is sent, or where it is defined."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import pytest

from polos import Agent, DefinitionError, InvalidRequest, PolosClient, tool
from tests.support.service import query, scripted, serving

FINE = scripted("fine", id="fine")
BIG = "x" * (1024 * 1024 + 1)

CLIENT_SIDE: dict[str, tuple[Any, str]] = {
    "empty": ("", "input is empty"),
    "no messages": ([], "input is empty"),
    "over the limit": (BIG, "input has 1048577 bytes; at most 1048576 are taken"),
    "messages over the limit": (
        [{"role": "user", "content": BIG}],
        "input has 1048607 bytes; at most 1048576 are taken",
    ),
    "nothing": (None, "input must be a text or a list of messages, not NoneType"),
    "bytes": (b"Go.", "input must be a text or a list of messages, not bytes"),
    "one message": (
        {"role": "user", "content": "Go."},
        "input must be a text or a list of messages, not dict",
    ),
    "texts": (
        ["Go."],
        'input[0] must be a dict like {"role": "user", "content": "Hello"}, not \'Go.\'',
    ),
    "no role": (
        [{"role": "user", "content": "Go."}, {"content": "Go."}],
        (
            'input[1] must be a dict like {"role": "user", "content": "Hello"}, '
            "not {'content': 'Go.'}"
        ),
    ),
    "no JSON": (
        [{"role": "user", "content": {1}}],
        "input cannot be written as JSON: Object of type set is not JSON serializable",
    ),
}


@pytest.mark.parametrize("name", CLIENT_SIDE)
async def test_an_input_that_cannot_be_taken_is_refused_before_anything_is_sent(name: str) -> None:
    value, message = CLIENT_SIDE[name]
    connections = 0

    def accept(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        nonlocal connections
        connections += 1
        writer.close()

    server = await asyncio.start_server(accept, "127.0.0.1", 0)
    address = f"127.0.0.1:{server.sockets[0].getsockname()[1]}"
    async with server, PolosClient(address) as client:
        for start in (
            lambda: FINE.run(client, value),
            lambda: FINE.stream(client, value),
            lambda: FINE.invoke(client, {"input": value}),
        ):
            with pytest.raises(InvalidRequest) as raised:
                await start()
            assert str(raised.value) == message
        assert connections == 0


async def test_a_state_that_is_no_dict_is_refused(tmp_path: Path) -> None:
    async with serving(tmp_path, FINE) as served:
        state: Any = ["a"]
        with pytest.raises(InvalidRequest, match=r"^initial_state must be a dict, not list$"):
            await FINE.run(served.client, "Go.", initial_state=state)
        assert query(served.path, "SELECT count(*) FROM runs") == [(0,)]


def test_what_is_no_tool_is_refused_where_the_agent_is_defined() -> None:
    def add(a: int, b: int) -> int:
        return a + b

    tools: Any = [add]
    with pytest.raises(DefinitionError) as raised:
        Agent("helper", "openai", "mock", tools=tools)
    assert str(raised.value) == f"{add!r} is not a tool: put @tool on the function"


def test_two_tools_with_one_id_are_refused_where_the_agent_is_defined() -> None:
    @tool(id="add")
    def first(a: int) -> int:
        return a

    @tool(id="add")
    def second(a: int) -> int:
        return a

    with pytest.raises(DefinitionError) as raised:
        Agent("helper", "openai", "mock", tools=[first, second])
    assert str(raised.value) == "two tools have the id 'add': give one @tool(id=...)"
