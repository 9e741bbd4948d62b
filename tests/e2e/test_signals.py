"""SIGTERM and Ctrl-C: the service leaves cleanly, and its readers come back to the next one."""

from __future__ import annotations

import asyncio
import signal
from pathlib import Path

import pytest

from polos import PolosClient
from polos_client.calls import connection as connection_module
from tests.e2e.stage import ASSISTANT, noted, notes, service
from tests.support.mock_answers import call, hold, say
from tests.support.mock_provider import MockProvider
from tests.support.process import PATIENCE
from tests.support.reader import Events, Reader, assert_whole, kinds, texts

STOP = pytest.mark.parametrize("stop", [signal.SIGTERM, signal.SIGINT], ids=lambda one: one.name)


@STOP
async def test_stopped_while_idle_it_ends_at_once_and_says_nothing_else(
    stop: signal.Signals, tmp_path: Path, provider: MockProvider
) -> None:
    env = {"POLOS_GRACE": "3600", "POLOS_LOG_LEVEL": "warning"}
    async with service(tmp_path, provider, **env) as polos:
        printed = len(polos.lines)
        polos.send(stop)
        assert await polos.ended() == 0
        assert len(polos.lines) == printed + 1
        assert polos.lines[-1].startswith("Stopping.")


@STOP
async def test_stopped_in_the_middle_of_an_answer_a_reader_goes_on_at_the_next_process(
    stop: signal.Signals, tmp_path: Path, provider: MockProvider
) -> None:
    provider.reply(call("jot", {"text": "milk"}))
    provider.reply(say("Half"), hold(asyncio.Event()))
    env = {"POLOS_GRACE": "0.1"}
    async with service(tmp_path, provider, **env) as polos, PolosClient(polos.address) as client:
        stream = await ASSISTANT.stream(client, "Note milk")
        async with Events(stream.events) as read, Reader(stream.text_chunks) as chunks:
            await read.said("Half")
            await chunks.saw(lambda chunk: chunk == "Half")
            polos.send(stop)
            assert await polos.ended() == 0
            provider.reply(say("Whole"))
            await polos.start()
            log = await read.all()
            told = await chunks.all()
        text = await stream.text()
    assert_whole(log)
    assert texts(log) == ["Half", "Whole"]
    assert [(str(chunk), chunk.reset) for chunk in told] == [
        ("Half", False),
        ("", True),
        ("Whole", False),
    ]
    assert text == "Whole"
    assert len(notes(tmp_path)) == 1
    assert "Traceback" not in polos.output


async def test_stopping_closes_the_connection_to_the_model(
    tmp_path: Path, provider: MockProvider
) -> None:
    provider.reply(say("Half"), hold(asyncio.Event()))
    env = {"POLOS_GRACE": "0.1"}
    async with service(tmp_path, provider, **env) as polos, PolosClient(polos.address) as client:
        stream = await ASSISTANT.stream(client, "Go")
        async with Events(stream.events) as read:
            await read.said("Half")
            polos.send(signal.SIGTERM)
            assert await polos.ended() == 0
    await asyncio.wait_for(provider.requests[0].disconnected.wait(), PATIENCE)


@STOP
async def test_a_run_that_ends_in_the_grace_time_is_read_to_its_end(
    stop: signal.Signals, tmp_path: Path, provider: MockProvider
) -> None:
    release = asyncio.Event()
    provider.reply(say("One"), hold(release), say(" two"))
    env = {"POLOS_GRACE": "3600"}
    async with service(tmp_path, provider, **env) as polos, PolosClient(polos.address) as client:
        stream = await ASSISTANT.stream(client, "Go")
        async with Events(stream.events) as read:
            await read.said("One")
            polos.send(stop)
            await polos.said("^Stopping")
            release.set()
            log = await read.all()
        assert await polos.ended() == 0
    assert_whole(log)
    assert texts(log) == ["One", " two"]
    assert "step_retry" not in kinds(log)


async def test_a_start_is_refused_while_it_stops_and_reaches_the_next_process(
    tmp_path: Path, provider: MockProvider, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(connection_module, "PATIENCE", PATIENCE)
    release = asyncio.Event()
    provider.reply(say("One"), hold(release))
    env = {"POLOS_GRACE": "3600"}
    async with service(tmp_path, provider, **env) as polos, PolosClient(polos.address) as client:
        first = await ASSISTANT.stream(client, "First")
        async with Events(first.events) as read:
            await read.said("One")
            polos.send(signal.SIGTERM)
            await polos.said("^Stopping")
            second = asyncio.create_task(ASSISTANT.stream(client, "Second"))
            release.set()
            await read.all()
            assert await polos.ended() == 0
            provider.reply(say("Two"))
            await polos.start()
            stream = await asyncio.wait_for(second, PATIENCE)
            assert await stream.text() == "Two"
    assert [request.body["messages"][-1]["content"] for request in provider.requests] == [
        "First",
        "Second",
    ]


@STOP
@pytest.mark.parametrize("tool", ["wait", "block", "resist"])
async def test_a_second_signal_stops_at_once(
    stop: signal.Signals, tool: str, tmp_path: Path, provider: MockProvider
) -> None:
    provider.reply(call(tool, {}))
    env = {"POLOS_GRACE": "3600"}
    async with service(tmp_path, provider, **env) as polos, PolosClient(polos.address) as client:
        await ASSISTANT.invoke(client, {"input": "Go"})
        await noted(tmp_path)
        polos.send(stop)
        await polos.said("^Stopping")
        polos.send(stop)
        assert await polos.ended() == -stop
    assert "Traceback" not in polos.output


async def test_a_tool_that_does_not_give_in_keeps_nobody_from_leaving(
    tmp_path: Path, provider: MockProvider
) -> None:
    provider.reply(call("resist", {}))
    env = {"POLOS_GRACE": "0.1"}
    async with service(tmp_path, provider, **env) as polos, PolosClient(polos.address) as client:
        await ASSISTANT.invoke(client, {"input": "Go"})
        await noted(tmp_path)
        polos.send(signal.SIGTERM)
        assert await polos.ended() == 0
    assert "Traceback" not in polos.output
