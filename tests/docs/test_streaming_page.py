"""Every program of the documentation's page on streaming, with each provider."""
# ruff: noqa: T201 - the page's programs print

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from typing import Any

import pytest

from polos import Agent, AgentStream, Polos, PolosClient, tool
from tests.docs.scene import PROVIDERS, Ask, Refuse, Scene, scene

TURN = ("Let me see. ", Ask("search_web", {"query": "python"}))
SUMMARY = ("Read ", "the docs", ".")


@tool(description="Search the web")
async def search_web(query: str) -> list[str]:
    return [f"All about {query}"]


@tool(description="Add two numbers")
def add(a: int, b: int) -> int:
    return a + b


class Websocket:
    """Takes what a program sends to its frontend; only JSON can be sent."""

    def __init__(self) -> None:
        self.sent: list[Any] = []

    async def send_json(self, data: Any) -> None:
        self.sent.append(json.loads(json.dumps(data)))


@pytest.fixture(params=PROVIDERS, name="stage")
async def with_each_provider(request: pytest.FixtureRequest) -> AsyncIterator[Scene]:
    async with scene(request.param) as made:
        yield made


@pytest.fixture
async def client() -> AsyncIterator[PolosClient]:
    async with Polos() as polos:
        yield polos


async def test_text_chunks_are_the_text_as_it_comes(
    stage: Scene, client: PolosClient, capsys: pytest.CaptureFixture[str]
) -> None:
    agent = stage.agent(("Very ", "small ", "things"))
    stream = await agent.stream(client, "Explain quantum computing")

    chunks = []
    async for chunk in stream.text_chunks:
        print(chunk, end="", flush=True)
        chunks.append(chunk)

    assert chunks == ["Very ", "small ", "things"]
    assert capsys.readouterr().out == "Very small things"


async def test_events_have_the_text_and_the_name_of_each_tool_that_is_called(
    stage: Scene, client: PolosClient, capsys: pytest.CaptureFixture[str]
) -> None:
    agent = stage.agent(TURN, SUMMARY, tools=[search_web])
    stream = await agent.stream(client, "Search for Python tutorials and summarize them")

    async for event in stream.events:
        if event.event_type == "text_delta":
            print(event.data.get("content", ""), end="", flush=True)
        elif event.event_type == "tool_call":
            tool_name = event.data.get("tool_name")
            print(f"\n[Calling tool: {tool_name}]\n")

    said = capsys.readouterr().out
    assert said == "Let me see. \n[Calling tool: search_web]\n\nRead the docs."


async def test_text_is_the_whole_text(stage: Scene, client: PolosClient) -> None:
    agent = stage.agent(("Loops run ", "in the night\n", "and end"))
    stream = await agent.stream(client, "Write a haiku about programming")

    final_text = await stream.text()

    assert final_text == "Loops run in the night\nand end"


async def test_result_has_answer_steps_tokens_and_what_each_tool_returned(
    stage: Scene, client: PolosClient, capsys: pytest.CaptureFixture[str]
) -> None:
    agent = stage.agent([Ask("add", {"a": 2, "b": 2})], ["It is 4"], tools=[add])
    stream = await agent.stream(client, "What's 2+2?")

    result = await stream.result()

    print(f"Result: {result.result}")
    print(f"Total steps: {result.total_steps}")
    print(f"Tokens used: {result.usage.total_tokens}")

    for tool_call in result.tool_results:
        print(f"Tool: {tool_call.tool_name}")
        print(f"Input: {tool_call.result}")
    assert capsys.readouterr().out.splitlines() == [
        "Result: It is 4",
        "Total steps: 2",
        "Tokens used: 20",
        "Tool: add",
        "Input: 4",
    ]


async def show_lifecycle(agent: Agent, client: PolosClient) -> None:
    stream = await agent.stream(client, "Research AI agents and create a summary")

    async for event in stream.events:
        if event.event_type == "agent_start":
            print("Agent started")
        elif event.event_type == "step_start":
            step_name = event.data.get("step_key")
            print(f"Running step: {step_name}")
        elif event.event_type == "tool_call":
            tool_name = event.data.get("tool_call", {}).get("function", {}).get("name")
            print(f"Calling tool: {tool_name}")
        elif event.event_type == "text_delta":
            content = event.data.get("content", "")
            print(content, end="", flush=True)
        elif event.event_type == "step_finish":
            step_name = event.data.get("step_key")
            print(f"\nCompleted step: {step_name}")
        elif event.event_type == "agent_finish":
            usage = event.data.get("usage", {})
            print(f"\nAgent finished - Tokens: {usage.get('total_tokens')}")


