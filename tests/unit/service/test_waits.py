"""Answers to the waits of a tree of runs, without a server: on the real store."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from polos.v1.event_pb2 import AgentFinish, AgentStart, WaitKind
from polos.v1.run_pb2 import Wait
from polos_client.errors import (
    AlreadyAnswered,
    AmbiguousWait,
    InvalidRequest,
    RunNotFound,
    StoreUnavailable,
    TooManyCommands,
    WaitExpired,
    WaitNotOpen,
)
from polos_service.caller import ANONYMOUS
from polos_service.catalog import Catalog
from polos_service.reply import LISTED, Reply, ambiguous, wrong_approval
from polos_service.runs.attempt import Attempt, StepOutput
from polos_service.runs.context import RunContext
from polos_service.store import OPEN_BYTES, SETTLED, WaitRecord, refusals
from polos_service.store.sqlite import SqliteStore
from polos_service.waits import Waits
from tests.support.agents import use_cases
from tests.support.runs import SetClock, executing, opened, runnable
from tests.support.service import until
from tests.support.stores import all_events, new_run, soon

SUSPEND, APPROVAL = WaitKind.WAIT_KIND_SUSPEND, WaitKind.WAIT_KIND_APPROVAL


@pytest.fixture
async def store(tmp_path: Path) -> AsyncIterator[SqliteStore]:
    async with opened(tmp_path) as store:
        yield store


def reply(run_id: str, key: str = "", wait_id: int = 0, data: Any = "yes", who: str = "") -> Reply:
    return Reply(
        run_id=run_id,
        step_key=key,
        wait_id=wait_id,
        data_json=f'"{data}"',
        data=data,
        request_id=who,
    )


async def family(ctx: RunContext) -> None:
    """Have two children; they and the root wait with the same key."""

    async def body(attempt: Attempt) -> StepOutput:
        child = await ctx.children.begin(attempt, "sub", AgentStart(agent_id="sub"))
        resumed = await child.wait("ok", SUSPEND)
        await child.finish(AgentFinish(result=resumed.data_json))
        return StepOutput(result_json=resumed.data_json)

    await asyncio.gather(
        *(ctx.step(key, "agent", body, resumes=True) for key in ("a", "b")), ctx.wait("ok", SUSPEND)
    )


@asynccontextmanager
async def waiting(
    store: SqliteStore, function: Any, count: int
) -> AsyncIterator[tuple[Waits, str, list[Wait]]]:
    """Run a function as a run; give the use cases, the run and its waits, once so many are open."""
    async with executing(store, runnable(function)) as executor:
        found = use_cases(store, Catalog(), executor).waits
        run_id = await store.create(new_run())
        every: list[Wait] = []

        async def there() -> bool:
            every[:] = await found.open(ANONYMOUS, run_id)
            return len(every) == count

        await until(there, "the waits are open")
        yield found, run_id, every


async def test_a_key_that_several_runs_of_a_tree_wait_with_is_ambiguous(
    store: SqliteStore,
) -> None:
    async with waiting(store, family, 3) as (waits, run_id, every):
        with pytest.raises(AmbiguousWait) as refused:
            await waits.resume(ANONYMOUS, reply(run_id, "ok"))
        told = "\n".join(f"{one.wait_id} {one.run_id}" for one in every)
        assert refused.value.metadata == {"run_id": run_id, "step_key": "ok", "waits": told}
        assert "3 open waits" in str(refused.value)
        first, second, third = every
        for wait, answer in (
            (first, reply(run_id, wait_id=first.wait_id, data="1")),
            (second, reply(second.run_id, "ok", data="2")),
            (third, reply(run_id, "ok", data="3")),
        ):
            answered = await waits.resume(ANONYMOUS, answer)
            assert answered is not None
            assert (answered.run_id, answered.wait_id) == (wait.run_id, wait.wait_id)
        events = await soon(all_events(store, run_id))
        resumed = {one.run_id: one.resumed for one in events if one.HasField("resumed")}
        said = {one.run_id: f'"{number}"' for number, one in enumerate(every, 1)}
        assert {run: one.data_json for run, one in resumed.items()} == said
        for number, one in enumerate(every, 1):
            for named in (reply(run_id, wait_id=one.wait_id), reply(one.run_id, "ok")):
                with pytest.raises(AlreadyAnswered):
                    await waits.resume(ANONYMOUS, named)
            assert resumed[one.run_id].wait_id == one.wait_id, number


async def test_a_child_that_a_run_does_not_have_is_not_found(store: SqliteStore) -> None:
    async with waiting(store, family, 3) as (waits, run_id, every):
        child = next(one for one in every if one.run_id != run_id)
        for run in (f"{run_id}:{every[0].wait_id + 50}", f"{child.run_id}0", f"{run_id}:"):
            with pytest.raises(RunNotFound):
                await waits.resume(ANONYMOUS, reply(run, "ok"))
        assert await waits.resume(ANONYMOUS, reply(child.run_id, "early")) is None
        assert await waits.early(ANONYMOUS, run_id) == [(child.run_id, "early")]
        other = next(one for one in every if one.run_id not in (run_id, child.run_id))
        with pytest.raises(WaitNotOpen):
            await waits.resume(ANONYMOUS, reply(other.run_id, wait_id=child.wait_id))


async def worked(ctx: RunContext) -> None:
    """Have a step that has ended, a wait that is over, and two that are open."""

    async def body(_: Attempt) -> StepOutput:
        return StepOutput(result_json="1")

    await ctx.step("charge", "run", body)
    await ctx.wait("late", SUSPEND, until=1)
    given_up = asyncio.create_task(ctx.wait("lost", SUSPEND))
    await asyncio.sleep(0.01)
    given_up.cancel()
    await asyncio.wait({given_up})
    await asyncio.gather(
        ctx.wait("danger/approve", APPROVAL, data_json="{}"), ctx.wait("ok", SUSPEND)
    )


async def test_an_answer_to_what_does_not_wait_is_refused_with_what_is_open(
    store: SqliteStore,
) -> None:
    async with waiting(store, worked, 2) as (waits, run_id, (danger, ok)):
        await until_settled(store, run_id, 2)
        now = f"Open: 'danger/approve' (wait_id {danger.wait_id}), 'ok' (wait_id {ok.wait_id})."
        for key, what in (
            ("charge", f"The run has a step 'charge', not a wait. {now}"),
            ("danger", f"The run has a step 'danger', not a wait. {now}"),
            ("pay/approve", f"An approval is answered once it is open, by its wait_id. {now}"),
            ("lost", "The run no longer waits for it."),
        ):
            with pytest.raises(WaitNotOpen) as refused:
                await waits.resume(ANONYMOUS, reply(run_id, key))
            assert str(refused.value) == what
        with pytest.raises(WaitNotOpen, match=f"has the id {ok.wait_id + 9}. Open: 'danger"):
            await waits.resume(ANONYMOUS, reply(run_id, wait_id=ok.wait_id + 9))
        with pytest.raises(WaitExpired):
            await waits.resume(ANONYMOUS, reply(run_id, "late"))
        assert await waits.early(ANONYMOUS, run_id) == []


async def expires(ctx: RunContext) -> None:
    await ctx.wait("ok", SUSPEND, until=time.time_ns() + 3600 * 10**9)


async def test_no_answer_is_accepted_after_one_was_refused_as_late(store: SqliteStore) -> None:
    late = SetClock()
    late.shift = 7200 * 10**9
    async with waiting(store, expires, 1) as (waits, run_id, (wait,)):
        too_late = use_cases(store, Catalog(), clock=late).waits
        for one in (too_late, waits):
            with pytest.raises(WaitExpired):
                await one.resume(ANONYMOUS, reply(run_id, wait_id=wait.wait_id, who="me"))
        events = await soon(all_events(store, run_id))
        assert [one.resumed.expired for one in events if one.HasField("resumed")] == [True]


async def until_settled(store: SqliteStore, run_id: str, count: int) -> None:
    async def there() -> bool:
        found = await store.inbox("default", run_id)
        return sum(one.kind == SETTLED for one in found) == count

    await until(there, "the slots are settled")


async def asks_twice(ctx: RunContext) -> None:
    await ctx.wait("first", SUSPEND)
    await ctx.wait("second", SUSPEND)


async def test_early_answers_never_take_the_room_of_others(
    store: SqliteStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(refusals, "EARLY_LIMIT", 2)
    monkeypatch.setattr(refusals, "INBOX_LIMIT", 1)
    async with waiting(store, asks_twice, 1) as (waits, run_id, _):
        for key in ("secnd", "2nd"):
            assert await waits.resume(ANONYMOUS, reply(run_id, key)) is None
        with pytest.raises(TooManyCommands, match=r"keeps no more answers to waits .* at most 2 "):
            await waits.resume(ANONYMOUS, reply(run_id, "second"))
        assert await waits.resume(ANONYMOUS, reply(run_id, "first", who="r")) is not None
        await until_settled(store, run_id, 1)
        assert await waits.resume(ANONYMOUS, reply(run_id, "first", who="r")) is not None
        with pytest.raises(AlreadyAnswered):
            await waits.resume(ANONYMOUS, reply(run_id, "first", who="other"))
        assert await waits.early(ANONYMOUS, run_id) == [(run_id, "secnd"), (run_id, "2nd")]
        assert await waits.resume(ANONYMOUS, reply(run_id, "second")) is not None
        await soon(all_events(store, run_id))


async def test_an_answer_may_name_what_the_run_executes(store: SqliteStore) -> None:
    async with waiting(store, family, 3) as (waits, run_id, every):
        child = next(one for one in every if one.run_id != run_id)
        wrong = replace(reply(run_id, wait_id=child.wait_id), workflow_id="other")
        with pytest.raises(InvalidRequest) as refused:
            await waits.resume(ANONYMOUS, wrong)
        told = refused.value.violations["workflow_id"]
        assert told == f"is 'other', but run {run_id} executes 'agent' and 'sub'"
        with pytest.raises(InvalidRequest):
            await waits.resume(ANONYMOUS, replace(reply(run_id, "early"), workflow_id="sub"))
        for workflow_id in ("agent", "sub"):
            right = replace(reply(run_id, wait_id=child.wait_id, who="r"), workflow_id=workflow_id)
            answered = await waits.resume(ANONYMOUS, right)
            assert answered is not None
            assert answered.wait_id == child.wait_id


async def approved(ctx: RunContext) -> None:
    """Wait for an approval."""
    await ctx.wait("pay/approve", APPROVAL, data_json="{}")


async def test_an_approval_is_answered_by_its_id_only(store: SqliteStore) -> None:
    async with waiting(store, approved, 1) as (waits, run_id, (wait,)):
        yes = {"approved": True}
        with pytest.raises(InvalidRequest) as refused:
            await waits.resume(ANONYMOUS, reply(run_id, "pay/approve", data=yes))
        assert str(wait.wait_id) in refused.value.violations["wait_id"]
        for data in (True, {}, {"approved": 1}, {"approved": False, "arguments": {}}):
            with pytest.raises(InvalidRequest) as refused:
                await waits.resume(ANONYMOUS, reply(run_id, wait_id=wait.wait_id, data=data))
            assert list(refused.value.violations) == ["data_json"]
        answered = await waits.resume(ANONYMOUS, reply(run_id, wait_id=wait.wait_id, data=yes))
        assert answered is not None
        assert (answered.step_key, answered.kind) == ("pay/approve", APPROVAL)


async def test_an_answer_is_accepted_though_the_index_fails_afterwards(
    store: SqliteStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def asked(ctx: RunContext) -> None:
        await ctx.wait("ok", SUSPEND)

    async def fails(*_: object) -> None:
        raise StoreUnavailable("No store.")

    async with waiting(store, asked, 1) as (waits, run_id, (wait,)):
        close, again = store.close_wait, reply(run_id, "ok", who="r")
        monkeypatch.setattr(store, "close_wait", fails)
        assert await waits.resume(ANONYMOUS, again) == wait
        monkeypatch.setattr(store, "close_wait", close)
        assert await waits.resume(ANONYMOUS, again) == wait


async def test_the_open_waits_of_a_run_are_bounded_in_bytes(store: SqliteStore) -> None:
    run_id = await store.create(new_run())
    data = Wait(data_json="x" * 250_000).SerializeToString()
    for wait_id in range(1, 41):
        record = WaitRecord(run_id=run_id, wait_id=wait_id, create_time=wait_id, data=data)
        await store.open_wait("default", record)
    found = await store.open_waits("default", run_id)
    assert [one.wait_id for one in found] == list(range(1, OPEN_BYTES // len(data) + 1))
    assert len(await store.list_waits("default", 100)) == 40


def test_an_error_lists_a_bounded_part_of_the_waits() -> None:
    found = [Wait(run_id=f"{'r' * 36}:{one}", wait_id=one) for one in range(500)]
    error = ambiguous(reply("r", "k" * 1024), found)
    assert "500 open waits" in str(error)
    assert len(error.metadata["waits"]) < LISTED + 100


@pytest.mark.parametrize(
    ("data", "wrong"),
    [
        ({"approved": True}, ""),
        ({"approved": False, "feedback": "too much"}, ""),
        ({"approved": True, "arguments": {"a": 1}}, ""),
        (None, "is not a JSON object"),
        ([], "is not a JSON object"),
        ({}, "`approved` must be true or false"),
        ({"approved": "yes"}, "`approved` must be true or false"),
        ({"approved": True, "principal": "boss"}, "unknown member 'principal'"),
        ({"approved": True, "feedback": 1}, "`feedback` that is not text"),
        ({"approved": True, "arguments": []}, "`arguments`, an object"),
        ({"approved": False, "arguments": {}}, "only where `approved` is true"),
    ],
)
def test_what_an_approval_takes(data: Any, wrong: str) -> None:
    told = wrong_approval(data)
    assert (wrong in told) if wrong else not told
