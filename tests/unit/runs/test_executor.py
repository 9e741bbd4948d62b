"""The executor: which runs it takes up, and how each ends."""

from __future__ import annotations

import asyncio
import time

import pytest
from structlog.testing import capture_logs

from polos.v1.error_pb2 import FailureReason
from polos.v1.run_pb2 import RunState
from polos_service.errors import StepError
from polos_service.runs.attempt import Attempt, StepOutput
from polos_service.runs.context import RunContext
from polos_service.store.sqlite import SqliteStore
from tests.support.runs import done, executing, kinds, runnable, text
from tests.support.stores import ALL, all_events, claimed, events_of, new_run, settled, soon, until

pytestmark = pytest.mark.usefixtures("impatient")


async def forever(_attempt: Attempt) -> StepOutput:
    await asyncio.Event().wait()
    raise AssertionError


async def test_a_run_is_driven_to_its_terminal_event(store: SqliteStore) -> None:
    async def run(ctx: RunContext) -> None:
        await ctx.step("a", "tool", done)

    async with executing(store, runnable(run)):
        run_id = await store.create(new_run())
        events = await all_events(store, run_id)
    assert kinds(events) == ["step_start a/1", "step_finish a/1", "workflow_finish"]
    assert (await store.get("default", run_id)).state == RunState.RUN_STATE_COMPLETED


async def test_so_many_runs_at_once_and_the_others_in_order(store: SqliteStore) -> None:
    begun: list[str] = []
    gates: dict[str, asyncio.Event] = {}

    async def run(ctx: RunContext) -> None:
        begun.append(ctx.run_id)
        await gates.setdefault(ctx.run_id, asyncio.Event()).wait()

    async with executing(store, runnable(run), limit=2) as executor:
        created = [await store.create(new_run()) for _ in range(5)]
        for index in range(3):
            await until(lambda expected=index + 2: len(begun) == expected)  # type: ignore[misc]
            await settled()
            assert begun == created[: index + 2]
            assert executor.running == 2
            gates[created[index]].set()
            await all_events(store, created[index])
        for run_id in created[3:]:
            await until(lambda run_id=run_id: run_id in gates)  # type: ignore[misc]
            gates[run_id].set()
            await all_events(store, run_id)


async def test_a_step_s_failure_is_the_run_s_error(store: SqliteStore) -> None:
    reason = FailureReason.FAILURE_REASON_MODEL_RATE_LIMITED

    async def run(_ctx: RunContext) -> None:
        raise StepError(reason, "slow down", retryable=True, provider_request_id="req-1")

    with capture_logs() as logs:
        async with executing(store, runnable(run)) as executor:
            run_id = await store.create(new_run())
            (event,) = await all_events(store, run_id)
            await until(lambda: executor.running == 0)
    error = event.error
    assert (error.reason, error.message, error.retryable) == (reason, "slow down", True)
    assert (error.provider_request_id, error.error_id) == ("req-1", "")
    assert logs == [
        {
            "event": "run_failed",
            "log_level": "warning",
            "run_id": run_id,
            "reason": "model_rate_limited",
            "message": "slow down",
        }
    ]
    assert (await store.get("default", run_id)).state == RunState.RUN_STATE_FAILED


SECRET = "sk-secret in an exception"


@pytest.mark.parametrize(
    "raised",
    [
        RuntimeError(SECRET),
        ExceptionGroup(SECRET, [ValueError(SECRET)]),
        asyncio.CancelledError(SECRET),
        BaseExceptionGroup(SECRET, [asyncio.CancelledError(SECRET)]),
        SystemExit(SECRET),
    ],
    ids=lambda error: type(error).__name__,
)
async def test_an_unexpected_exception_ends_the_run_without_its_text(
    store: SqliteStore, raised: BaseException
) -> None:
    async def run(ctx: RunContext) -> None:
        await ctx.step("a", "tool", done)
        raise raised

    with capture_logs() as logs:
        async with executing(store, runnable(run)):
            run_id = await store.create(new_run())
            events = await all_events(store, run_id)
    error = events[-1].error
    assert error.reason == FailureReason.FAILURE_REASON_INTERNAL
    assert len(error.error_id) == 32
    assert error.error_id in error.message
    assert not error.retryable
    found = await store.read("default", run_id, 0, ALL)
    assert all(SECRET.encode() not in one.data for one in found.frames)
    (entry,) = [one for one in logs if one["event"] == "run_failed"]
    assert (entry["error_id"], entry["run_id"]) == (error.error_id, run_id)
    assert entry["exc_info"]


async def test_a_run_that_takes_longer_than_its_timeout_fails(store: SqliteStore) -> None:
    async def run(ctx: RunContext) -> None:
        await ctx.step("a", "tool", forever)

    async with executing(store, runnable(run)):
        now = time.time_ns()
        run_id = await store.create(new_run(create_time=now, deadline=now + 200_000_000))
        events = await all_events(store, run_id)
    assert kinds(events) == ["step_start a/1", "error"]
    assert events[-1].error.reason == FailureReason.FAILURE_REASON_RUN_TIMEOUT
    assert 200 <= events[-1].error.duration.ToMilliseconds() < 5000


