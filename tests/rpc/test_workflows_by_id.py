"""Workflows as callers run them: results, failures, ids, answers and patience."""

from __future__ import annotations

import asyncio
import inspect
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
from pydantic import BaseModel

from polos.v1.error_pb2 import FailureReason
from polos_client.calls.client import PolosClient
from polos_client.calls.events import stream_workflow
from polos_client.calls.handle import ExecutionHandle
from polos_client.calls.waiting import Wait
from polos_client.deadlines import Patience
from polos_client.define.context import WorkflowContext
from polos_client.define.state import WorkflowState
from polos_client.define.workflow import workflow
from polos_client.errors import (
    AgentNotFound,
    AlreadyAnswered,
    DefinitionError,
    InvalidRequest,
    RunFailed,
    RunNotFound,
    RunTimeout,
    WaitExpired,
    WaitNotOpen,
    WorkflowTimeoutError,
)
from polos_client.event import Event
from tests.support.service import Served, scripted, serving, until


class Order(BaseModel):
    item: str
    count: int = 1


class Counter(WorkflowState):
    start: int = 0


@workflow
async def echo(ctx: WorkflowContext, payload: dict[str, Any]) -> dict[str, Any]:
    return dict(await ctx.step.run("copy", dict, payload))


@workflow
def model(ctx: WorkflowContext, payload: Order):  # type: ignore[no-untyped-def]  # noqa: ANN201
    return Order(item=payload.item.upper(), count=payload.count + 1)


@workflow
async def many(ctx: WorkflowContext) -> list[Order]:
    return [Order(item="tea"), Order(item="jam")]


@workflow
async def nothing(ctx: WorkflowContext) -> None: ...


@workflow(state_schema=Counter)
async def counts(ctx: WorkflowContext, payload: Order | None = None) -> int:
    return int(ctx.state.start) + (payload.count if payload else 0)


@workflow
async def broken(ctx: WorkflowContext) -> None:
    await ctx.step.run("charge", charge, max_retries=0)


def charge() -> None:
    raise RuntimeError("the card is gone")


@workflow
async def asks(ctx: WorkflowContext, payload: dict[str, Any] | None = None) -> Any:
    timeout = (payload or {}).get("timeout")
    answer = await ctx.step.suspend("ask", {"question": "Go on?"}, timeout=timeout)
    return answer["data"]


AGENT = scripted("Hi.", id="agent")
EVERY = (AGENT, echo, model, many, nothing, counts, broken, asks)


@pytest.fixture
async def served(tmp_path: Path) -> AsyncIterator[Served]:
    async with serving(tmp_path, *EVERY) as one:
        yield one


async def waiting(served: Served, number: int = 1) -> list[Wait]:
    """Return the open waits, once there are so many."""
    found: list[Wait] = []

    async def as_many() -> bool:
        found[:] = [one async for one in served.client.list_waits()]
        return len(found) == number

    await until(as_many, f"{number} open waits")
    return found


async def result(served: Served, handle: ExecutionHandle) -> Any:
    """Return a run's result, once it has ended."""
    await served.events(handle.id)
    return (await handle.get(served.client))["result"]


async def test_run_returns_what_the_function_returned(served: Served) -> None:
    client = served.client
    assert await echo.run(client, {"a": [1, None]}) == {"a": [1, None]}
    assert await model.run(client, Order(item="tea")) == Order(item="TEA", count=2)
    assert await model.run(client, {"item": "tea"}) == Order(item="TEA", count=2)
    assert await many.run(client) == [Order(item="tea"), Order(item="jam")]
    assert await nothing.run(client) is None
    assert await counts.run(client) == 0
    assert await counts.run(client, Order(item="tea"), initial_state=Counter(start=4)) == 5


async def test_a_model_is_json_where_it_is_not_told_by_a_class(served: Served) -> None:
    handle = await model.invoke(served.client, {"item": "tea"})
    assert await result(served, handle) == Order(item="TEA", count=2)
    got = await served.client.get_execution(handle.id)
    assert got["result"] == {"item": "TEA", "count": 2}
    assert got["output_schema_name"] == f"{__name__}.Order"
    assert (got["status"], got["workflow_id"]) == ("completed", "model")


async def test_a_failed_run_raises_with_the_error(served: Served) -> None:
    with pytest.raises(RuntimeError, match="the card is gone") as caught:
        await broken.run(served.client)
    assert isinstance(caught.value, RunFailed)
    assert caught.value.reason == "workflow_failed"
    got = await served.client.get_execution(caught.value.run_id)
    assert (got["status"], got["result"]) == ("failed", None)
    assert "the card is gone" in got["error"]


async def test_a_payload_that_does_not_fit_starts_nothing(served: Served) -> None:
    for start in (model.run(served.client, {"count": 1}), served.client.invoke("model", {"a": 1})):
        with pytest.raises(InvalidRequest, match=r"^payload does not fit the workflow"):
            await start
    with pytest.raises(InvalidRequest, match="the workflow model needs a payload"):
        await model.run(served.client)
    assert [run async for run in served.client.list_runs()] == []


