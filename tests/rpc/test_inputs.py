"""What runs were started with, in GetRun and ListRuns, and who sees it."""

from __future__ import annotations

import contextlib
import json
import sqlite3
from collections.abc import Callable, Iterator
from contextlib import AbstractAsyncContextManager
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from polos import Polos
from polos.sync import SyncClient
from polos.v1 import run_service_pb2 as pb
from polos.v1.run_pb2 import Run, RunInput
from polos_client.calls.client import PolosClient
from polos_client.define.agent import Agent
from polos_client.define.context import WorkflowContext
from polos_client.define.scripted import call, script, turn
from polos_client.define.workflow import workflow
from polos_client.errors import RunNotFound
from tests.support.issuer import AUDIENCE, Issuer
from tests.support.nats import NatsServer
from tests.support.service import Served, scripted, serving, until

SECRET = "the confidential words"

MESSAGES = [
    {"role": "user", "content": SECRET},
    {"role": "assistant", "content": "Yes?"},
    {
        "role": "user",
        "content": [
            {"type": "text", "text": "What is\x1b[31m this?"},
            {"type": "image_url", "image_url": {"url": "data:image/png;base64,aGk="}},
        ],
    },
]

PLAIN = scripted("Hello.", id="plain")


@workflow(id="echo")
async def echo(ctx: WorkflowContext, payload: dict[str, Any] | None) -> None:
    """Do nothing."""


@workflow(id="below")
async def below(ctx: WorkflowContext, payload: dict[str, Any]) -> Any:
    asked = PLAIN.with_input(payload["topic"])
    await ctx.step.agent_invoke_and_wait("asks", asked)
    return (await ctx.step.suspend("ok", {}))["data"]


@workflow(id="top")
async def top(ctx: WorkflowContext, payload: dict[str, Any]) -> Any:
    handle = await ctx.step.agent_invoke("own", PLAIN.with_input(f"On your own: {SECRET}"))
    return [handle.id, await ctx.step.invoke_and_wait("child", below, {"topic": payload["topic"]})]


Serve = Callable[..., AbstractAsyncContextManager[Served]]


@pytest.fixture(params=["sqlite", "nats"])
def serve(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Serve]:
    """Give what serves the definitions on a store of the test's own, with settings."""
    if request.param == "sqlite":
        yield partial(serving, tmp_path, PLAIN, echo, below, top)
        return
    with NatsServer(tmp_path) as server:
        yield partial(serving, tmp_path, PLAIN, echo, below, top, store=server.url)


async def got(served: Served, run_id: str, *, include_input: bool = True) -> Run:
    request = pb.GetRunRequest(run_id=run_id, include_input=include_input)
    return (await served.runs.GetRun(request)).run


async def previews(served: Served) -> dict[str, str]:
    """Return what the list shows of each run."""
    return {one.run_id: one.input.preview async for one in served.client.list_runs()}


async def created(served: Served, **fields: Any) -> str:
    run = (await served.runs.CreateRun(pb.CreateRunRequest(**fields))).run
    assert not run.HasField("input")
    return run.run_id


async def started(served: Served) -> tuple[str, str, str, str]:
    """Start a tree; return its root, a child, a child of that, and a run of its own."""
    root = (await served.client.invoke("top", {"topic": SECRET})).id
    waiting: list[str] = []

    async def waits() -> bool:
        waiting[:] = [one.run_id async for one in served.client.list_waits()]
        return bool(waiting)

    await until(waits, "the child waits")
    tree = await served.client.get_tree(root)
    (inner,) = [node.run_id for node in tree.nodes if node.workflow_id == "plain"]
    (own,) = [one.run_id async for one in served.client.list_runs(parent_id=root)]
    return root, waiting[0], inner, own


async def test_get_has_the_input_and_the_list_its_beginning(serve: Serve) -> None:
    payload = '{"item":\n  "tea", "n": 1}'
    async with serve() as served:
        text = await created(served, agent_id="plain", input="Where\nis it?\x07 " + "x" * 500)
        messages = await created(served, agent_id="plain", input_messages_json=json.dumps(MESSAGES))
        given = await created(served, agent_id="echo", payload_json=payload)
        nothing = await created(served, agent_id="echo")
        shown = await previews(served)
        assert shown == {
            text: "Where is it? " + "x" * 186 + "…",
            messages: "What is [31m this? [image]",
            given: '{"item": "tea", "n": 1}',
            nothing: "",
        }
        for run_id, expected in (
            (text, RunInput(text="Where\nis it?\x07 " + "x" * 500)),
            (given, RunInput(payload_json=payload)),
        ):
            expected.preview = shown[run_id]
            assert (await got(served, run_id)).input == expected
        told = (await got(served, messages)).input
        assert (json.loads(told.messages_json), told.preview) == (MESSAGES, shown[messages])
        assert not (await got(served, nothing)).HasField("input")
        assert not (await got(served, text, include_input=False)).HasField("input")
        await served.events(text)
        assert (await got(served, text)).input.text.startswith("Where\nis it?\x07 ")
        cancelled = await served.runs.CancelRun(pb.CancelRunRequest(run_id=text))
        assert not cancelled.run.HasField("input")


