"""Children of workflows as callers meet them: whose wait an answer is for."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from polos_client.define.context import WorkflowContext
from polos_client.define.workflow import workflow
from polos_client.errors import InvalidRequest, RunNotFound
from tests.support.service import Served, serving, until


@workflow(id="sub")
async def sub(ctx: WorkflowContext, payload: dict[str, Any]) -> Any:
    await ctx.step.run("before", lambda: None)
    return (await ctx.step.suspend("ok", payload))["data"]


@workflow(id="top")
async def top(ctx: WorkflowContext) -> list[Any]:
    return [await ctx.step.invoke_and_wait(f"c{at}", sub, {"n": at}) for at in range(2)]


@pytest.fixture
async def served(tmp_path: Path) -> AsyncIterator[Served]:
    async with serving(tmp_path, top, sub) as one:
        yield one


async def asked(served: Served, number: int) -> str:
    """Wait until the child of this number asks; return its id."""
    found: list[Any] = []

    async def there() -> bool:
        found[:] = [one async for one in served.client.list_waits()]
        return [one.data for one in found] == [{"n": number}]

    await until(there, f"child {number} asks")
    return str(found[0].run_id)


async def test_a_repeated_answer_is_not_for_the_next_child(served: Served) -> None:
    client = served.client
    handle = await top.invoke(client)
    await asked(served, 0)
    first: dict[str, Any] = {"data": {"pay": 0}, "request_id": "r1"}
    await client.resume("top", handle.id, "ok", **first)
    child = await asked(served, 1)
    await client.resume("top", handle.id, "ok", **first)
    assert await asked(served, 1) == child, "the second child still asks"
    await client.resume("sub", child, "ok", {"pay": 1}, request_id="r2")

    async def ended() -> bool:
        return bool((await client.get_execution(handle.id))["status"] == "completed")

    await until(ended, "the end")
    assert (await client.get_execution(handle.id))["result"] == [{"pay": 0}, {"pay": 1}]


@pytest.mark.parametrize("number", ["0", "00", "1", "99", "x", ""])
async def test_an_answer_to_a_child_that_there_is_not_harms_nobody(
    served: Served, number: str
) -> None:
    client = served.client
    handle = await top.invoke(client)
    await asked(served, 0)
    with pytest.raises((RunNotFound, InvalidRequest)):
        await client.resume("", f"{handle.id}:{number}", "other", 1)
    other = await top.invoke(client)
    assert await other.cancel(client)