@pytest.mark.parametrize(
    ("name", "payload", "expected"),
    [
        ("echo", {"input": "tea"}, {"input": "tea"}),
        ("echo", {"input": "tea", "streaming": True}, {"input": "tea", "streaming": True}),
        ("echo", {"input": [{"role": "user", "content": "x"}]}, None),
        ("echo", {"input": [1, 2]}, {"input": [1, 2]}),
        ("echo", {"input": 7, "other": None}, {"input": 7, "other": None}),
        ("echo", {}, {}),
        ("model", {"item": "tea"}, Order(item="TEA", count=2)),
        ("model", Order(item="tea"), Order(item="TEA", count=2)),
        ("counts", None, 0),
        ("nothing", None, None),
        ("nothing", {"input": "ignored"}, None),
    ],
)
async def test_the_service_says_whether_an_id_is_a_workflow(
    served: Served, name: str, payload: Any, expected: Any
) -> None:
    handle = await served.client.invoke(name, payload, None, None, None, "s", "u", None, 30)
    assert (handle.workflow_id, handle.session_id, handle.user_id) == (name, "s", "u")
    wanted = payload if expected is None and name == "echo" else expected
    assert await result(served, handle) == wanted


async def test_the_service_says_whether_an_id_is_an_agent(served: Served) -> None:
    client = served.client
    handle = await client.invoke("agent", {"input": "Go."}, request_id="once")
    assert (await result(served, handle)).result == "Hi."
    assert (await client.invoke("agent", {"input": "Go."}, request_id="once")).id == handle.id
    for payload, told in (
        (None, r"payload\.input is missing; an agent needs it"),
        ({"inputs": "Go."}, r"payload\.inputs is not known; an agent takes input"),
        (Order(item="tea"), "payload must be a dict like .* not Order"),
        ({"input": 7}, "input must be a string or a list of messages, not int"),
        ({"input": " "}, "input is empty"),
    ):
        with pytest.raises(InvalidRequest, match=told):
            await client.invoke("agent", payload)
    with pytest.raises(AgentNotFound, match="There is no agent or workflow 'nobody'"):
        await client.invoke("nobody", {"input": "Go."})
    with pytest.raises(InvalidRequest, match="cannot be given to an agent"):
        await workflow(id="agent")(lambda ctx: ctx).run(client, {"a": 1})


async def test_a_repeated_start_of_a_workflow_is_the_same_run(served: Served) -> None:
    start: dict[str, Any] = {"payload": {"input": "tea"}, "request_id": "once"}
    first = await served.client.invoke("echo", **start)
    assert (await served.client.invoke("echo", **start)).id == first.id
    assert (await echo.invoke(served.client, **start)).id == first.id


async def test_an_answer_continues_the_run(served: Served) -> None:
    client = served.client
    handle = await asks.invoke(client, session_id="s")
    (wait,) = await waiting(served)
    assert (wait.run_id, wait.workflow_id, wait.step_key) == (handle.id, "asks", "ask")
    assert (wait.kind, wait.data, wait.expires_at) == ("suspend", {"question": "Go on?"}, None)
    assert wait.created_at.tzinfo is not None
    assert (await client.get_execution(handle.id))["status"] == "waiting"
    assert (await handle.get(client))["status"] == "waiting"
    await client.resume("asks", handle.id, "ask", {"yes": True}, request_id="mine")
    await client.resume("asks", handle.id, "ask", {"yes": True}, request_id="mine")
    assert await result(served, handle) == {"yes": True}
    assert await waiting(served, 0) == []
    with pytest.raises((AlreadyAnswered, WaitNotOpen)):
        await client.resume("asks", handle.id, "ask", {"yes": False})
    seen: list[Event] = [one async for one in stream_workflow(client, workflow_run_id=handle.id)]
    types = ["workflow_start", "suspend_ask", "resume_ask", "workflow_finish"]
    assert [one.event_type for one in seen] == types
    assert seen[1].data["question"] == "Go on?"
    assert seen[1].data["_metadata"]["wait_id"] == wait.wait_id == seen[1].sequence_id
    assert seen[2].data["yes"] is True
    assert seen[2].data["_metadata"]["request_id"] == "mine"


async def test_a_handle_answers_by_key_or_by_the_waits_id(served: Served) -> None:
    client = served.client
    first, second = [await asks.invoke(client) for _ in range(2)]
    ids = {one.run_id: one.wait_id for one in await waiting(served, 2)}
    await first.resume(client, "ask", "text is an answer, too")
    await second.resume(client, data=Order(item="tea"), wait_id=ids[second.id])
    assert await result(served, first) == "text is an answer, too"
    assert await result(served, second) == {"item": "tea", "count": 1}


async def test_an_answer_may_come_at_once(served: Served) -> None:
    handle = await asks.invoke(served.client)
    await handle.resume(served.client, "ask", 1)
    assert await result(served, handle) == 1


