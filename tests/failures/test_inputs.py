"""What the client refuses by itself: before anything is sent, or where it is defined."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import pytest

from polos import Agent, Deadlines, DefinitionError, InvalidRequest, PolosClient, tool
from polos_client.wire import MEDIA_COUNT
from tests.support.service import query, scripted, serving

FINE = scripted("fine", id="fine")
BIG = "x" * (1024 * 1024 + 1)

CLIENT_SIDE: dict[str, tuple[Any, str]] = {
    "empty": ("", "input is empty"),
    "no messages": ([], "input is empty"),
    "over the limit": (BIG, "input has 1048577 bytes; at most 1048576 are taken"),
    "messages over the limit": (
        [{"role": "user", "content": BIG}],
        "input has 1048607 bytes; at most 1048576 are taken" + MEDIA_COUNT,
    ),
    "nothing": (None, "input must be a string or a list of messages, not NoneType"),
    "bytes": (b"Go.", "input must be a string or a list of messages, not bytes"),
    "one message": (
        {"role": "user", "content": "Go."},
        "input must be a string or a list of messages, not dict",
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
    "no content": (
        [{"role": "user"}],
        (
            'input[0] must be a dict like {"role": "user", "content": "Hello"}, '
            "not {'role': 'user'}"
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


WRONG: dict[str, tuple[dict[str, Any], str]] = {
    "a number as session": ({"session_id": 5}, "session_id must be a text, not 5"),
    "half a character": (
        {"session_id": "\ud800"},
        "session_id is not valid Unicode text: surrogates not allowed",
    ),
    "a list as user": ({"user_id": []}, "user_id must be a text, not []"),
    "a text as timeout": (
        {"timeout": "5"},
        "timeout is '5'; it must be a number of seconds above 0, or None",
    ),
    "a negative timeout": (
        {"timeout": -1},
        "timeout is -1; it must be a number of seconds above 0, or None",
    ),
    "a name of stream": (
        {"run_timeout_seconds": 5},
        "run_timeout_seconds is not known here; pass timeout=5",
    ),
}


@pytest.mark.parametrize("name", WRONG)
async def test_an_argument_that_cannot_be_used_is_refused_and_starts_nothing(
    name: str, tmp_path: Path
) -> None:
    options, message = WRONG[name]
    async with serving(tmp_path, FINE) as served:
        with pytest.raises(InvalidRequest) as raised:
            await FINE.run(served.client, "Go.", **options)
        assert query(served.path, "SELECT count(*) FROM runs") == [(0,)]
    assert str(raised.value) == message


async def test_a_stream_refuses_the_timeout_of_run() -> None:
    wanted = r"^timeout is not known here; pass run_timeout_seconds=5$"
    with pytest.raises(InvalidRequest, match=wanted):
        await FINE.stream(PolosClient("127.0.0.1:1"), "Go.", timeout=5)


async def test_swapped_arguments_are_named() -> None:
    swapped: Any = ("Go.", PolosClient("127.0.0.1:1"))
    for start in (FINE.run, FINE.stream):
        with pytest.raises(InvalidRequest) as raised:
            await start(*swapped)
        assert str(raised.value) == (
            "client must be a PolosClient, not 'Go.'; it is the first argument"
        )


async def test_a_payload_that_is_no_dict_is_refused() -> None:
    payload: Any = "Go."
    with pytest.raises(InvalidRequest) as raised:
        await FINE.invoke(PolosClient("127.0.0.1:1"), payload)
    assert str(raised.value) == 'payload must be a dict like {"input": "Hello"}, not str'


@pytest.mark.parametrize(
    "address",
    [
        "localhost",
        "grpc://here:1",
        50051,
        "::1:1",
        "here:",
        ":1",
        "a b:1",
        "here:99999",
    ],
)
def test_what_is_no_address_is_refused_at_once(address: Any) -> None:
    with pytest.raises(DefinitionError) as raised:
        PolosClient(address)
    told = f"the address {address!r} must be HOST:PORT, or a URL like https://HOST:PORT"
    assert str(raised.value) == told


@pytest.mark.parametrize(
    "address", ["localhost:1", "[::1]:50051", "unix:polos.sock", "unix:///tmp/a", "dns:///here:1"]
)
def test_every_form_of_an_address_is_taken(address: str) -> None:
    assert PolosClient(address).address == address


async def test_a_state_that_is_no_dict_is_refused(tmp_path: Path) -> None:
    async with serving(tmp_path, FINE) as served:
        state: Any = ["a"]
        with pytest.raises(
            InvalidRequest, match=r"^initial_state must be a dict or a pydantic model, not list$"
        ):
            await FINE.run(served.client, "Go.", initial_state=state)
        assert query(served.path, "SELECT count(*) FROM runs") == [(0,)]


def test_a_deadline_that_is_no_number_is_refused() -> None:
    wrong: Any = "5"
    with pytest.raises(DefinitionError, match=r"^the deadline run='5' must be from 0\.001 to "):
        Deadlines(run=wrong)


def test_what_is_no_tool_is_refused_where_the_agent_is_defined() -> None:
    def add(a: int, b: int) -> int:
        return a + b

    tools: Any = [add]
    with pytest.raises(DefinitionError) as raised:
        Agent("helper", "openai", "mock", tools=tools)
    assert str(raised.value) == "add is a plain function: put @tool on it"


def test_two_tools_with_one_id_are_refused_where_the_agent_is_defined() -> None:
    @tool(id="add")
    def first(a: int) -> int:
        return a

    @tool(id="add")
    def second(a: int) -> int:
        return a

    with pytest.raises(DefinitionError) as raised:
        Agent("helper", "openai", "mock", tools=[first, second])
    assert str(raised.value) == (
        "two tools have the id 'add': give one @tool(id=...), or agent.as_tool(id=...)"
    )
