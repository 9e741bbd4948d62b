"""Code that was changed while its run was under way, and asks for other steps than before."""

from __future__ import annotations

import asyncio
from contextlib import suppress

import pytest
from structlog.testing import capture_logs

from polos.v1.error_pb2 import FailureReason
from polos.v1.event_pb2 import AgentFinish, AgentStart
from polos_service.errors import Nondeterministic
from polos_service.runs import executor as module
from polos_service.runs.attempt import Attempt, StepOutput
from polos_service.runs.context import RunContext
from polos_service.runs.endings import MAX_CLAIMS
from polos_service.runs.leftovers import KEYS_SHOWN
from polos_service.store import Claim
from polos_service.store.sqlite import SqliteStore
from tests.support.runs import context, done, executing, kinds, runnable
from tests.support.stores import all_events, claimed, events_of, soon, until


async def begun(store: SqliteStore, *keys: str, finished: bool = True, **fields: int) -> Claim:
    """Leave a run in the queue whose log has these steps, of the kind `tool`."""
    claim = await claimed(store, **fields)
    async with context(store, claim) as ctx:
        for key in keys:
            if finished:
                await soon(ctx.step(key, "tool", done))
            else:
                with pytest.raises(asyncio.CancelledError):
                    await ctx.step(key, "tool", cut)
    await store.release(claim)
    return claim


async def cut(attempt: Attempt) -> StepOutput:
    await attempt.checkpoint()
    raise asyncio.CancelledError


@pytest.mark.parametrize("finished", [True, False])
async def test_a_recorded_step_of_another_kind_is_refused(
    store: SqliteStore,
    finished: bool,  # noqa: FBT001
) -> None:
    claim = await begun(store, "a", finished=finished)
    again = await store.claim_run("default", claim.run_id)
    assert again is not None
    async with context(store, again) as ctx:
        with pytest.raises(Nondeterministic, match="'a' as 'tool'") as raised:
            await soon(ctx.step("a", "llm", done))
    assert claim.run_id in str(raised.value)
    assert raised.value.details == {
        "code": "nondeterministic",
        "step_key": "a",
        "recorded": "tool",
        "asked": "llm",
    }


async def test_a_rollback_of_the_code_goes_on_with_the_run(
    store: SqliteStore, impatient: None
) -> None:
    """The run is neither ended nor given up, however often it is tried in the meantime."""
    claim = await begun(store, "a")
    changed, tried, swallowed = True, 0, []

    async def run(ctx: RunContext) -> None:
        nonlocal changed, tried
        tried += 1
        changed = tried <= MAX_CLAIMS + 3
        try:
            await ctx.step("a", "llm" if changed else "tool", done)
        except Exception as error:  # noqa: BLE001 - as code may do
            swallowed.append(error)
        await ctx.step("b", "tool", done)

    with capture_logs() as logs:
        async with executing(store, runnable(run)):
            events = await all_events(store, claim.run_id)
    assert kinds(events) == [
        "step_start a/1",
        "step_finish a/1",
        "step_start b/1",
        "step_finish b/1",
        "workflow_finish",
    ]
    assert swallowed == [], "the code was not told, and could not go on regardless"
    left = [one for one in logs if one["event"] == "run_left"]
    assert len(left) == MAX_CLAIMS + 3
    told = {key: left[0][key] for key in ("run_id", "code", "step_key", "recorded", "asked")}
    assert told == {
        "run_id": claim.run_id,
        "code": "nondeterministic",
        "step_key": "a",
        "recorded": "tool",
        "asked": "llm",
    }


async def test_code_that_swallows_its_cancellation_records_nothing(
    store: SqliteStore, impatient: None
) -> None:
    """The body of a step that would go on with a fallback, which a rollback must not find."""
    changed, waiting = False, asyncio.Event()

    async def run(ctx: RunContext) -> None:
        async def body(attempt: Attempt) -> StepOutput:
            child = await ctx.children.begin(attempt, "sub", AgentStart())
            try:
                await child.step("a", "llm" if changed else "tool", done)
            except BaseException:  # noqa: BLE001 - as code may do
                return StepOutput(result_json='"fallback"')
            waiting.set()
            await asyncio.Event().wait()
            raise AssertionError

        await ctx.step("ask", "agent", body, resumes=True)

    claim = await claimed(store)
    await store.release(claim)
    async with executing(store, runnable(run)):
        await soon(waiting.wait())
    before, changed = await events_of(store, claim.run_id), True
    with capture_logs() as logs:
        async with executing(store, runnable(run)):
            await until(lambda: len([one for one in logs if one["event"] == "run_left"]) > 1)
    assert await events_of(store, claim.run_id) == before


