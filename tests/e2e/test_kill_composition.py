"""`kill -9` of the service in what an agent is composed of: a typed answer, a tool with steps."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path

from pydantic import BaseModel

from polos import Agent, PolosClient
from tests.support.mock_answers import call, hold, say
from tests.support.mock_provider import MockProvider
from tests.support.process import ServiceProcess, until
from tests.support.reader import Events, Reader, assert_whole, texts

APP = """
import asyncio
import os
from pathlib import Path

from pydantic import BaseModel

from polos import Agent, WorkflowContext, tool

HERE = Path(__file__).parent


class Order(BaseModel):
    item: str
    count: int


def note(text: str) -> str:
    with (HERE / "notes").open("a") as notes:
        notes.write(f"{text}\\n")
    return text


async def opens(gate: str) -> None:
    while not (HERE / gate).exists():
        await asyncio.sleep(0.01)


async def charge() -> str:
    note("charge begins")
    await opens("charge")
    return note("charge ends")


@tool
async def ship(ctx: WorkflowContext, item: str) -> list[str]:
    "Ship an item."
    note("body")
    reserved = await ctx.step.run("reserve", note, f"reserve {item}")
    note("between")
    await opens("between")
    charged = await ctx.step.run("charge", charge)
    return [reserved, charged, await ctx.step.run("send", note, "send")]


model = {"provider": "openai", "model": "mock", "provider_base_url": os.environ["MODEL_URL"]}
typed = Agent(id="typed", output_schema=Order, **model)
shipping = Agent(id="shipping", tools=[ship], **model)
"""


class Order(BaseModel):
    item: str
    count: int


TYPED = Agent(id="typed", provider="openai", model="mock", output_schema=Order)
SHIPPING = Agent(id="shipping", provider="openai", model="mock")


def serving(folder: Path, provider: MockProvider) -> ServiceProcess:
    app = folder / "app.py"
    app.write_text(APP)
    return ServiceProcess(app, folder / "runs.db", MODEL_URL=provider.url)


def notes(folder: Path) -> list[str]:
    """Return what the tool's code has noted, in all processes."""
    file = folder / "notes"
    return file.read_text().splitlines() if file.exists() else []


async def restarted(polos: ServiceProcess) -> None:
    await polos.kill()
    await polos.start()


async def test_killed_in_the_repair_turn_of_a_typed_answer(
    tmp_path: Path, provider: MockProvider
) -> None:
    """The invalid answer is neither asked for nor judged again; the repair begins anew."""
    provider.reply(say('{"item": ', '"tea"}'))
    provider.reply(say('{"item": "tea", ', '"cou'), hold(asyncio.Event()))
    async with serving(tmp_path, provider) as polos, PolosClient(polos.address) as client:
        stream = await TYPED.stream(client, "Tea, please")
        async with Events(stream.events) as read, Reader(stream.text_chunks) as chunks:
            await read.said('"cou')
            await polos.kill()
            provider.reply(say('{"item": "tea",', ' "count": 2}'))
            await polos.start()
            log = await read.all()
            told = await chunks.all()
        result = await stream.result()
        again = [event async for event in stream.events]
    assert_whole(log)
    assert [event.data for event in again] == [event.data for event in log]
    assert result.result == Order(item="tea", count=2)
    assert (result.total_steps, await stream.text()) == (2, '{"item": "tea", "count": 2}')
    said = ['{"item": ', '"tea"}', '{"item": "tea", ', '"cou', '{"item": "tea",', ' "count": 2}']
    assert texts(log) == said
    assert [(str(one), one.reset) for one in told] == [
        *((text, False) for text in said[:2]),
        ("", True),
        *((text, False) for text in said[2:4]),
        ("", True),
        *((text, False) for text in said[4:]),
    ]
    judged = [one.data for one in log if "invalid_output" in one.data]
    assert [one["step_key"] for one in judged] == ["llm:1"]
    (retry,) = [one.data for one in log if one.event_type == "step_retry"]
    assert (retry["step_key"], retry["attempt"], retry["reason"]) == (
        "llm:2",
        2,
        "process_restarted",
    )
    before, repeated = provider.requests[1:]
    assert repeated.body == before.body, "the repair asks with the conversation as it stood"


async def test_killed_in_the_body_of_a_tool_with_steps(
    tmp_path: Path, provider: MockProvider
) -> None:
    """Between two steps, while a step runs, and once more: what has ended does not run again."""
    provider.reply(say("Shipping. "), call("ship", {"item": "tea"}))
    provider.reply(say("It is ", "shipped."))
    async with serving(tmp_path, provider) as polos, PolosClient(polos.address) as client:
        stream = await SHIPPING.stream(client, "Ship tea")
        async with Events(stream.events) as read, Reader(stream.text_chunks) as chunks:
            await until(lambda: "between" in notes(tmp_path), "the body between two steps")
            await restarted(polos)
            (tmp_path / "between").touch()
            await until(lambda: "charge begins" in notes(tmp_path), "the second step")
            await restarted(polos)
            await until(lambda: notes(tmp_path).count("charge begins") == 2, "the step again")
            (tmp_path / "charge").touch()
            log = await read.all()
            told = await chunks.all()
        result = await stream.result()
        again = [event async for event in stream.events]
    assert_whole(log)
    assert [event.data for event in again] == [event.data for event in log]
    ran = notes(tmp_path)
    assert ran.count("body") == 3, "the body runs in each process"
    for once in ("reserve tea", "charge ends", "send"):
        assert ran.count(once) == 1
    assert ran.count("charge begins") == 2
    ended = [one.data for one in log if one.event_type == "step_finish"]
    assert [one["step_key"] for one in ended] == [
        "llm:1",
        "reserve",
        "charge",
        "send",
        "ship",
        "llm:2",
    ]
    retries = [one.data for one in log if one.event_type == "step_retry"]
    assert [(one["step_key"], one["attempt"]) for one in retries] == [("charge", 2)]
    children = {one.proto.run_id for one in log} - {stream.id}
    assert len(children) == 1, "the tool's step goes on with its child"
    assert [one.result for one in result.tool_results] == [["reserve tea", "charge ends", "send"]]
    assert "".join(map(str, told)) == await stream.text() == "Shipping. It is shipped."
    assert not any(one.reset for one in told)
    assert len(provider.requests) == 2
    sent = provider.requests[1].body["messages"][-1]
    assert json.loads(sent["content"]) == ["reserve tea", "charge ends", "send"]
