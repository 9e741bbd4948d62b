"""The slot of a wait: it decides how the wait ends, and takes no room once the log tells that."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence
from functools import partial
from pathlib import Path

import pytest

from polos_service.runs.answers import CANCELLED, Answer
from polos_service.runs.clock import SystemClock
from polos_service.runs.context import RunContext
from polos_service.runs.executor import Executor
from polos_service.store import SETTLED, Command, WaitRecord, refusals
from polos_service.store.sqlite import SqliteStore
from tests.support.runs import executing, opened, runnable
from tests.support.stores import events_of, new_run
from tests.unit.runs.test_waits import (
    SUSPEND,
    TIMER,
    YES,
    answer,
    ended,
    is_open,
    names,
    running,
    soon,
    until,
    waits,
)


@pytest.fixture
async def store(tmp_path: Path) -> AsyncIterator[SqliteStore]:
    async with opened(tmp_path) as store:
        yield store


async def settled(store: SqliteStore, run_id: str, count: int) -> Sequence[Command]:
    """Wait until the inbox of a run holds so many commands, all of them settled."""
    found: Sequence[Command] = ()

    async def over() -> bool:
        nonlocal found
        found = await store.inbox("default", run_id)
        return len(found) == count and all(one.kind == SETTLED for one in found)

    await until(over)
    return found


async def test_a_run_waits_more_often_than_its_inbox_has_room(
    store: SqliteStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(refusals, "INBOX_LIMIT", 2)
    monkeypatch.setattr(refusals, "INBOX_BYTES", 600_000)
    said = Answer(data_json=f'"{"x" * 250_000}"', request_id="r", principal="ann")

    async def run(ctx: RunContext) -> None:
        for number in range(6):
            until = soon(0) if number == 4 else None
            resumed = await ctx.wait(f"ask {number}", SUSPEND, until=until)
            assert resumed.expired == (number == 4)
        await ctx.wait("end", SUSPEND)

    async with running(store, run) as run_id:
        for number in (0, 1, 2, 3, 5):
            await until(partial(is_open, store, run_id, [f"ask {number}"]))
            await answer(store, run_id, f"ask {number}", said)
        await settled(store, run_id, 6)
        for number in (0, 3, 5):
            stands = await answer(store, run_id, f"ask {number}", said)
            assert stands is not None
            assert said.said_by(stands) == said
            assert YES.said_by(stands) not in (YES, said)
        await answer(store, run_id, "end")
        assert names(await ended(store, run_id))[-1] == "workflow_finish"


async def test_an_answer_that_comes_while_the_code_gives_the_wait_up_is_in_the_log(
    store: SqliteStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The answer is accepted first: the log has it, and the code has not, now and later."""
    raised: list[bool] = []
    command = store.command

    async def after_an_answer(project: str, run_id: str, one: Command) -> Command | None:
        if one.kind == SETTLED:
            stands = await command(project, run_id, YES.to(run_id, "ask"))
            assert stands == YES.to(run_id, "ask"), "the answer is accepted"
        return await command(project, run_id, one)

    monkeypatch.setattr(store, "command", after_an_answer)

    async def run(ctx: RunContext) -> None:
        ask = asyncio.create_task(ctx.wait("ask", SUSPEND))
        await ctx.wait("nap", TIMER, until=soon())
        ask.cancel()
        await asyncio.wait({ask})
        raised.append(ask.cancelled())
        await ctx.wait("end", SUSPEND)

    async with running(store, run, threshold=0.05) as run_id:
        await until(lambda: is_open(store, run_id, ["end"]))
        await settled(store, run_id, 1)
    async with executing_again(store, run):
        await answer(store, run_id, "end")
        events = await ended(store, run_id)
    assert raised == [True, True]
    (resumed,) = [one.resumed for one in events if one.resumed.step_key == "ask"]
    assert (resumed.data_json, resumed.principal) == (YES.data_json, YES.principal)
    assert resumed.given_up