async def test_waits_are_listed_page_by_page_by_workflow_and_oldest_first(
    served: Served, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("polos_client.calls.listing.PAGE_LIMIT", 2)
    handles = []
    for number in range(5):
        handles.append(await asks.invoke(served.client))
        await waiting(served, number + 1)
    listed = served.client.list_waits
    assert [one.run_id async for one in listed()] == [one.id for one in handles]
    assert [one.run_id async for one in listed(limit=3)] == [one.id for one in handles[:3]]
    assert [one async for one in listed(workflow_id="echo")] == []
    assert len([one async for one in listed(workflow_id="asks", limit=9)]) == 5
    with pytest.raises(InvalidRequest, match="limit is -1; it cannot be negative"):
        await anext(listed(limit=-1))


@pytest.mark.parametrize(
    ("options", "told"),
    [
        ({"step_key": "ask", "data": {1, 2}}, "data cannot be written as JSON"),
        ({"step_key": "ask", "data": "x" * 300_000}, "data has 300002 bytes; at most 262144"),
        ({"data": 1}, "step_key is missing: name the wait by its key, or by wait_id"),
        ({"step_key": 7, "data": 1}, "step_key must be a text, not 7"),
        ({"wait_id": 0, "data": 1}, "wait_id must be a whole number above 0, not 0"),
        ({"wait_id": 2**63, "data": 1}, "wait_id is 9223372036854775808; at most"),
        ({"step_key": "q\ud800", "data": 1}, "step_key is not valid Unicode text"),
        ({"wait_id": True, "data": 1}, "wait_id must be a whole number above 0, not True"),
        ({"step_key": "ask", "request_id": ""}, "request_id is empty"),
        ({"step_key": "ask", "request_id": "x" * 129}, "request_id has 129 characters"),
    ],
)
async def test_a_wrong_answer_is_refused_before_it_is_sent(
    options: dict[str, Any], told: str
) -> None:
    with pytest.raises(InvalidRequest, match=told):
        await ExecutionHandle(id="run").resume(PolosClient("127.0.0.1:1"), **options)


async def test_what_cannot_be_answered_is_told(served: Served) -> None:
    client = served.client
    with pytest.raises(RunNotFound):
        await client.resume("asks", "nobody", "ask", {})
    ended = await nothing.invoke(client)
    await served.events(ended.id)
    with pytest.raises(WaitNotOpen, match="has ended"):
        await client.resume("nothing", ended.id, "ask", {})
    handle = await asks.invoke(client, {"timeout": 0.05})
    await served.events(handle.id)
    assert (await handle.get(client))["status"] == "failed"
    with pytest.raises((WaitExpired, WaitNotOpen)):
        await handle.resume(client, "ask", {})


@pytest.mark.parametrize("started", [asks, AGENT], ids=["workflow", "agent"])
def test_the_default_timeout_is_ten_minutes_of_patience(started: Any) -> None:
    default = inspect.signature(started.run).parameters["timeout"].default
    assert (default, isinstance(default, Patience)) == (600.0, True)


async def test_patience_ends_and_the_run_goes_on(served: Served) -> None:
    await asks.invoke(served.client, request_id="once")
    await waiting(served)
    with pytest.raises(WorkflowTimeoutError, match=r"continues. It waits.*'ask' \(suspend") as told:
        await asks.run(served.client, timeout=Patience(0.05), request_id="once")
    assert not isinstance(told.value, RunTimeout)
    assert told.value.timeout_seconds == 0.05
    handle = ExecutionHandle(id=told.value.execution_id)
    (wait,) = await waiting(served)
    assert f"wait_id {wait.wait_id}" in str(told.value)
    assert (await handle.get(served.client))["status"] == "waiting"
    await handle.resume(served.client, "ask", "late")
    assert await result(served, handle) == "late"


async def test_a_timeout_that_the_caller_gave_cancels_the_run(served: Served) -> None:
    with pytest.raises(RunTimeout, match=r"took longer than 0\.3 s and was cancelled") as told:
        await asks.run(served.client, timeout=0.3)
    got = await served.client.get_execution(told.value.run_id)
    assert got["status"] == "cancelled"
    assert await waiting(served, 0) == []


async def test_a_timeout_of_an_invoke_is_the_runs_own(served: Served) -> None:
    handle = await asks.invoke(served.client, run_timeout_seconds=0.05)
    events = await served.events(handle.id)
    assert events[-1].error.reason == FailureReason.FAILURE_REASON_RUN_TIMEOUT


@pytest.mark.parametrize("options", [{"queue": "q"}, {"concurrency_key": "k"}], ids=str)
async def test_queues_are_refused(served: Served, options: dict[str, Any]) -> None:
    for start, name in ((nothing.run, "run"), (nothing.invoke, "invoke")):
        with pytest.raises(DefinitionError, match=rf"workflow\.{name}\(.* is not built yet"):
            await start(served.client, **options)


async def test_many_answers_at_once_find_their_own_runs(served: Served) -> None:
    handles = [await asks.invoke(served.client) for _ in range(10)]
    await asyncio.gather(
        *(one.resume(served.client, "ask", number) for number, one in enumerate(handles))
    )
    assert [await result(served, one) for one in handles] == list(range(10))
