"""`kill -9` of the service at any time: readers only iterate, and miss and repeat nothing."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import pytest

from polos import AgentStream, PolosClient, events
from polos_client.calls import connection as connection_module
from tests.e2e.stage import ASSISTANT, noted, notes, service
from tests.support.mock_answers import call, hold, say
from tests.support.mock_provider import MockProvider
from tests.support.process import PATIENCE
from tests.support.reader import Events, Reader, assert_whole, kinds, texts


async def test_killed_in_the_middle_of_an_answer_every_reader_has_all_of_it_once(
    tmp_path: Path, provider: MockProvider
) -> None:
    provider.reply(say("Noting. "), call("jot", {"text": "milk"}))
    provider.reply(say("Half of ", "the answer"), hold(asyncio.Event()))
    async with service(tmp_path, provider) as polos, PolosClient(polos.address) as client:
        stream = await ASSISTANT.stream(client, "Note milk")
        async with (
            Events(stream.events) as read,
            Reader(stream.text_chunks) as chunks,
            asyncio.TaskGroup() as waiting,
        ):
            text = waiting.create_task(stream.text())
            result = waiting.create_task(stream.result())
            await read.said("the answer")
            await chunks.saw(lambda chunk: chunk == "the answer")

            await polos.kill()
            provider.reply(say("The whole", " answer"))
            await polos.start()

            log = await read.all()
            told = await chunks.all()
        again = [event async for event in stream.events]

    assert_whole(log)
    assert [event.data for event in again] == [event.data for event in log]
    assert texts(log) == ["Noting. ", "Half of ", "the answer", "The whole", " answer"]
    assert [(str(chunk), chunk.reset) for chunk in told] == [
        ("Noting. ", False),
        ("Half of ", False),
        ("the answer", False),
        ("", True),
        ("The whole", False),
        (" answer", False),
    ]
    assert text.result() == "Noting. The whole answer"
    assert result.result().result == "The whole answer"
    assert [one.result for one in result.result().tool_results] == ["MILK"]
    assert len(notes(tmp_path)) == 1
    (retry,) = [event for event in log if event.event_type == "step_retry"]
    assert retry.data["step_key"] == "llm:2"
    assert (retry.data["attempt"], retry.data["reason"]) == (2, "process_restarted")


async def test_the_model_is_asked_again_with_the_conversation_as_it_stood(
    tmp_path: Path, provider: MockProvider
) -> None:
    provider.reply(call("jot", {"text": "milk"}))
    provider.reply(say("Half"), hold(asyncio.Event()))
    async with service(tmp_path, provider) as polos, PolosClient(polos.address) as client:
        stream = await ASSISTANT.stream(client, "Note milk", temperature=0.5)
        async with Events(stream.events) as read:
            await read.said("Half")
            await polos.kill()
            provider.reply(say("Whole"))
            await polos.start()
            await read.all()
    before, again = provider.requests[1:]
    assert again.body == before.body
    assert again.body["temperature"] == 0.5
    assert [message["role"] for message in again.body["messages"]] == [
        "system",
        "user",
        "assistant",
        "tool",
    ]


async def test_what_a_provider_wants_back_survives_a_kill(
    tmp_path: Path, provider: MockProvider
) -> None:
    signed = {"extra_content": {"google": {"thought_signature": "s"}}}
    function = {"name": "jot", "arguments": '{"text": "milk"}'}
    conversation: list[dict[str, Any]] = [
        {"role": "user", "content": "Note milk"},
        {
            "role": "assistant",
            "content": "",
            "reasoning": "Milk.",
            "reasoning_details": [{"type": "reasoning.text", "signature": "t"}],
            "tool_calls": [{"id": "call_b", "type": "function", "function": function, **signed}],
        },
        {"role": "tool", "tool_call_id": "call_b", "content": "MILK"},
        {
            "role": "user",
            "content": [
                {"type": "text", "text": "And this"},
                {"type": "image_url", "image_url": {"url": "https://example.org/bread.png"}},
            ],
        },
    ]
    provider.reply(call("wait", {}))
    async with service(tmp_path, provider) as polos, PolosClient(polos.address) as client:
        stream = await ASSISTANT.stream(client, conversation)
        await noted(tmp_path)
        await polos.kill()
        provider.reply(say("Noted"))
        await polos.start()
        assert await stream.text() == "Noted"
    before, after = (request.body["messages"][1:] for request in provider.requests)
    assert before == conversation
    assert after[: len(before)] == before


@pytest.mark.parametrize(("tool", "returns"), [("wait", "waited"), ("block", "blocked")])
async def test_killed_while_a_tool_runs_it_runs_again_with_the_same_idempotency_key(
    tmp_path: Path, provider: MockProvider, tool: str, returns: str
) -> None:
    provider.reply(call(tool, {}))
    async with service(tmp_path, provider) as polos, PolosClient(polos.address) as client:
        stream = await ASSISTANT.stream(client, "Go")
        async with Events(stream.events) as read:
            await noted(tmp_path)
            await polos.kill()
            provider.reply(say("Done"))
            await polos.start()
            log = await read.all()
        result = await stream.result()
    assert_whole(log)
    key = f"{stream.id}/{tool}"
    assert notes(tmp_path) == [f"1 {key}", f"2 {key}"]
    assert kinds(log).count("step_retry") == 1
    finish = next(e for e in log if e.event_type == "step_finish" and e.data["step_key"] == tool)
    assert finish.data["attempt"] == 2
    assert finish.data["data"] == {"result": returns}
    assert [one.result for one in result.tool_results] == [returns]
    assert result.result == "Done"


async def test_a_tool_has_its_start_on_disk_before_it_runs(
    tmp_path: Path, provider: MockProvider
) -> None:
    provider.reply(call("wait", {}))
    async with service(tmp_path, provider) as polos, PolosClient(polos.address) as client:
        handle = await ASSISTANT.invoke(client, {"input": "Go", "streaming": False})
        await noted(tmp_path)
        await polos.kill()
        provider.reply(say("Done"))
        await polos.start()
        source = events.stream_workflow(client, workflow_run_id=handle.id)
        log = [event async for event in source]
    steps = [(e.event_type, e.data.get("step_key"), e.data.get("attempt")) for e in log]
    assert steps.index(("step_start", "wait", 1)) < steps.index(("step_retry", "wait", 2))


async def test_killed_while_queued_it_runs_after_those_before_it(
    tmp_path: Path, provider: MockProvider
) -> None:
    provider.reply(say("Half"), hold(asyncio.Event()))
    limits = {"POLOS_MAX_RUNS": "1"}
    async with service(tmp_path, provider, **limits) as polos, PolosClient(polos.address) as client:
        first = await ASSISTANT.stream(client, "First")
        async with Events(first.events) as running:
            await running.said("Half")
            second = await ASSISTANT.stream(client, "Second")
            assert (await second.get())["status"] == "queued"
            async with Events(second.events) as queued:
                await polos.kill()
                provider.reply(say("First"))
                provider.reply(say("Second"))
                await polos.start()
                logs = await running.all(), await queued.all()
    for log in logs:
        assert_whole(log)
    assert [texts(log) for log in logs] == [["Half", "First"], ["Second"]]
    assert "step_retry" not in kinds(logs[1])


async def test_killed_right_after_the_start_the_run_is_on_disk(
    tmp_path: Path, provider: MockProvider
) -> None:
    starts = 2
    for _ in range(starts * (starts + 1)):  # each run may be asked for by each process
        provider.reply(say("Gone"))
    async with service(tmp_path, provider) as polos, PolosClient(polos.address) as client:
        streams: list[AgentStream] = []
        for number in range(starts):  # each time the run has come as far as it has
            streams.append(await ASSISTANT.stream(client, f"Go {number}"))
            await polos.kill()
            await polos.start()
        logs = [[event async for event in stream.events] for stream in streams]
        answers = [await stream.text() for stream in streams]
    for log in logs:
        assert_whole(log)
        assert kinds(log).count("agent_start") == 1
    assert answers == ["Gone"] * starts


async def test_a_start_while_nobody_listens_reaches_the_next_process_once(
    tmp_path: Path, provider: MockProvider, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(connection_module, "PATIENCE", PATIENCE)
    provider.reply(say("Here"))
    async with service(tmp_path, provider) as polos, PolosClient(polos.address) as client:
        await polos.kill()
        starting = asyncio.create_task(ASSISTANT.stream(client, "Go"))
        await polos.start()
        stream = await asyncio.wait_for(starting, PATIENCE)
        assert await stream.text() == "Here"
    assert len(provider.requests) == 1


async def test_killed_again_and_again_a_log_stays_dense(
    tmp_path: Path, provider: MockProvider
) -> None:
    kills = 2
    provider.reply(say("Attempt 1"), hold(asyncio.Event()))
    async with service(tmp_path, provider) as polos, PolosClient(polos.address) as client:
        stream = await ASSISTANT.stream(client, "Go")
        async with Events(stream.events) as read, Reader(stream.text_chunks) as chunks:
            for number in range(1, kills + 1):
                await read.said(f"Attempt {number}")
                await polos.kill()
                ending = [hold(asyncio.Event())] if number < kills else []
                provider.reply(say(f"Attempt {number + 1}"), *ending)
                await polos.start()
            log = await read.all()
            told = await chunks.all()
        text = await stream.text()
    assert_whole(log)
    assert kinds(log).count("step_retry") == kills
    assert [chunk.reset for chunk in told] == [False, True] * kills + [False]
    assert text == f"Attempt {kills + 1}"


async def test_a_finished_run_is_read_as_it_was_after_a_kill(
    tmp_path: Path, provider: MockProvider
) -> None:
    provider.reply(say("All ", "said"))
    async with service(tmp_path, provider) as polos, PolosClient(polos.address) as client:
        stream = await ASSISTANT.stream(client, "Go")
        before = [event.proto async for event in stream.events]
        await polos.kill()
        await polos.start()
        after = [event.proto async for event in stream.events]
        from_cursor = [
            event.sequence_id
            async for event in events.stream_workflow(
                client, workflow_run_id=stream.id, last_sequence_id=3
            )
        ]
    assert after == before
    assert from_cursor == list(range(4, len(before) + 1))
    assert len(provider.requests) == 1
