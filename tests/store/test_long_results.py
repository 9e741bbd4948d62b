"""Results of megabytes reach callers whole: GetRun, the client's calls, streams from any cursor."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable
from contextlib import AbstractAsyncContextManager, AsyncExitStack
from pathlib import Path

import grpc.aio
import pytest

from polos import AgentStream, events
from polos.v1 import run_service_pb2 as pb
from polos.v1.run_pb2 import Run
from polos_client.define.agent import Agent
from polos_client.define.tool import tool
from polos_client.fold import RunAccumulator
from polos_client.wire import RESULT_LIMIT
from polos_service.api.grpc.messages import RESULT_BYTES
from polos_service.reading import details as details_module
from polos_service.reading.details import RESULTS_LIMIT, Details
from tests.support.long import LONG, MIB, filler
from tests.support.mock_answers import Part, call, finish, say
from tests.support.mock_provider import MockProvider
from tests.support.nats import NatsServer
from tests.support.service import Served, serving

TEXT = filler(LONG - 100)
"""What the model says; it exceeds what GetRun returns if it is not asked for more."""


def said(text: str, piece: int = 64 * 1024) -> Part:
    return say(*(text[at : at + piece] for at in range(0, len(text), piece)))


@tool
def measure(text: str) -> int:
    """Return how long a text is."""
    return len(text)


def agent(provider: MockProvider) -> Agent:
    return Agent("long", "openai", "mock", provider_base_url=provider.url, tools=[measure])


Serve = Callable[[Agent], AbstractAsyncContextManager[Served]]


@pytest.fixture(params=["sqlite", "nats"])
def serve(request: pytest.FixtureRequest, tmp_path: Path) -> Serve:
    """Give what serves an agent on a store of its own."""
    if request.param == "sqlite":
        return lambda one: serving(tmp_path, one)
    server: NatsServer = request.getfixturevalue("nats_server")
    return lambda one: serving(tmp_path, one, store=server.url)


async def get(served: Served, run_id: str, limit: int = 0) -> Run:
    request = pb.GetRunRequest(run_id=run_id, max_result_bytes=limit)
    return (await served.runs.GetRun(request)).run


@pytest.mark.parametrize("streaming", [True, False], ids=["streaming", "silent"])
async def test_a_long_text_is_read_in_every_way(
    serve: Serve, provider: MockProvider, *, streaming: bool
) -> None:
    provider.reply(said(TEXT))
    async with serve(agent(provider)) as served:
        payload = {"input": "Go", "streaming": streaming}
        handle = await served.client.invoke("long", payload)
        log = await served.events(handle.id)
        middle = len(log) // 2
        assert await served.events(handle.id, after=middle) == log[middle:]
        resumed = RunAccumulator(handle.id)
        resumed.add(log[:middle])
        source = events.stream_workflow(
            served.client, workflow_run_id=handle.id, last_sequence_id=middle
        )
        async for event in source:
            resumed.add([event.proto])
        assert resumed.result().result == TEXT
        standing = await handle.get(served.client)
        assert standing["result"].result == TEXT
        execution = await served.client.get_execution(handle.id)
        assert execution["result"]["result"] == TEXT


async def test_get_run_leaves_out_what_exceeds_the_limit_and_says_where_it_is(
    serve: Serve, provider: MockProvider
) -> None:
    provider.reply(said(TEXT))
    size = len(TEXT.encode())
    async with serve(agent(provider)) as served:
        run_id = await served.start(agent(provider))
        (*_, last) = await served.events(run_id)
        for limit in (0, size - 1):
            run = await get(served, run_id, limit)
            assert run.outcome == last
            assert run.outcome.agent_finish.result_step_key == "llm:1"
        address = served.client.address
        options = [("grpc.max_receive_message_length", 2 * RESULT_LIMIT)]
        async with grpc.aio.insecure_channel(address, options=options) as channel:
            ask = channel.unary_unary(
                "/polos.v1.RunService/GetRun",
                request_serializer=pb.GetRunRequest.SerializeToString,
                response_deserializer=pb.GetRunResponse.FromString,
            )
            for limit in (size, RESULT_LIMIT, 2**31 - 1):
                request = pb.GetRunRequest(run_id=run_id, max_result_bytes=limit)
                finish = (await ask(request)).run.outcome.agent_finish
                assert (finish.result, finish.result_step_key) == (TEXT, "")
        with pytest.raises(grpc.aio.AioRpcError) as refused:
            await get(served, run_id, -1)
        assert refused.value.code() is grpc.StatusCode.INVALID_ARGUMENT


async def test_a_result_that_fits_the_default_is_in_a_response_of_grpc_s_default_size(
    serve: Serve, provider: MockProvider
) -> None:
    text = filler(2 * MIB)
    provider.reply(said(text))
    async with serve(agent(provider)) as served:
        run_id = await served.start(agent(provider))
        await served.events(run_id)
        assert (await get(served, run_id)).outcome.agent_finish.result == text


async def test_the_default_leaves_room_for_results_of_tools(
    provider: MockProvider, tmp_path: Path
) -> None:
    size = RESULTS_LIMIT // 10 - 200
    calls = [call("measure", {"text": "x" * size}, call_id=f"call_{n}", index=n) for n in range(10)]
    few = [call("measure", {"text": ""}, call_id=f"call_{n}", index=n) for n in range(100)]
    provider.reply(*calls, finish("tool_calls"))
    provider.reply(*few, finish("tool_calls"))
    text = "x" * RESULT_BYTES
    provider.reply(said(text))
    one = agent(provider)
    async with serving(tmp_path, one) as served:
        run_id = await served.start(one)
        await served.events(run_id)
        run = await get(served, run_id)
    assert run.outcome.agent_finish.result == text
    assert len(run.tool_results) > len(calls)
    assert run.tool_results_omitted > 0


async def test_run_and_stream_return_the_whole(serve: Serve, provider: MockProvider) -> None:
    provider.reply(said(TEXT))
    provider.reply(said(TEXT, piece=len(TEXT)))
    one = agent(provider)
    async with serve(one) as served:
        assert (await one.run(served.client, "Go")).result == TEXT
        stream = await one.stream(served.client, "Go")
        chunks, text, result = await asyncio.gather(joined(stream), stream.text(), stream.result())
    assert chunks == text == result.result == TEXT


async def joined(stream: AgentStream) -> str:
    return "".join([str(chunk) async for chunk in stream.text_chunks])


@pytest.mark.parametrize("size", [300_000, LONG], ids=["some", "long"])
async def test_long_arguments_reach_the_tool_the_model_and_the_caller(
    serve: Serve, provider: MockProvider, size: int
) -> None:
    text = filler(size)
    provider.reply(call("measure", {"text": text}, pieces=40))
    provider.reply(say("Done"))
    one = agent(provider)
    async with serve(one) as served:
        result = await one.run(served.client, "Go")
        run = await get(served, result.agent_run_id)
        standing = await served.client.get_execution(result.agent_run_id)
    (used,) = result.tool_results
    assert (used.input, used.result) == ({"text": text}, len(text))
    (told,) = provider.requests[1].body["messages"][-2]["tool_calls"]
    assert json.loads(told["function"]["arguments"]) == {"text": text}
    fits = size < MIB
    assert [json.loads(one.tool_call.arguments_json) for one in run.tool_results] == (
        [{"text": text}] if fits else []
    )
    assert run.tool_results_omitted == (0 if fits else 1)
    assert standing["result"]["tool_results"][0]["input"] == {"text": text}


async def test_long_arguments_are_returned_as_far_as_there_is_room(
    serve: Serve, provider: MockProvider
) -> None:
    size = 400 * 1024
    calls = [call("measure", {"text": "x" * size}, call_id=f"call_{n}", index=n) for n in range(8)]
    provider.reply(*calls, finish("tool_calls"))
    provider.reply(say("Done"))
    one = agent(provider)
    async with serve(one) as served:
        result = await one.run(served.client, "Go")
        run = await get(served, result.agent_run_id)
    assert [len(used.input["text"]) for used in result.tool_results] == [size] * 8
    assert [len(one.tool_call.arguments_json) > size for one in run.tool_results] == [True] * 2
    assert run.tool_results_omitted == 6


async def test_many_long_results_wait_for_room_and_what_finds_none_is_left_out(
    provider: MockProvider, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    size = len(TEXT.encode())
    monkeypatch.setattr(details_module, "RESULTS_AT_ONCE", size)
    together = [0]

    async def counted(self: Details, *args: object) -> object:
        together[0] += 1
        assert together[0] == 1
        try:
            return await parts(self, *args)  # type: ignore[arg-type]
        finally:
            together[0] -= 1

    parts = Details._parts
    monkeypatch.setattr(Details, "_parts", counted)
    provider.reply(said(TEXT))
    async with serving(tmp_path, agent(provider)) as served, AsyncExitStack() as stack:
        run_id = await served.start(agent(provider))
        await served.events(run_id)
        runs = await asyncio.gather(*(served.client.get_run(run_id) for _ in range(5)))
        assert [run.outcome.agent_finish.result == TEXT for run in runs] == [True] * 5
        monkeypatch.setattr(details_module, "RESULT_PATIENCE", 0.01)
        budget = served.service._runs._details._budget
        await budget.take(size)
        stack.callback(budget.give, size)
        run = await served.client.get_run(run_id)
        assert run.outcome.agent_finish.result_step_key == "llm:1"
        assert (await served.client.get_execution(run_id))["result"]["result"] == TEXT