def executing_again(store: SqliteStore, run: object) -> Again:
    return Again(Executor(store, runnable(run), SystemClock(), 10))  # type: ignore[arg-type]


class Again:
    """Another process that executes runs."""

    def __init__(self, executor: Executor) -> None:
        self._executor = executor

    async def __aenter__(self) -> None:
        self._executor.start()

    async def __aexit__(self, *_: object) -> None:
        await self._executor.stop(0)


async def test_a_wait_that_is_given_up_at_the_end_of_the_run_is_in_the_log_before(
    store: SqliteStore,
) -> None:
    async def run(ctx: RunContext) -> None:
        ask = asyncio.create_task(ctx.wait("ask", SUSPEND))
        await until(lambda: is_open(store, run_id, ["ask"]))
        ask.cancel()

    async with running(store, run) as run_id:
        events = await ended(store, run_id)
        assert await waits(store, run_id) == []
    assert names(events) == ["suspended", "resumed", "workflow_finish"]
    assert events[1].resumed.cancelled
    assert events[1].resumed.given_up


async def test_a_wait_that_a_lost_claim_gave_up_is_not_answered_and_not_open(
    store: SqliteStore,
) -> None:
    """Its process ended between the slot and the log; the code gives the wait up again."""
    gives_up = asyncio.Event()

    async def run(ctx: RunContext) -> None:
        ask = asyncio.create_task(ctx.wait("ask", SUSPEND))
        await gives_up.wait()
        ask.cancel()
        await asyncio.wait({ask})
        assert ask.cancelled()

    async with running(store, run) as run_id:
        await until(lambda: is_open(store, run_id, ["ask"]))
    await store.command("default", run_id, CANCELLED.settled(run_id, "ask"))
    async with executing_again(store, run):
        await until(lambda: is_open(store, run_id, []))
        assert [one.resumed.cancelled for one in (await events_of(store, run_id))[1:]] == [True]
        gives_up.set()
        assert names(await ended(store, run_id)) == ["suspended", "resumed", "workflow_finish"]


async def test_what_a_lost_claim_left_in_inbox_and_index_is_tidied_by_the_next(
    store: SqliteStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As after a crash behind `resumed`, and as versions left it that settled nothing."""

    async def lost(*_: object) -> None:
        return None

    async def run(ctx: RunContext) -> None:
        for key in ("ask", "end"):
            assert (await ctx.wait(key, SUSPEND)).data_json == YES.data_json

    with monkeypatch.context() as patch:
        patch.setattr(store, "settle", lost)
        patch.setattr(store, "close_wait", lost)
        async with running(store, run) as run_id:
            await answer(store, run_id, "ask")
            await until(lambda: is_open(store, run_id, ["ask", "end"]))
    (left,) = await store.inbox("default", run_id)
    assert left == YES.to(run_id, "ask")
    async with executing_again(store, run):
        await until(lambda: is_open(store, run_id, ["end"]))
        (left,) = await settled(store, run_id, 1)
        assert YES.said_by(left) == YES
        await answer(store, run_id, "end")
        await ended(store, run_id)


async def test_a_wait_that_the_log_does_not_have_leaves_the_index(store: SqliteStore) -> None:
    """A process can die after it has listed a wait, and before it has stored its event."""

    async def once(ctx: RunContext) -> None:
        await ctx.wait("ok", SUSPEND)

    run_id = await store.create(new_run())

    async def listed() -> list[int]:
        return [one.wait_id for one in await store.open_waits("default", run_id)]

    async with executing(store, runnable(once)):
        await until(partial(is_open, store, run_id, ["ok"]))
    (own,) = await listed()
    await store.open_wait("default", WaitRecord(run_id=run_id, wait_id=99, create_time=1, data=b""))
    async with executing(store, runnable(once)):

        async def swept() -> bool:
            return await listed() == [own]

        await until(swept)