async def test_lifecycle_events_tell_steps_and_tools_in_order(
    stage: Scene, client: PolosClient, capsys: pytest.CaptureFixture[str]
) -> None:
    agent = stage.agent([Ask("search_web", {"query": "agents"})], SUMMARY, tools=[search_web])
    await show_lifecycle(agent, client)
    shown = [line for line in capsys.readouterr().out.splitlines() if line]
    assert shown == [
        "Agent started",
        "Running step: llm:1",
        "Calling tool: search_web",
        "Completed step: llm:1",
        "Running step: search_web",
        "Completed step: search_web",
        "Running step: llm:2",
        "Read the docs.",
        "Completed step: llm:2",
        "Agent finished - Tokens: 20",
    ]


async def stream_to_ui(
    agent: Agent, user_message: str, client: PolosClient, websocket: Websocket
) -> None:
    stream = await agent.stream(client, user_message)

    async for chunk in stream.text_chunks:
        await websocket.send_json({"type": "text_chunk", "content": chunk})

    await websocket.send_json({"type": "done"})


async def test_text_chunks_can_be_sent_to_a_frontend(stage: Scene, client: PolosClient) -> None:
    websocket = Websocket()
    await stream_to_ui(stage.agent(("Good ", "day")), "Hello", client, websocket)
    assert websocket.sent == [
        {"type": "text_chunk", "content": "Good "},
        {"type": "text_chunk", "content": "day"},
        {"type": "done"},
    ]


async def stream_with_progress(
    agent: Agent, user_message: str, client: PolosClient, websocket: Websocket
) -> None:
    stream = await agent.stream(client, user_message)

    async for event in stream.events:
        if event.event_type == "tool_call":
            function = event.data.get("tool_call", {}).get("function", {})
            await websocket.send_json(
                {"type": "tool_call", "tool": function.get("tool_name"), "status": "executing"}
            )
        elif event.event_type == "text_delta":
            await websocket.send_json({"type": "text", "content": event.data.get("content", "")})
        elif event.event_type == "agent_finish":
            await websocket.send_json({"type": "complete", "usage": event.data.get("usage")})


async def test_progress_can_be_sent_to_a_frontend(stage: Scene, client: PolosClient) -> None:
    websocket = Websocket()
    agent = stage.agent(TURN, SUMMARY, tools=[search_web])
    await stream_with_progress(agent, "Summarize it", client, websocket)
    *progress, complete = websocket.sent
    assert progress == [
        {"type": "text", "content": "Let me see. "},
        {"type": "tool_call", "tool": "search_web", "status": "executing"},
        {"type": "text", "content": "Read "},
        {"type": "text", "content": "the docs"},
        {"type": "text", "content": "."},
    ]
    usage = {"input_tokens": 14, "output_tokens": 6, "total_tokens": 20}
    assert complete["type"] == "complete"
    assert usage.items() <= complete["usage"].items()


async def read_or_report(stream: AgentStream) -> list[str]:
    shown = []

    try:
        async for event in stream.events:
            if event.event_type == "error":
                error_msg = event.data.get("error")
                shown.append(f"Error: {error_msg}")
                break
            if event.event_type == "text_delta":
                shown.append(event.data.get("content", ""))
    except Exception as e:  # noqa: BLE001 - as the page has it
        shown.append(f"Stream failed: {e}")
    return shown


async def show_or_report(agent: Agent, client: PolosClient) -> list[str]:
    stream = await agent.stream(client, "Do something risky")
    return await read_or_report(stream)


async def test_a_failed_run_is_an_error_event_with_its_message(
    stage: Scene, client: PolosClient
) -> None:
    turns = [("Just ", Ask("add", {"a": 1, "b": 2})), (Refuse(),)]
    first, error = await show_or_report(stage.agent(*turns, tools=[add]), client)
    assert first == "Just "
    assert error.startswith("Error: ")
    assert "key" in error


async def test_a_run_that_does_not_fail_reports_no_error(stage: Scene, client: PolosClient) -> None:
    assert await show_or_report(stage.agent(("All ", "well")), client) == ["All ", "well"]


async def test_a_stream_that_fails_raises_what_happened(stage: Scene, client: PolosClient) -> None:
    agent = stage.agent(["Never read"])
    stream = await agent.stream(client, "Do something risky")
    await client.close()
    (shown,) = await read_or_report(stream)
    assert shown.startswith("Stream failed: ")
    assert "closed" in shown
