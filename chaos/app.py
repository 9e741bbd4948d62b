"""The app that the service under test serves.

Each tool writes a line for each execution before it goes on: `key attempt execution`, and the
amount if it takes one. What is written with O_APPEND in one call survives the death of the process.
"""

from __future__ import annotations

import asyncio
import os
import time
import uuid
from collections.abc import Coroutine
from pathlib import Path
from typing import Any

from chaos import launch
from chaos.moves import APART, FLOW, key_of, keys_of
from chaos.places import Place
from chaos.questions import HURRY
from polos import (
    Agent,
    AgentResult,
    BatchWorkflowInput,
    MaxStepsConfig,
    StepExecutionError,
    WorkflowContext,
    create_ask_user_tool,
    max_steps,
    tool,
)
from polos_client.define.workflow import workflow

PAUSE = 0.01
"""Seconds that a tool takes after its effect."""


def note(line: str) -> None:
    """Write a line into the ledger."""
    file = os.open(Path(os.environ["CHAOS_LEDGER"]), os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)
    try:
        os.write(file, f"{line}\n".encode())
    finally:
        os.close(file)


def effect(ctx: WorkflowContext, amount: object = "") -> str:
    """Write down an execution, and return what names it."""
    execution = uuid.uuid4().hex
    note(f"{ctx.idempotency_key} {ctx.attempt} {execution} {amount}")
    launch.faults.at(Place.MID_TOOL)
    return execution


@tool(description="Have an effect")
async def jot(ctx: WorkflowContext) -> str:
    """Have an effect, in the loop."""
    execution = effect(ctx)
    await asyncio.sleep(PAUSE)
    return execution


@tool(description="Have an effect")
def block(ctx: WorkflowContext) -> str:
    """Have an effect, in a thread."""
    execution = effect(ctx)
    time.sleep(PAUSE)
    return execution


@tool(description="Have an effect", at_most_once=True)
async def once(ctx: WorkflowContext) -> str:
    """Have an effect that must not happen twice."""
    execution = effect(ctx)
    await asyncio.sleep(PAUSE)
    return execution


@tool(id="break", description="Have an effect, and break")
async def break_(ctx: WorkflowContext) -> str:
    """Have an effect, then raise an exception that the traceback module cannot format."""
    effect(ctx)
    error = SyntaxError("broken")
    error.text = 5  # type: ignore[assignment]  # that is what breaks it
    raise error


@tool(
    description="Have an effect that a person approves, or changes",
    approval="always",
    editable=True,
)
async def pay(ctx: WorkflowContext, amount: int) -> str:
    """Have an effect that a person has approved or changed."""
    execution = effect(ctx, amount)
    await asyncio.sleep(PAUSE)
    return execution


@tool(
    description="Have an effect once that a person approves", approval="always", at_most_once=True
)
def sign(ctx: WorkflowContext, amount: int) -> str:
    """Have an effect that a person has approved, and that must not happen twice."""
    execution = effect(ctx, amount)
    time.sleep(PAUSE)
    return execution


@tool(description="Have an effect that is approved soon", approval="always", approval_timeout=HURRY)
async def hurry(ctx: WorkflowContext, amount: int) -> str:
    """Have an effect that a person has approved in time."""
    execution = effect(ctx, amount)
    await asyncio.sleep(PAUSE)
    return execution


def act(key: str) -> str:
    """Have an effect in a step, and return what names the execution."""
    execution = uuid.uuid4().hex
    note(f"{key} 0 {execution}")
    launch.faults.at(Place.MID_TOOL)
    return execution


async def act_late(key: str, seconds: float) -> str:
    """Have an effect in a step after a while."""
    await asyncio.sleep(seconds)
    return act(key)


async def move(ctx: WorkflowContext, number: int, told: dict[str, Any]) -> Any:
    """Do one move."""
    if told["children"]:
        return await start(ctx, number, told)
    match told["kind"]:
        case "step":
            return await step(ctx, f"s{number}")
        case "both":
            return await asyncio.gather(step(ctx, f"b{number}"), step(ctx, f"c{number}"))
        case "nap":
            return await ctx.step.wait_for(f"n{number}", seconds=told["seconds"])
        case "ask":
            return await ask(ctx, number, told["timeout"])
        case _:
            key = f"r{number}"
            late = ctx.step.run(key, act_late, f"{ctx.execution_id}/{key}", told["seconds"])
            return await race(ctx, number, late)


