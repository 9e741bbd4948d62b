"""`polos.sync`: the client for code without an event loop, at a service in this process."""

from __future__ import annotations

import asyncio
import gc
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import pytest

from polos import (
    Agent,
    DefinitionError,
    Polos,
    RunNotFound,
    WorkflowContext,
    scripted,
    tool,
    workflow,
)
from polos.sync import SyncClient, wait
from tests.support.program import ROOT

ECHO = Agent(
    id="sync-echo", provider="scripted", model=scripted.script(scripted.turn("One ", "two."))
)

TYPED = Agent(
    id="sync-typed",
    provider="scripted",
    model=scripted.script(scripted.turn('{"one": ["two', '"]}')),
    output_schema=dict[str, list[str]],
)


@workflow(id="sync-sum")
async def total(ctx: WorkflowContext, payload: dict[str, int]) -> int:
    return sum(payload.values())


@tool
async def waits_for_itself() -> str:
    """Call the facade in the loop in which it works."""
    try:
        wait(asyncio.sleep(0))
    except RuntimeError as error:
        return str(error)
    return "accepted"


LOOPING = Agent(
    id="sync-loop",
    provider="scripted",
    model=scripted.script(scripted.turn(scripted.call("waits_for_itself")), "Done."),
    tools=[waits_for_itself],
)


@pytest.fixture(scope="module")
def polos() -> Iterator[SyncClient]:
    with SyncClient(Polos([ECHO, TYPED, total, LOOPING])) as client:
        yield client


def test_runs_and_streams(polos: SyncClient) -> None:
    assert polos.run(ECHO, "Hello").result == "One two."
    assert polos.run(total, {"a": 1, "b": 2}) == 3
    stream = polos.stream(ECHO, "Hello", session_id="one")
    assert "".join(stream.text_chunks) == stream.text() == stream.result().result == "One two."
    assert [event.proto.sequence for event in stream.events][:2] == [1, 2]
    assert stream.get()["status"] == "completed"
    assert not stream.cancel()


def test_the_answer_so_far(polos: SyncClient) -> None:
    stream = polos.stream(TYPED, "Hello")
    *_, last = stream.partial
    assert last == stream.result().result == {"one": ["two"]}
    with pytest.raises(DefinitionError, match="has no output_schema"):
        next(polos.stream(ECHO, "Hello").partial)


def test_what_the_program_does_not_have_is_started_by_its_id(polos: SyncClient) -> None:
    handle = polos.invoke("sync-sum", {"a": 4})
    *_, last = polos.stream_workflow(workflow_run_id=handle.id)
    assert last.event_type == "workflow_finish"
    assert wait(handle.get(polos.client))["result"] == 4
    started = polos.start(total, {"a": 5})
    assert {handle.id, started.id} <= {run.run_id for run in polos.list_runs()}
    with pytest.raises(RunNotFound):
        polos.get_execution("nothing")


def test_any_number_of_threads_use_one_client(polos: SyncClient) -> None:
    def work(number: int) -> tuple[int, str]:
        text = "".join(polos.stream(ECHO, "Hello").text_chunks)
        return polos.run(total, {"n": number}), text

    with ThreadPoolExecutor(8) as pool:
        assert list(pool.map(work, range(24))) == [(n, "One two.") for n in range(24)]


def test_a_loop_that_is_left_early_closes_its_call(polos: SyncClient) -> None:
    chunks = polos.stream(ECHO, "Hello").text_chunks
    assert next(chunks) in "One two."
    del chunks
    gc.collect()
    assert polos.run(total, {"a": 1}) == 1


async def test_a_program_with_a_loop_of_its_own_may_block_it(polos: SyncClient) -> None:
    assert polos.run(total, {"a": 2}) == 2  # a notebook does


async def test_a_service_in_the_loop_that_a_call_blocks_says_so() -> None:
    polos = Polos()
    await polos.start()
    try:
        handle = await total.invoke(polos, {"a": 1})
        blocking = SyncClient(polos)
        for call in (
            lambda: blocking.run(total, {"a": 2}),
            lambda: blocking.invoke("sync-sum", {"a": 2}),
            lambda: list(blocking.list_runs()),
            lambda: wait(handle.get(polos)),
            lambda: blocking.stream(ECHO, "Hello"),
        ):
            with pytest.raises(RuntimeError, match=r"event loop of this thread.*Await the async"):
                call()
        assert await asyncio.to_thread(blocking.run, total, {"a": 2}) == 2
        assert await total.run(polos, {"a": 3}) == 3
    finally:
        await polos.stop()


async def test_a_service_with_a_loop_of_its_own_is_called_from_any_other() -> None:
    polos = Polos()
    wait(polos.start())
    try:
        assert SyncClient(polos).run(total, {"a": 2}) == 2
        assert await total.run(polos, {"a": 3}) == 3
    finally:
        wait(polos.stop())


def test_code_that_would_wait_for_itself_is_told(polos: SyncClient) -> None:
    result = polos.run(LOOPING, "Hello")
    assert "would wait for itself" in str(result.tool_results[0].result)


def test_an_interrupted_wait_cancels_its_work() -> None:
    cancelled = threading.Event()

    async def work() -> None:
        main = threading.main_thread().ident
        assert main is not None
        while sys._current_frames()[main].f_code.co_filename != threading.__file__:
            await asyncio.sleep(0.001)  # until it waits
        signal.pthread_kill(main, signal.SIGINT)  # Ctrl-C
        try:
            await asyncio.Event().wait()
        finally:
            cancelled.set()

    with pytest.raises(KeyboardInterrupt):
        wait(work())
    assert cancelled.wait(30)


FORKING = """
import os, sys
from polos import PolosClient
from polos.sync import SyncClient, wait

async def answer():
    return 42

client = SyncClient(PolosClient(sys.argv[1]))
print("parent", wait(answer()), flush=True)  # as a server does that loads its application first
if os.fork() == 0:
    print("child", [one.agent_id for one in client.list_agents()], flush=True)
    os._exit(0)
os.wait()
print("parent", [one.agent_id for one in client.list_agents()], flush=True)
"""


def test_a_process_that_was_forked_has_a_loop_of_its_own(polos: SyncClient) -> None:
    command = [sys.executable, "-W", "error", "-c", FORKING, polos.client.address]
    done = subprocess.run(command, check=True, timeout=60, cwd=ROOT, capture_output=True, text=True)
    agents = [one.agent_id for one in polos.list_agents()]
    assert done.stdout.splitlines() == ["parent 42", f"child {agents}", f"parent {agents}"]
    assert done.stderr == ""
