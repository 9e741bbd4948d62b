"""Running agents and reading what they do, as users write it."""

from __future__ import annotations

from collections.abc import AsyncGenerator, AsyncIterator
from datetime import datetime
from typing import Any, Literal, assert_type

from pydantic import BaseModel

from polos import (
    Agent,
    AgentResult,
    AgentStream,
    CallError,
    ConnectionLost,
    Event,
    ExecutionHandle,
    InvalidRequest,
    Polos,
    PolosClient,
    RunFailed,
    TextChunk,
    ToolResult,
    Usage,
    WorkflowTimeoutError,
    events,
)
from polos.features.events import stream_workflow
from polos.types import AgentResult as SameResult
from polos.v1 import event_pb2, run_pb2


async def text(agent: Agent, client: PolosClient) -> None:
    stream = await agent.stream(client, "Hello", session_id="s", run_timeout_seconds=5, seed=7)
    assert_type(stream, AgentStream)
    assert_type(stream.text_chunks, AsyncGenerator[TextChunk, None])
    async for chunk in stream.text_chunks:
        assert_type(chunk, TextChunk)
        a_string: str = chunk
        assert_type(a_string.upper(), str)
        assert_type(chunk.reset, bool)
        assert_type(chunk.step_key, str)
    assert_type(stream.partial, AsyncGenerator[Any, None])
    assert_type(await stream.text(), str)
    aiter(stream)  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
    assert_type(stream.id, str)
    assert_type(await stream.get(), dict[str, Any])
    assert_type(await stream.cancel(), bool)
    assert_type(stream.handle, ExecutionHandle)
    assert_type(stream.topic, str)
    assert_type(stream.created_at, str | None)
    assert_type(stream.to_dict(), dict[str, Any])


async def every_event(agent: Agent, client: PolosClient) -> None:
    stream = await agent.stream(client, [{"role": "user", "content": "Hello"}])
    async for event in stream.events:
        assert_type(event, Event)
        assert_type(event.event_type, str)
        assert_type(event.data, dict[str, Any])
        assert_type(event.sequence_id, int)
        assert_type(event.created_at, datetime)
        assert_type(event.proto, event_pb2.Event)
        assert_type(event.data.get("tool_call", {}).get("function", {}).get("name"), Any)


async def result(agent: Agent, client: PolosClient) -> None:
    stream = await agent.stream(client, "What's 2+2?", request_id="r")
    found = await stream.result()
    assert_type(found, AgentResult)
    assert_type(found.usage, Usage)
    assert_type(found.usage.total_tokens, int)
    assert_type(found.usage.cache_read_input_tokens, int | None)
    assert_type(found.total_steps, int)
    assert_type(found.cost, float | None)
    assert_type(found.finish_reason, str | None)
    assert_type(found.tool_results, list[ToolResult])
    for one in found.tool_results:
        assert_type(one.tool_name, str)
        assert_type(one.status, Literal["completed", "failed"])
    assert_type(await agent.run(client, "Hello", timeout=None, request_id="r"), AgentResult)


async def listen(agent: Agent, client: PolosClient) -> None:
    payload = {"input": "Hello", "streaming": False}
    handle = await agent.invoke(client, payload=payload, request_id=None)
    assert_type(handle, ExecutionHandle)
    assert_type(handle.id, str)
    assert_type(await handle.get(client), dict[str, Any])
    assert_type(await handle.cancel(client), bool)
    assert_type(handle.to_dict(), dict[str, Any])
    assert_type(ExecutionHandle(id=handle.id).created_at, str | None)
    run = events.stream_workflow(client, workflow_run_id=handle.id, last_sequence_id=3)
    assert_type(run, AsyncGenerator[Event, None])
    async for event in events.stream_workflow(client, handle.workflow_id, handle.id):
        assert_type(event, Event)


async def by_id(client: PolosClient) -> None:
    handle = await client.invoke("weather", {"input": "Hello"}, session_id="s", request_id="r")
    assert_type(handle, ExecutionHandle)
    assert_type(await client.get_execution(handle.id), dict[str, Any])
    assert_type(await client.cancel_execution(handle.id), bool)
    runs = client.list_runs(workflow_id="weather", state="completed", limit=10)
    assert_type(runs, AsyncIterator[run_pb2.Run])
    async for run in runs:
        assert_type(run.run_id, str)


def reaching() -> None:
    assert_type(PolosClient("https://polos.example", tls="ca.pem", api_key="k"), PolosClient)
    PolosClient(api_url="http://127.0.0.1:8080", project_id="p", tls=False)
    PolosClient(tls=1.5)  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]


async def failures(agent: Agent, client: PolosClient) -> None:
    try:
        await agent.run(client, "Hello")
    except RunFailed as error:
        assert_type(error.retryable, bool)
        assert_type(error.text, str)
        assert_type(error.usage, Usage)
    except InvalidRequest as error:
        assert_type(error.violations, dict[str, str])
    except CallError as error:
        assert_type(error.retry_after, float | None)
    except ConnectionLost as error:
        assert_type(error.run_id, str | None)
        assert_type(error.cursor, int)


class Cart(BaseModel):
    items: list[str]


async def as_the_original_sdk_has_it(agent: Agent, client: PolosClient) -> None:
    try:
        result = await agent.run(client, "Hello", Cart(items=[]), "session", "user", 60)
        assert_type(result, SameResult)
        assert_type(result.tool_results[0].tool_call_call_id, str)
    except WorkflowTimeoutError as error:
        assert_type(error.execution_id, str)
        assert_type(error.timeout_seconds, float | None)
    handle = await agent.invoke(client, {"input": "Hello"}, None, None, "session", "user")
    async for event in stream_workflow(client, agent.id, handle.id):
        assert_type(event.event_type, str)
    polos = Polos(log_file="polos.log", max_concurrent_workflows=3, port=0)
    await polos.start()
    await polos.stop()


async def in_one_process(agent: Agent) -> None:
    async with Polos([agent]) as polos:
        assert_type(polos, Polos)
        await text(agent, polos)
    async with PolosClient("127.0.0.1:50051", reconnect_timeout=5) as client:
        assert_type(client, PolosClient)
        await agent.run("here", "Hello")  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
        await agent.stream(client, 7)  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
