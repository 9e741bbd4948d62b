"""What the code gets of its children: read beside the loop, and as much as there is room for."""

from __future__ import annotations

import asyncio
import threading
import time
from typing import Any, ClassVar

import pytest
from pydantic import BaseModel, Field, field_validator

from polos_client.define.context import WorkflowContext
from polos_client.define.scripted import call, turn
from polos_client.define.tool import tool
from polos_client.define.workflow import workflow
from polos_client.errors import StepExecutionError
from polos_service.agents.runnable import AgentRunnable
from polos_service.models.providers import Providers
from polos_service.models.scripted import Scripted
from polos_service.store.sqlite import SqliteStore
from tests.support.flows import flowing
from tests.support.service import scripted


class Judged(BaseModel):
    """An answer whose validators block the thread that they run in."""

    threads: ClassVar[set[threading.Thread]] = set()

    item: str

    @field_validator("item")
    @classmethod
    def blocking(cls, item: str) -> str:
        cls.threads.add(threading.current_thread())
        return item


class Renamed(BaseModel):
    item: str = Field(alias="what is sold")


async def test_what_the_tools_of_an_agent_returned_is_told_as_far_as_there_is_room(
    store: SqliteStore,
) -> None:
    @tool
    def sell() -> Renamed:
        return Renamed(**{"what is sold": "tea"})

    @tool
    def long(count: int) -> str:
        return "茶" * count

    agent = scripted(
        turn(call("sell"), call("long", count=70_000)),
        turn(call("long", count=20_000)),
        turn("x" * 300_000),
        id="agent",
        tools=(sell, long),
    )

    @workflow(id="root")
    async def root(ctx: WorkflowContext) -> Any:
        child = await ctx.step.agent_invoke_and_wait("child", agent.with_input("Go."))
        handle = await ctx.step.agent_invoke("start", agent.with_input("Go."))
        other = await ctx.step.wait_for_run("other", handle)
        assert len(child.result) == len(other.result) == 300_000
        return [
            [one.result for one in result.tool_results if one.tool_name == "sell"]
            + [len(one.result) for one in result.tool_results if one.tool_name == "long"]
            for result in (child, other)
        ]

    async with flowing(store, root) as flows:
        flows.add(AgentRunnable(agent, Providers({"scripted": lambda _: Scripted()}), flows.means))
        assert await flows.result(root) == [[{"what is sold": "tea"}]] * 2


class Moody(BaseModel):
    """A model whose validator ends the process from the second time on."""

    times: ClassVar[int] = 0

    item: str

    @field_validator("item")
    @classmethod
    def exit(cls, item: str) -> str:
        cls.times += 1
        if cls.times > 1:
            raise SystemExit(item)
        return item


PARKING = 0.02
"""Seconds after which a run is parked that only waits."""


class Slow(BaseModel):
    """A model that takes longer to read than a run takes to be parked, from the second time on."""

    times: ClassVar[int] = 0

    item: str

    @field_validator("item")
    @classmethod
    def slow(cls, item: str) -> str:
        cls.times += 1
        if cls.times > 1:
            time.sleep(20 * PARKING)
        return item


@pytest.mark.parametrize("target", ["agent", "workflow"])
async def test_validators_that_exit_fail_the_step_alone(store: SqliteStore, target: str) -> None:
    agent = scripted(turn('{"item": "tea"}'), id="agent", output_schema=Moody)

    @workflow(id="workflow")
    async def moody(ctx: WorkflowContext, payload: dict[str, Any]) -> Moody:
        return Moody(item="tea")

    @workflow(id="root")
    async def root(ctx: WorkflowContext) -> str:
        try:
            await ctx.step.invoke_and_wait("child", target, {"input": "Go."})
        except StepExecutionError as error:
            return str(error)
        return ""

    async with flowing(store, root, moody) as flows:
        flows.add(AgentRunnable(agent, Providers({"scripted": lambda _: Scripted()}), flows.means))
        Moody.times = -(target == "workflow")  # whose result is read when it is stored, too
        told = await flows.result(root)
    assert told == "Step 'child' failed: What the child returned cannot be read: SystemExit: tea"


@pytest.mark.parametrize("own", [False, True], ids=["child", "own"])
async def test_a_run_is_not_parked_while_an_answer_is_read(
    store: SqliteStore, *, own: bool
) -> None:
    agent = scripted(turn('{"item": "tea"}'), id="agent", output_schema=Slow)

    @workflow(id="root")
    async def root(ctx: WorkflowContext) -> str:
        long = asyncio.ensure_future(ctx.step.suspend("long"))
        if own:
            handle = await ctx.step.agent_invoke("start", agent.with_input("Go."))
            found = await ctx.step.wait_for_run("end", handle)
        else:
            found = await ctx.step.agent_invoke_and_wait("child", agent.with_input("Go."))
        long.cancel()
        return str(found.result.item)

    async with flowing(store, root, threshold=PARKING) as flows:
        flows.add(AgentRunnable(agent, Providers({"scripted": lambda _: Scripted()}), flows.means))
        Slow.times = 0
        assert await flows.result(root) == "tea"
    assert Slow.times == 2


async def test_validators_of_an_agents_answer_do_not_block_the_service(store: SqliteStore) -> None:
    agent = scripted(turn('{"item": "tea"}'), id="agent", output_schema=Judged)

    @workflow(id="root")
    async def root(ctx: WorkflowContext) -> Any:
        child = await ctx.step.agent_invoke_and_wait("child", agent.with_input("Go."))
        handle = await ctx.step.agent_invoke("start", agent.with_input("Go."))
        other = await ctx.step.wait_for_run("other", handle)
        assert isinstance(child.result, Judged)
        assert isinstance(other.result, Judged)
        return len(Judged.threads)

    async with flowing(store, root) as flows:
        flows.add(AgentRunnable(agent, Providers({"scripted": lambda _: Scripted()}), flows.means))
        Judged.threads.clear()
        assert await flows.result(root) > 0
    assert threading.current_thread() not in Judged.threads
