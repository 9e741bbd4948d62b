"""The members of a stream, and how runs are started, over a real service."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from polos_client.calls import events as events_module
from polos_client.calls.stream import AgentStream
from polos_client.define.agent import Agent
from polos_client.define.scripted import call, cut, fail, pause, say, turn, usage
from polos_client.define.stop import MaxStepsConfig, max_steps
from polos_client.define.tool import tool
from polos_client.errors import (
    InvalidRequest,
    RunCancelled,
    RunFailed,
    RunNotFound,
    RunTimeout,
)
from polos_client.event import Event
from polos_client.result import Usage
from tests.support.control import Gate
from tests.support.service import BOUND, scripted, serving, until


@tool
async def add(a: int, b: int) -> int:
    """Add."""
    return a + b


SUM = scripted(
    turn("Let me see. ", call("add", a=1, b=2), usage(input_tokens=10, output_tokens=5)),
    turn("The sum is 3.", usage(input_tokens=20, output_tokens=7)),
    tools=(add,),
)
TEXT = "Let me see. The sum is 3."


async def seen(stream: AgentStream) -> list[int]:
    """Return the sequences of a stream's events."""
    return [event.sequence_id async for event in stream.events]


async def chunks(stream: AgentStream) -> list[str]:
    """Return a stream's pieces of text."""
    return [str(chunk) async for chunk in stream.text_chunks]


async def test_members_can_be_used_one_after_another_and_again(tmp_path: Path) -> None:
    async with serving(tmp_path, SUM) as served:
        stream = await SUM.stream(served.client, "What is 1 + 2?")
        first = await seen(stream)
        assert first == list(range(1, len(first) + 1))
        assert "".join(await chunks(stream)) == TEXT
        assert await stream.text() == TEXT
        result = await stream.result()
        assert await seen(stream) == first
        assert (await stream.get())["result"] == result
        assert await stream.cancel() is False
        assert stream.id == stream.agent_run_id == result.agent_run_id


async def test_members_can_be_used_beside_each_other(tmp_path: Path) -> None:
    async with serving(tmp_path, SUM) as served:
        stream = await SUM.stream(served.client, "What is 1 + 2?")
        first, again, said, text, result, other = await asyncio.gather(
            seen(stream),
            seen(stream),
            chunks(stream),
            stream.text(),
            stream.result(),
            stream.result(),
        )
        assert first == again == list(range(1, len(first) + 1))
        assert "".join(said) == text == TEXT
        assert result == other


async def test_the_result_has_everything(tmp_path: Path) -> None:
    async with serving(tmp_path, SUM) as served:
        result = await (await SUM.stream(served.client, "What is 1 + 2?")).result()
        assert result.result == "The sum is 3."
        assert (result.total_steps, result.finish_reason) == (2, "stop")
        assert result.usage == Usage(input_tokens=30, output_tokens=12, total_tokens=42)
        (called,) = result.tool_results
        assert (called.tool_name, called.status, called.result) == ("add", "completed", 3)
        assert called.input == {"a": 1, "b": 2}
        assert result.duration is not None
        assert result.cost is None


async def test_a_run_that_a_stop_condition_ends_says_so(tmp_path: Path) -> None:
    agent = scripted(
        turn("Once. ", call("add", a=1, b=2)),
        "never",
        tools=(add,),
        stop_conditions=[max_steps(MaxStepsConfig(count=1))],
    )
    async with serving(tmp_path, agent) as served:
        result = await agent.run(served.client, "Go.")
        assert (result.finish_reason, result.stop_condition) == ("stop_condition", "max_steps")
        assert result.result == "Once. "


async def test_leaving_a_loop_early_leaves_nothing_behind_and_the_run_goes_on(
    tmp_path: Path,
) -> None:
    gate = Gate()
    agent = scripted(turn("Before. ", call("gate")), "After.", tools=(gate.tool,))
    async with serving(tmp_path, agent) as served:
        stream = await agent.stream(served.client, "Go.")
        async for _event in stream.events:
            break
        async for _chunk in stream.text_chunks:
            break
        await until(lambda: not served.readers._tails, "no reader is left")
        gate.opened.set()
        assert await stream.text() == "Before. After."


async def test_run_cancels_what_takes_longer_than_its_timeout_and_says_so(tmp_path: Path) -> None:
    agent = scripted(turn("half", pause()))
    async with serving(tmp_path, agent) as served:
        with pytest.raises(
            RunTimeout, match=r"took longer than 0\.3 s and was cancelled"
        ) as caught:
            await agent.run(served.client, "Go.", timeout=0.3)
        run = await served.client.get_run(caught.value.run_id)
        assert run.outcome.HasField("run_cancelled")
        assert caught.value.reason == "run_timeout"


async def test_a_stream_that_exceeds_its_own_timeout_raises_with_what_was_said(
    tmp_path: Path,
) -> None:
    agent = scripted(
        turn("One. ", call("add", a=1, b=2), usage(input_tokens=3, output_tokens=2)),
        turn("Two", pause()),
        tools=(add,),
    )
    async with serving(tmp_path, agent) as served:
        stream = await agent.stream(served.client, "Go.", run_timeout_seconds=0.3)
        with pytest.raises(RunTimeout) as caught:
            await stream.result()
        assert caught.value.text == "One. Two"
        assert caught.value.usage == Usage(input_tokens=3, output_tokens=2, total_tokens=5)
        assert (caught.value.run_id, caught.value.retryable) == (stream.id, True)