async def test_it_leaves_the_run_from_inside_a_task_group_and_a_child(
    store: SqliteStore, impatient: None
) -> None:
    changed = False
    waiting = asyncio.Event()

    async def run(ctx: RunContext) -> None:
        async def body(attempt: Attempt) -> StepOutput:
            child = await ctx.children.begin(attempt, "sub", AgentStart())
            await child.step("nested", "llm" if changed else "tool", done)
            with suppress(Exception):
                async with asyncio.TaskGroup() as group:
                    group.create_task(child.step("last", "llm" if changed else "tool", hold))
            await child.finish(AgentFinish())
            return StepOutput(result_json='"told"')

        await ctx.step("ask", "agent", body, resumes=True)

    async def hold(attempt: Attempt) -> StepOutput:
        if not changed:
            waiting.set()
            await asyncio.Event().wait()
        return await done(attempt)

    claim = await claimed(store)
    await store.release(claim)
    async with executing(store, runnable(run)):
        await soon(waiting.wait())
    before = await events_of(store, claim.run_id)
    changed = True
    with capture_logs() as logs:
        async with executing(store, runnable(run)):
            await until(lambda: any(one["event"] == "run_left" for one in logs))
    assert await events_of(store, claim.run_id) == before
    assert logs[0]["step_key"] == "nested"


async def test_a_cancel_ends_such_a_run(
    store: SqliteStore, impatient: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "RETRY_PAUSE", 1000.0)
    monkeypatch.setattr(module, "RETRY_PAUSE_LIMIT", 1000.0)
    claim = await begun(store, "a")

    async def run(ctx: RunContext) -> None:
        await ctx.step("a", "llm", done)

    with capture_logs() as logs:
        async with executing(store, runnable(run)) as executor:
            await until(lambda: bool(logs))
            await until(lambda: executor.running == 0)
            await executor.cancel("default", claim.run_id)
            events = await all_events(store, claim.run_id)
    assert kinds(events)[-1] == "run_cancelled"


async def test_its_deadline_ends_such_a_run(store: SqliteStore, impatient: None) -> None:
    claim = await begun(store, "a", deadline=1)

    async def run(ctx: RunContext) -> None:
        await ctx.step("a", "llm", done)

    async with executing(store, runnable(run)):
        events = await all_events(store, claim.run_id)
    assert events[-1].error.reason == FailureReason.FAILURE_REASON_RUN_TIMEOUT


async def test_steps_that_the_code_no_longer_asks_for_are_a_warning(store: SqliteStore) -> None:
    keys = [f"old:{number}" for number in range(KEYS_SHOWN + 5)]
    claim = await begun(store, "kept", *keys)

    async def run(ctx: RunContext) -> None:
        await ctx.step("kept", "tool", done)
        await ctx.step("new", "tool", done)

    with capture_logs() as logs:
        async with executing(store, runnable(run)):
            events = await all_events(store, claim.run_id)
    assert kinds(events)[-1] == "workflow_finish"
    (warning,) = logs
    assert (warning["event"], warning["log_level"]) == ("steps_unasked", "warning")
    assert (warning["run_id"], warning["count"]) == (claim.run_id, len(keys))
    assert warning["step_keys"] == ", ".join(keys[:KEYS_SHOWN])


@pytest.mark.parametrize("key", ["", "x" * 1025, "ä" * 513])
async def test_a_key_that_no_event_can_name_is_refused(store: SqliteStore, key: str) -> None:
    async with context(store, await claimed(store)) as ctx:
        with pytest.raises(ValueError, match="1 to 1024 bytes"):
            await ctx.step(key, "tool", done)
        await ctx.step("x" * 1024, "tool", done)