async def test_a_timeout_counts_from_the_creation_and_over_restarts(store: SqliteStore) -> None:
    async def run(ctx: RunContext) -> None:
        await ctx.step("a", "tool", forever)

    claim = await claimed(store, deadline=time.time_ns() - 1)
    await store.release(claim)
    async with executing(store, runnable(run)):
        events = await all_events(store, claim.run_id)
    assert events[-1].error.reason == FailureReason.FAILURE_REASON_RUN_TIMEOUT


async def test_a_timeout_ends_a_run_whose_code_swallows_cancellation(store: SqliteStore) -> None:
    free = asyncio.Event()

    async def run(_ctx: RunContext) -> None:
        while not free.is_set():
            try:
                await free.wait()
            except asyncio.CancelledError:
                continue

    async with executing(store, runnable(run)):
        run_id = await store.create(new_run(deadline=time.time_ns() + 100_000_000))
        try:
            await asyncio.wait_for(store.wait("default", run_id, 0), 5)
        finally:
            free.set()
        (event,) = await all_events(store, run_id)
    assert event.error.reason == FailureReason.FAILURE_REASON_RUN_TIMEOUT


async def test_stop_hands_runs_over_and_the_next_executor_resumes_them(store: SqliteStore) -> None:
    calls: list[str] = []
    second_begun, restarted = asyncio.Event(), False

    async def run(ctx: RunContext) -> None:
        async def first(_attempt: Attempt) -> StepOutput:
            calls.append("first")
            return StepOutput(result_json='"kept"')

        async def second(attempt: Attempt) -> StepOutput:
            calls.append("second")
            await attempt.emit(text("half", attempt))
            await attempt.checkpoint()
            second_begun.set()
            return await (done if restarted else forever)(attempt)

        assert (await ctx.step("first", "tool", first)).result_json == '"kept"'
        await ctx.step("second", "tool", second)

    run_id = await store.create(new_run())
    async with executing(store, runnable(run)):
        await soon(second_begun.wait())
    assert (await store.get("default", run_id)).state == RunState.RUN_STATE_QUEUED
    restarted = True
    async with executing(store, runnable(run)):
        events = await all_events(store, run_id)
    assert calls == ["first", "second", "second"]
    assert kinds(events) == [
        "step_start first/1",
        "step_finish first/1",
        "step_start second/1",
        "text_delta second/1",
        "step_retry second/2",
        "text_delta second/2",
        "step_finish second/2",
        "workflow_finish",
    ]


async def test_stop_lets_runs_finish_in_their_grace_and_takes_up_no_further(
    store: SqliteStore,
) -> None:
    gate = asyncio.Event()

    async def run(_ctx: RunContext) -> None:
        await gate.wait()

    run_id = await store.create(new_run())
    async with executing(store, runnable(run)) as executor:
        await until(lambda: executor.running == 1)
        stopping = asyncio.create_task(executor.stop(30))
        await settled()
        late = await store.create(new_run())
        await settled()
        gate.set()
        await soon(stopping)
    assert kinds(await events_of(store, run_id)) == ["workflow_finish"]
    assert (await store.get("default", late)).state == RunState.RUN_STATE_QUEUED


async def test_a_fenced_run_stops_at_once_and_writes_nothing(store: SqliteStore) -> None:
    stopped = asyncio.Event()
    begun, fenced = asyncio.Event(), asyncio.Event()

    async def run(ctx: RunContext) -> None:
        try:
            await ctx.step("a", "tool", work)
        finally:
            stopped.set()

    async def work(attempt: Attempt) -> StepOutput:
        begun.set()
        await fenced.wait()
        await attempt.emit(text("too late", attempt))
        return await forever(attempt)

    run_id = await store.create(new_run())
    with capture_logs() as logs:
        async with executing(store, runnable(run), limit=1) as executor:
            await soon(begun.wait())
            await until_length(store, run_id, 1)
            mine = await taken_over(store, run_id)
            fenced.set()
            await soon(stopped.wait())
            await until(lambda: executor.running == 0)
    assert [one["event"] for one in logs] == ["claim_lost"]
    assert kinds(await events_of(store, run_id)) == ["step_start a/1"]
    record = await store.get("default", run_id)
    assert record.state == RunState.RUN_STATE_RUNNING, "it is the new holder's, not released"
    assert mine == 2


async def until_length(store: SqliteStore, run_id: str, length: int) -> None:
    await soon(store.wait("default", run_id, length - 1))


async def taken_over(store: SqliteStore, run_id: str) -> int:
    """Claim a run that is held, as another process would, and return the epoch."""

    claim = await store.claim_run("default", run_id, force=True)
    assert claim is not None
    return claim.epoch


async def test_a_run_that_ends_leaves_its_slot_to_the_next(store: SqliteStore) -> None:
    async def run(ctx: RunContext) -> None:
        if ctx.run_id == first:
            raise RuntimeError("broken")

    first = await store.create(new_run())
    second = await store.create(new_run())
    with capture_logs():
        async with executing(store, runnable(run), limit=1):
            await all_events(store, first)
            await all_events(store, second)
