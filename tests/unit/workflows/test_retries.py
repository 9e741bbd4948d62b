"""A workflow's function that raises: it starts over, and then the run fails with its message."""

from __future__ import annotations

import asyncio
import sys
from typing import Any

import pytest

from polos.v1.error_pb2 import FailureReason
from polos_client.define.context import WorkflowContext
from polos_client.define.workflow import workflow
from polos_client.errors import StepExecutionError
from polos_service.store.sqlite import SqliteStore
from tests.support.flows import flowing, kinds, result_of
from tests.support.stores import until

LONG = "x" * 500

GROUP = "ExceptionGroup: both (2 sub-exceptions): KeyError: 'ok'; ValueError"


async def test_finished_steps_are_not_repeated(store: SqliteStore) -> None:
    calls: list[str] = []
    counts: list[tuple[int, int]] = []

    @workflow(id="retries")
    async def function(ctx: WorkflowContext) -> Any:
        counts.append((ctx.retry_count, ctx.attempt))
        first: object = await ctx.step.run("first", calls.append, "first")
        await ctx.step.wait_for("nap", seconds=0.001)
        if ctx.retry_count < 2:
            raise ValueError(f"no {ctx.retry_count}")
        await ctx.step.run("last", lambda: calls.append("last"))
        return first

    async with flowing(store, function) as flows:
        events = await flows.run(function)
    assert calls == ["first", "last"]
    assert counts == [(0, 1), (1, 2), (2, 3)]
    assert kinds(events) == [
        "workflow_start",
        "step_start first 1",
        "step_finish first 1",
        "suspended nap",
        "resumed nap due",
        "workflow_retry 2",
        "workflow_retry 3",
        "step_start last 1",
        "step_finish last 1",
        "workflow_finish",
    ]
    assert [one.workflow_retry.message for one in events[5:7]] == [
        "ValueError: no 0",
        "ValueError: no 1",
    ]


@pytest.mark.parametrize("form", ["async", "sync"])
@pytest.mark.parametrize(
    ("error", "message"),
    [
        (ValueError("no money"), "ValueError: no money"),
        (ValueError(), "ValueError"),
        (KeyError("ok"), "KeyError: 'ok'"),
        (SystemExit("bye"), "SystemExit: bye"),
        (ExceptionGroup("both", [KeyError("ok"), ValueError()]), GROUP),
        (KeyboardInterrupt(), "KeyboardInterrupt"),
        (asyncio.CancelledError(), "CancelledError"),
    ],
)
async def test_then_the_run_fails_with_the_message(
    store: SqliteStore, error: BaseException, message: str, form: str
) -> None:
    @workflow(id="fails-async")
    async def later(ctx: WorkflowContext) -> None:
        raise error

    @workflow(id="fails-sync")
    def now(ctx: WorkflowContext) -> None:
        raise error

    function = later if form == "async" else now
    async with flowing(store, function, max_retries=1) as flows:
        events = await flows.run(function)
    assert kinds(events) == ["workflow_start", "workflow_retry 2", "error"]
    assert events[-1].error.message == message
    assert events[-1].error.reason == FailureReason.FAILURE_REASON_WORKFLOW_FAILED
    assert not events[-1].error.error_id


async def test_a_failed_step_fails_the_run_at_once(store: SqliteStore) -> None:
    @workflow(id="step-fails")
    async def function(ctx: WorkflowContext) -> None:
        raise StepExecutionError("no")

    async with flowing(store, function) as flows:
        events = await flows.run(function)
    assert kinds(events) == ["workflow_start", "error"]
    assert events[-1].error.message == "no"


def failures(*reasons: str) -> list[Exception]:
    return [StepExecutionError(reason) for reason in reasons]


@pytest.mark.parametrize(
    ("group", "message"),
    [
        (ExceptionGroup("one", failures("no")), "no"),
        (ExceptionGroup("same", failures("no", "no")), "no"),
        (ExceptionGroup("two", failures("no", "never")), "2 failures: no; never"),
        (
            ExceptionGroup("deep", [ExceptionGroup("er", failures("a", "b")), *failures("c", "a")]),
            "3 failures: a; b; c",
        ),
        (
            ExceptionGroup("many", failures(*(f"{at} {LONG}" for at in range(12)))),
            f"12 failures: {'; '.join(f'{at} {LONG[:298]}...' for at in range(10))}; and 2 more",
        ),
    ],
)
async def test_a_group_of_failed_steps_fails_the_run_at_once(
    store: SqliteStore, group: Exception, message: str
) -> None:
    @workflow(id="group-fails")
    async def function(ctx: WorkflowContext) -> None:
        raise group

    async with flowing(store, function) as flows:
        events = await flows.run(function)
    assert kinds(events) == ["workflow_start", "error"]
    assert events[-1].error.message == message


async def test_steps_that_fail_in_parallel_fail_the_run_and_its_parent_at_once(
    store: SqliteStore,
) -> None:
    @workflow(id="parallel")
    async def parallel(ctx: WorkflowContext) -> None:
        steps = (ctx.step.run(key, int, "much", max_retries=0) for key in ("a", "b"))
        found = await asyncio.gather(*steps, return_exceptions=True)
        raise ExceptionGroup("payments", [one for one in found if isinstance(one, Exception)])

    @workflow(id="above")
    async def above(ctx: WorkflowContext) -> None:
        async with asyncio.TaskGroup() as group:
            group.create_task(ctx.step.invoke_and_wait("child", parallel))
            group.create_task(ctx.step.suspend("ask"))

    async with flowing(store, above, parallel) as flows:
        events = await flows.run(above)
    assert not [kind for kind in kinds(events) if kind.startswith("workflow_retry")]
    why = "failed: ValueError: invalid literal for int() with base 10: 'much'"
    assert events[-1].error.message == (
        f"Step 'child' failed: 2 failures: Step 'a' {why}; Step 'b' {why}"
    )