async def start(ctx: WorkflowContext, number: int, told: dict[str, Any]) -> Any:
    """Do one move that starts children."""
    children = told["children"]
    if told["kind"] == "batch":
        return await batch(ctx, f"k{number}", children)
    keys = keys_of(told["kind"], number, len(children))
    if told["kind"] in APART:
        return await apart(ctx, number, told)
    if told["kind"] == "dare":
        return await race(ctx, number, child(ctx, keys[0], children[0]))
    return [await child(ctx, key, one) for key, one in zip(keys, children, strict=True)]


async def apart(ctx: WorkflowContext, number: int, told: dict[str, Any]) -> Any:
    """Start a run with a log of its own; return what it returns, or its id if it is left."""
    entry = entry_of(told["children"][0])
    run = await ctx.step.invoke(f"k{number}", entry.id, entry.payload)
    if told["kind"] == "leave":
        return run.id
    await step(ctx, f"s{number}")
    try:
        found = await ctx.step.wait_for_run(f"e{number}", run)
    except StepExecutionError:
        return None
    return found.result if isinstance(found, AgentResult) else found


async def step(ctx: WorkflowContext, key: str) -> Any:
    """Do a step."""
    return await ctx.step.run(key, act, f"{ctx.execution_id}/{key}")


async def ask(ctx: WorkflowContext, number: int, timeout: float | None) -> Any:
    """Wait for an answer; return None if none comes in time."""
    try:
        answer = await ctx.step.suspend(key_of(number), {"number": number}, timeout=timeout)
    except StepExecutionError:
        return None
    return answer["data"]


async def race(ctx: WorkflowContext, number: int, against: Coroutine[Any, Any, Any]) -> Any:
    """Race a step, or a child, against a timer, and go on by who wins."""
    work = asyncio.create_task(against, name="step")
    nap = asyncio.create_task(ctx.step.wait_for(f"t{number}", seconds=0.2), name="nap")
    done, left = await asyncio.wait({work, nap}, return_when=asyncio.FIRST_COMPLETED)
    for task in left:
        task.cancel()
    winner = "step" if work in done else "nap"
    return await step(ctx, f"w{number}-{winner}")


async def child(ctx: WorkflowContext, key: str, told: dict[str, Any]) -> Any:
    """Run a child; return what it returns, or None if it fails."""
    try:
        if told["moves"]:
            return await ctx.step.invoke_and_wait(key, FLOW, told)
        found = await ctx.step.agent_invoke_and_wait(
            key, agent.with_input(told["name"], streaming=True)
        )
    except StepExecutionError:
        return None
    return found.result


async def batch(ctx: WorkflowContext, key: str, entries: list[dict[str, Any]]) -> Any:
    """Run children beside each other; return what each returns, or None where it fails."""
    if not any(one["moves"] for one in entries):
        configs = [agent.with_input(one["name"], streaming=True) for one in entries]
        done = await ctx.step.batch_agent_invoke_and_wait(key, configs)
    else:
        done = await ctx.step.batch_invoke_and_wait(key, [entry_of(one) for one in entries])
    results = [one.result for one in done]
    return [one.result if isinstance(one, AgentResult) else one for one in results]


def entry_of(told: dict[str, Any]) -> BatchWorkflowInput:
    """Return an entry of a batch."""
    if told["moves"]:
        return BatchWorkflowInput(id=FLOW, payload=told)
    return BatchWorkflowInput(id=agent.id, payload={"input": told["name"], "streaming": True})


@workflow(id=FLOW)
async def flow(ctx: WorkflowContext, payload: dict[str, Any]) -> list[Any]:
    """Do the moves that the payload names, and raise an exception as often as it says."""
    done = [await move(ctx, number, told) for number, told in enumerate(payload["moves"])]
    if ctx.retry_count < payload["falls"]:
        raise RuntimeError("That is planned.")
    return done


agent = Agent(
    id="chaos",
    provider="openai",
    model="mock",
    tools=[jot, block, once, break_, pay, sign, hurry, create_ask_user_tool()],
    stop_conditions=[max_steps(MaxStepsConfig(count=100))],
)