async def test_a_failed_run_raises_with_what_was_said_and_its_events_raise_nothing(
    tmp_path: Path,
) -> None:
    agent = scripted(
        turn("One. ", call("add", a=1, b=2), usage(input_tokens=3, output_tokens=2)),
        turn("Two", fail("model_rate_limited", "The quota is used up.", retryable=False)),
        tools=(add,),
    )
    async with serving(tmp_path, agent) as served:
        stream = await agent.stream(served.client, "Go.")
        said = []
        with pytest.raises(RunFailed, match="The quota is used up") as caught:
            async for chunk in stream.text_chunks:
                said.append(chunk)  # noqa: PERF401 - what came before the failure counts
        assert "".join(said) == caught.value.text == "One. Two"
        assert caught.value.usage.total_tokens == 5
        assert (caught.value.reason, caught.value.retryable) == ("model_rate_limited", False)
        last = [event async for event in stream.events][-1]
        assert (last.event_type, last.data["error"]) == ("error", "The quota is used up.")
        for member in (stream.text(), stream.result(), agent.run(served.client, "Go.")):
            with pytest.raises(RunFailed):
                await member
        standing = await stream.get()
        assert (standing["status"], standing["error"]) == ("failed", "The quota is used up.")


async def test_a_cancelled_run_raises_run_cancelled(tmp_path: Path) -> None:
    agent = scripted(
        turn("One. ", call("add", a=1, b=2), usage(input_tokens=3, output_tokens=2)),
        turn("Two", pause()),
        tools=(add,),
    )
    async with serving(tmp_path, agent) as served:
        stream = await agent.stream(served.client, "Go.")
        async for chunk in stream.text_chunks:
            if chunk == "Two":
                break
        assert await stream.cancel() is True
        with pytest.raises(RunCancelled) as caught:
            await stream.result()
        assert caught.value.text == "One. Two"
        assert caught.value.usage.total_tokens == 5
        assert await stream.cancel() is True
        assert (await stream.get())["status"] == "cancelled"


async def test_text_chunks_take_back_what_a_retried_step_said(tmp_path: Path) -> None:
    agent = scripted(turn(say(["lost ", "words"]), cut(), retried=["whole"]))
    async with serving(tmp_path, agent) as served:
        stream = await agent.stream(served.client, "Go.")
        said = [(str(one), one.reset, one.step_key) async for one in stream.text_chunks]
        assert said == [
            ("lost ", False, "llm:1"),
            ("words", False, "llm:1"),
            ("", True, "llm:1"),
            ("whole", False, "llm:1"),
        ]
        assert await stream.text() == "whole"


@pytest.mark.parametrize("streaming", [True, False])
async def test_invoke_returns_a_handle_at_once(tmp_path: Path, *, streaming: bool) -> None:
    gate = Gate()
    agent = scripted(turn(call("gate")), "After.", tools=(gate.tool,))
    async with serving(tmp_path, agent) as served:
        payload = {"input": "Go.", "streaming": streaming}
        handle = await agent.invoke(served.client, payload, session_id="s")
        assert handle.workflow_id == handle.root_workflow_id == "demo"
        assert (handle.root_execution_id, handle.session_id) == (handle.id, "s")
        await gate.reached()
        standing = await handle.get(served.client)
        assert (standing["status"], standing["result"]) == ("running", None)
        assert standing["created_at"] == handle.created_at
        gate.opened.set()
        read = [
            event
            async for event in events_module.stream_workflow(
                served.client, workflow_run_id=handle.id
            )
        ]
        streamed = {"text_delta", "tool_call"} & {event.event_type for event in read}
        assert streamed == ({"text_delta", "tool_call"} if streaming else set())
        standing = await handle.get(served.client)
        assert (standing["status"], standing["result"].result) == ("completed", "After.")
        assert await handle.cancel(served.client) is False


async def test_a_handle_cancels_its_run(tmp_path: Path) -> None:
    agent = scripted(turn("half", pause()))
    async with serving(tmp_path, agent) as served:
        handle = await agent.invoke(served.client, {"input": "Go."})
        assert await handle.cancel(served.client) is True
        assert (await handle.get(served.client))["status"] == "cancelled"


async def read(client: object, *args: object, **named: object) -> list[Event]:
    """Read `events.stream_workflow` to its end."""
    stream = events_module.stream_workflow(client, *args, **named)  # type: ignore[arg-type]
    async with asyncio.timeout(BOUND):
        return [event async for event in stream]


async def test_stream_workflow_takes_its_arguments_by_name_and_by_position(tmp_path: Path) -> None:
    async with serving(tmp_path, SUM) as served:
        run_id = (await SUM.run(served.client, "Go.")).agent_run_id
        whole = [event.proto for event in await read(served.client, workflow_run_id=run_id)]
        for events in (
            await read(served.client, "demo", run_id),
            await read(served.client, "demo", run_id, 0),
            await read(served.client, workflow_id="demo", workflow_run_id=run_id),
        ):
            assert [event.proto for event in events] == whole
        for cursor in range(1, len(whole) + 1):
            named = {"workflow_run_id": run_id, "last_sequence_id": cursor}
            later = await read(served.client, **named)
            assert [event.proto for event in later] == whole[cursor:]


async def test_stream_workflow_refuses_what_names_no_run(tmp_path: Path) -> None:
    async with serving(tmp_path, SUM) as served:
        with pytest.raises(InvalidRequest, match="workflow_run_id is missing"):
            await read(served.client, "demo")
        with pytest.raises(InvalidRequest, match="cannot be negative"):
            await read(served.client, "demo", "some", -1)
        with pytest.raises(RunNotFound, match="There is no run 'some'"):
            await read(served.client, "demo", "some")


async def test_a_client_knows_an_agent_by_its_id_alone(tmp_path: Path) -> None:
    async with serving(tmp_path, SUM) as served:
        known = Agent("demo", "openai", "whatever")
        assert (await known.run(served.client, "Go.")).result == "The sum is 3."