async def test_a_group_with_another_exception_starts_over(store: SqliteStore) -> None:
    @workflow(id="mixed")
    async def function(ctx: WorkflowContext) -> None:
        raise ExceptionGroup("mixed", [*failures("no"), ValueError("other")])

    async with flowing(store, function, max_retries=1) as flows:
        events = await flows.run(function)
    assert kinds(events) == ["workflow_start", "workflow_retry 2", "error"]
    assert "StepExecutionError: no; ValueError: other" in events[-1].error.message


async def test_retries_count_across_crashes(store: SqliteStore) -> None:
    passes: list[int] = []
    hang = True

    @workflow(id="crashes")
    async def function(ctx: WorkflowContext) -> None:
        passes.append(ctx.retry_count)
        if ctx.retry_count == 1 and hang:
            await asyncio.Event().wait()
        raise ValueError("no")

    async with flowing(store, function) as flows:
        run_id = await flows.start(function)
        await until(lambda: passes == [0, 1])
        hang = False
        await flows.restart()
        events = await flows.ended(run_id)
    assert passes == [0, 1, 1, 2]
    assert kinds(events) == ["workflow_start", "workflow_retry 2", "workflow_retry 3", "error"]


async def test_what_is_open_goes_on_after_a_retry(store: SqliteStore) -> None:
    """A branch of a gather raises: the wait stays open, and the step begins its next attempt."""
    began: list[int] = []

    async def work() -> str:
        began.append(1)
        if len(began) == 1:
            await asyncio.Event().wait()
        return "done"

    @workflow(id="open")
    async def function(ctx: WorkflowContext) -> Any:
        async def fail() -> None:
            await until(lambda: bool(began))
            if not ctx.retry_count:
                raise ValueError("no")

        found = await asyncio.gather(ctx.step.suspend("ask"), ctx.step.run("work", work), fail())
        return [found[0]["data"], found[1]]

    async with flowing(store, function) as flows:
        run_id = await flows.start(function)
        await flows.holds(run_id, "step_finish work 2")
        await flows.answer(run_id, "ask", "yes")
        events = await flows.ended(run_id)
    assert result_of(events) == ["yes", "done"]
    assert sorted(kinds(events)[1:3]) == ["step_start work 1", "suspended ask"]
    assert kinds(events)[3:] == [
        "workflow_retry 2",
        "step_retry work 2",
        "step_finish work 2",
        "resumed ask answered",
        "workflow_finish",
    ]


async def test_what_the_code_gave_up_begins_anew_after_a_retry(store: SqliteStore) -> None:
    @workflow(id="given-up")
    async def function(ctx: WorkflowContext) -> Any:
        async def work() -> str:
            if not ctx.retry_count:
                await asyncio.Event().wait()
            return "done"

        async with asyncio.timeout(0.05 if not ctx.retry_count else None):
            return await ctx.step.run("work", work)

    async with flowing(store, function) as flows:
        events = await flows.run(function)
    assert kinds(events)[1:-1] == [
        "step_start work 1",
        "step_failed work 1",
        "workflow_retry 2",
        "step_retry work 2",
        "step_finish work 2",
    ]


async def test_a_wait_that_the_code_gave_up_is_over_after_a_retry(store: SqliteStore) -> None:
    @workflow(id="given-up-wait")
    async def function(ctx: WorkflowContext) -> Any:
        async with asyncio.timeout(0.05 if not ctx.retry_count else None):
            await ctx.step.suspend("ask")

    async with flowing(store, function) as flows:
        events = await flows.run(function)
    assert kinds(events)[-1] == "error"
    assert "was given up before the workflow's function started over" in events[-1].error.message


async def test_state_and_payload_are_fresh_at_each_start(store: SqliteStore) -> None:
    seen: list[Any] = []

    @workflow(id="fresh")
    async def function(ctx: WorkflowContext, payload: dict[str, Any]) -> None:
        seen.append((list(payload["list"]), list(ctx.initial_state["list"])))
        payload["list"].append(1)
        ctx.initial_state["list"].append(1)
        if not ctx.retry_count:
            raise ValueError("no")

    async with flowing(store, function) as flows:
        await flows.run(function, {"list": []}, {"list": []})
    assert seen == [([], []), ([], [])]


async def test_calls_of_a_function_that_started_over_are_refused(store: SqliteStore) -> None:
    raised: list[BaseException] = []

    @workflow(id="stale")
    async def function(ctx: WorkflowContext) -> None:
        async def linger() -> None:
            try:
                await ctx.step.suspend("ask")
            finally:
                try:
                    await ctx.step.run("late", lambda: 1)
                except BaseException as error:  # noqa: BLE001 - as bad code does
                    raised.append(error)

        if not ctx.retry_count:
            task = asyncio.create_task(linger())
            await asyncio.sleep(0.02)
            raise ValueError(f"no {task.get_name()}")

    async with flowing(store, function) as flows:
        events = await flows.run(function)
    assert "late" not in " ".join(kinds(events))
    assert len(raised) == 1


async def test_exit_ends_one_run_only(store: SqliteStore) -> None:
    @workflow(id="exits")
    async def exits(ctx: WorkflowContext) -> None:
        sys.exit(1)

    @workflow(id="stays")
    async def stays(ctx: WorkflowContext) -> str:
        return await ctx.step.uuid("id")

    async with flowing(store, exits, stays) as flows:
        assert kinds(await flows.run(exits))[-1] == "error"
        assert len(await flows.result(stays)) == 36
