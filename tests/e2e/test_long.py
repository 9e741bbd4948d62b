"""`kill -9` of the service during answers of megabytes: they are whole, or said anew."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pytest

from polos import PolosClient, events
from tests.e2e.long_stream import replayed_and_recovered
from tests.e2e.stage import ASSISTANT, noted, service
from tests.support.long import LONG, filler
from tests.support.mock_answers import call, finish, say
from tests.support.mock_provider import MockProvider
from tests.support.nats import NatsServer
from tests.support.reader import assert_whole


@pytest.fixture
def address(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[str | None]:
    """Give the address of a store; None for a file."""
    if request.param == "sqlite":
        yield None
    else:
        with NatsServer(tmp_path) as server:
            yield server.url


@pytest.mark.parametrize(
    ("address", "letters", "count"),
    [("sqlite", "token", 20_000), ("nats", "\u6771\u4eac\u30bf\u30ef\u30fc", 1_000)],
    indirect=["address"],
)
async def test_a_long_stream_is_replayed_and_recovered(
    tmp_path: Path, provider: MockProvider, address: str | None, letters: str, count: int
) -> None:
    await replayed_and_recovered(tmp_path, provider, address, letters, count)


@pytest.mark.parametrize("address", ["sqlite", "nats"], indirect=True)
async def test_killed_after_a_long_answer_the_conversation_goes_on_as_it_was(
    tmp_path: Path, provider: MockProvider, address: str | None
) -> None:
    text, note = filler(LONG // 2), filler(LONG // 2)
    pieces = [text[at : at + 50_000] for at in range(0, len(text), 50_000)]
    jot = call("jot", {"text": note}, call_id="call_a", pieces=50)
    wait = call("wait", {}, call_id="call_b", index=1)
    provider.reply(say(*pieces), jot, wait, finish("tool_calls"))
    async with service(tmp_path, provider, address) as polos, PolosClient(polos.address) as client:
        handle = await ASSISTANT.invoke(client, {"input": "Go", "streaming": False})
        await noted(tmp_path, 2)
        await polos.kill()
        provider.reply(say("Done"))
        await polos.start()
        source = events.stream_workflow(client, workflow_run_id=handle.id)
        log = [event async for event in source]
        standing = await handle.get(client)
    assert_whole(log)
    (_, again) = provider.requests
    _, _, said, *results = again.body["messages"]
    assert said["content"] == text
    asked = [one["function"] for one in said["tool_calls"]]
    assert [one["name"] for one in asked] == ["jot", "wait"]
    assert json.loads(asked[0]["arguments"]) == {"text": note}
    assert [one["content"][:16] for one in results] == ["Error: The outpu", "waited"]
    assert standing["result"].result == "Done"
    inputs = {one.tool_name: one.input for one in standing["result"].tool_results}
    assert inputs == {"jot": {"text": note}, "wait": {}}