async def test_the_largest_input_fits_a_response_of_grpc_s_default_size(serve: Serve) -> None:
    text = "\u20ac" * (1024 * 1024 // 3)
    async with serve() as served:
        run_id = await created(served, agent_id="plain", input=text)
        assert (await got(served, run_id)).input.text == text
        assert await served.client.get_input(run_id) == text


async def test_children_and_runs_of_their_own_have_inputs(serve: Serve) -> None:
    async with serve() as served:
        root, child, inner, own = await started(served)
        inputs = {
            root: {"topic": SECRET},
            child: {"topic": SECRET},
            inner: SECRET,
            own: f"On your own: {SECRET}",
        }
        for run_id, expected in inputs.items():
            assert await served.client.get_input(run_id) == expected
        assert await previews(served) == {root: f'{{"topic":"{SECRET}"}}', own: inputs[own]}
        assert (await got(served, child)).input.preview == f'{{"topic":"{SECRET}"}}'
        await served.client.resume("", child, "ok", 1)
        await served.events(root)
        for run_id, expected in inputs.items():
            assert await served.client.get_input(run_id) == expected
        with pytest.raises(RunNotFound):
            await served.client.get_input(f"{root}:999")


async def test_the_child_of_a_tool_has_an_input(tmp_path: Path) -> None:
    inner = scripted("Done.", id="inner")
    asked = turn(call("inner", input="Look it up."))
    outer = Agent("outer", "scripted", script(asked, "Fine."), tools=[inner])
    async with serving(tmp_path, inner, outer) as served:
        handle = await served.client.invoke("outer", {"input": "Go."})
        log = await served.events(handle.id)
        (child,) = {one.run_id for one in log} - {handle.id}
        assert await served.client.get_input(child) == "Look it up."


async def test_a_service_that_shows_no_inputs_tells_and_stores_none_for_lists(
    serve: Serve,
) -> None:
    async with serve(show_inputs=False) as served:
        root, child, inner, own = await started(served)
        text = await created(served, agent_id="plain", input=SECRET)
        for run_id in (root, child, inner, own, text):
            run = await got(served, run_id)
            assert not run.HasField("input")
            assert await served.client.get_input(run_id) is None
            assert (await served.client.get_execution(run_id))["payload"] is None
        page = await served.runs.ListRuns(pb.ListRunsRequest())
        assert SECRET.encode() not in page.SerializeToString()
        assert not any(run.HasField("input") for run in page.runs)
    async with serve() as served:
        assert set((await previews(served)).values()) == {""}
        shown = await created(served, agent_id="plain", input="Shown.")
        assert (await previews(served))[shown] == "Shown."
    async with serve(show_inputs=False) as served:
        page = await served.runs.ListRuns(pb.ListRunsRequest())
        assert not any(run.HasField("input") for run in page.runs)


async def test_a_file_of_a_service_that_shows_none_has_no_previews(tmp_path: Path) -> None:
    async with serving(tmp_path, PLAIN, show_inputs=False) as served:
        await created(served, agent_id="plain", input=SECRET)
        with contextlib.closing(sqlite3.connect(served.path)) as db:
            assert db.execute("SELECT input_preview FROM runs").fetchall() == [("",)]


async def test_whoever_has_a_run_token_does_not_see_the_input(tmp_path: Path) -> None:
    async with (
        Issuer() as issuer,
        serving(tmp_path, PLAIN, echo, jwt_issuer=issuer.url, jwt_audience=AUDIENCE) as served,
    ):
        owner = PolosClient(served.client.address, issuer.token(scope="runs:read runs:write"))
        handle = await owner.invoke("plain", {"input": MESSAGES})
        reader = PolosClient(served.client.address, await owner.run_token(handle.id))
        assert await owner.get_input(handle.id) == MESSAGES
        assert await reader.get_input(handle.id) is None
        assert (await reader.get_execution(handle.id))["payload"] is None
        stranger = PolosClient(served.client.address, issuer.token(scope="runs:read", project="b"))
        with pytest.raises(RunNotFound):
            await stranger.get_input(handle.id)
        for client in (owner, reader, stranger):
            await client.close()


async def test_the_input_of_a_deleted_run_is_gone(serve: Serve) -> None:
    async with serve() as served:
        run_id = await created(served, agent_id="plain", input=SECRET)
        await served.events(run_id)
        await served.client.delete_run(run_id)
        with pytest.raises(RunNotFound):
            await served.client.get_input(run_id)
        assert await previews(served) == {}


def test_code_without_an_event_loop_reads_inputs() -> None:
    with SyncClient(Polos([PLAIN, echo])) as polos:
        handle = polos.start(PLAIN, {"input": MESSAGES, "streaming": True})
        assert polos.get_input(handle.id) == MESSAGES
        assert polos.get_execution(handle.id)["payload"] == {"input": MESSAGES, "streaming": True}
        given = polos.invoke("echo", {"n": 1})
        assert polos.get_input(given.id) == polos.get_execution(given.id)["payload"] == {"n": 1}
        assert [run.input.preview for run in polos.list_runs()] == [
            '{"n":1}',
            "What is [31m this? [image]",
        ]
