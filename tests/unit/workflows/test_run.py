"""`ctx.step.run`: what it calls, how it is retried, and what it raises."""

from __future__ import annotations

import asyncio
import contextlib
import sys
import threading
from functools import partial
from typing import Any

import pytest

from polos_client.define.context import WorkflowContext
from polos_client.define.workflow import workflow
from polos_client.errors import StepExecutionError
from polos_service.runs.frame import SECOND
from polos_service.store.sqlite import SqliteStore
from polos_service.tools import calling
from tests.support.flows import flowing, kinds, result_of
from tests.support.runs import SetClock
from tests.support.stores import until

QUICK: dict[str, Any] = {"base_delay": 0.001, "max_delay": 0.001}


class TwoArgumentsError(Exception):
    def __init__(self, what: str, why: str) -> None:
        super().__init__(f"{what}: {why}")


class MuteError(Exception):
    def __str__(self) -> str:
        raise RuntimeError("no text")


async def test_functions_of_every_form_are_called(store: SqliteStore) -> None:
    async def coroutine(value: int, *, more: int = 0) -> int:
        await asyncio.sleep(0)
        return value + more

    class Callable:
        def __call__(self) -> str:
            return "object"

    @workflow(id="forms")
    async def forms(ctx: WorkflowContext) -> list[Any]:
        run = ctx.step.run
        return [
            await run("async", coroutine, 1, more=2),
            await run("sync", lambda: threading.current_thread() is threading.main_thread()),
            await run("lambda", lambda: coroutine(4)),
            await run("partial", partial(coroutine, 5)),
            await run("object", Callable()),
        ]

    async with flowing(store, forms) as flows:
        assert await flows.result(forms) == [3, False, 4, 5, "object"]


async def test_a_failure_is_retried_and_then_raised_the_same_each_time(store: SqliteStore) -> None:
    calls: list[int] = []
    texts: list[str] = []

    def fail() -> None:
        calls.append(1)
        raise TwoArgumentsError("no", f"money {len(calls)}")

    @workflow(id="retried")
    async def retried(ctx: WorkflowContext) -> str:
        try:
            await ctx.step.run("charge", fail, **QUICK)
        except StepExecutionError as error:
            texts.append(str(error))
        await ctx.step.suspend("ask")
        return texts[-1]

    async with flowing(store, retried, threshold=0.02) as flows:
        run_id = await flows.start(retried)
        await flows.parked(run_id)
        await flows.answer(run_id, "ask")
        events = await flows.ended(run_id)
    assert kinds(events)[1:5] == [
        "step_start charge 1",
        "step_retry charge 2",
        "step_retry charge 3",
        "step_failed charge 3",
    ]
    assert [one.step_retry.message for one in events[2:4]] == [
        "TwoArgumentsError: no: money 1",
        "TwoArgumentsError: no: money 2",
    ]
    assert texts == ["Step 'charge' failed after 3 attempts: TwoArgumentsError: no: money 3"] * 2
    assert len(calls) == 3


@pytest.mark.parametrize(
    ("error", "text"),
    [
        (MuteError(), "Step 'a' failed: MuteError"),
        (SystemExit(3), "Step 'a' failed: SystemExit: 3"),
        (KeyboardInterrupt(), "Step 'a' failed: KeyboardInterrupt"),
        (asyncio.CancelledError(), "Step 'a' failed: CancelledError"),
        (ValueError("half \ud83d a pair"), "Step 'a' failed: ValueError: half ? a pair"),
        (ValueError("x" * 10_000), "Step 'a' failed: ValueError: " + "x" * 4084),
        (TimeoutError("its own"), "Step 'a' failed: TimeoutError: its own"),
    ],
)
@pytest.mark.parametrize("form", ["async", "sync"])
async def test_whatever_a_function_raises_becomes_text(
    store: SqliteStore, error: BaseException, text: str, form: str
) -> None:
    async def raise_later() -> None:
        raise error

    def raise_now() -> None:
        raise error

    @workflow(id="raises")
    async def raises(ctx: WorkflowContext) -> None:
        func = raise_later if form == "async" else raise_now
        await ctx.step.run("a", func, max_retries=0)

    async with flowing(store, raises) as flows:
        events = await flows.run(raises)
    assert kinds(events) == ["workflow_start", "step_start a 1", "step_failed a 1", "error"]
    assert events[-1].error.message == text[:4096]


async def test_kills_do_not_use_up_retries(store: SqliteStore) -> None:
    began = asyncio.Event()
    attempts: list[str] = []

    async def work() -> str:
        attempts.append("x")
        began.set()
        if len(attempts) == 1:
            raise ValueError("first")
        if len(attempts) == 2:
            await asyncio.Event().wait()
        if len(attempts) == 3:
            raise ValueError("second")
        return "done"

    @workflow(id="killed")
    async def killed(ctx: WorkflowContext) -> Any:
        return await ctx.step.run("work", work, max_retries=2, **QUICK)

    async with flowing(store, killed) as flows:
        run_id = await flows.start(killed)
        await until(lambda: len(attempts) == 2)
        await flows.restart()
        events = await flows.ended(run_id)
    assert kinds(events)[1:-1] == [
        "step_start work 1",
        "step_retry work 2",
        "step_retry work 3",
        "step_retry work 4",
        "step_finish work 4",
    ]
    assert result_of(events) == "done"


async def test_a_kill_during_the_pause_leaves_the_rest_of_it(store: SqliteStore) -> None:
    clock = SetClock()
    attempts: list[int] = []

    def work() -> str:
        attempts.append(clock.now())
        if len(attempts) == 1:
            raise ValueError("first")
        return "done"

    @workflow(id="paused")
    async def paused(ctx: WorkflowContext) -> Any:
        return await ctx.step.run("work", work, base_delay=60, max_delay=60)

    async with flowing(store, paused, clock=clock) as flows:
        run_id = await flows.start(paused)
        await flows.holds(run_id, "step_retry work 2")
        await flows.stop()
        clock.asked.clear()
        flows.begin()
        await until(lambda: any(30 < one < 60 for one in clock.asked))
        clock.shift += 60 * SECOND
        events = await flows.ended(run_id)
    assert kinds(events)[1:-1] == [
        "step_start work 1",
        "step_retry work 2",
        "step_finish work 2",
    ]
    start = next(one.step_retry.start_time for one in events if one.HasField("step_retry"))
    assert attempts[1] >= start.ToNanoseconds()


async def test_a_timeout_cancels_a_coroutine_and_leaves_a_thread(store: SqliteStore) -> None:
    cancelled = asyncio.Event()
    go_on = threading.Event()

    async def slow() -> None:
        try:
            await asyncio.Event().wait()
        except asyncio.CancelledError:
            cancelled.set()
            raise

    def blocking() -> str:
        go_on.wait(30)
        return "too late"

    @workflow(id="timeouts")
    async def timeouts(ctx: WorkflowContext) -> list[str]:
        texts = []
        for key, func in (("slow", slow), ("blocking", blocking)):
            try:
                await ctx.step.run(key, func, timeout=0.05, max_retries=0)
            except StepExecutionError as error:
                texts.append(str(error))
        return texts

    async with flowing(store, timeouts) as flows:
        assert await flows.result(timeouts) == [
            "Step 'slow' failed: The function took longer than 0.05 s.",
            "Step 'blocking' failed: The function took longer than 0.05 s.",
        ]
        assert cancelled.is_set()
        assert len(calling.left()) == 1
        go_on.set()
        await until(lambda: not calling.left())


async def test_no_function_begins_in_a_thread_while_too_many_are_left(
    store: SqliteStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(calling, "LEFT_LIMIT", 1)
    go_on = threading.Event()

    @workflow(id="threads")
    async def threads(ctx: WorkflowContext) -> Any:
        with contextlib.suppress(StepExecutionError):
            await ctx.step.run("left", lambda: go_on.wait(30), timeout=0.02, max_retries=0)
        try:
            await ctx.step.run("refused", lambda: 1, max_retries=0)
        except StepExecutionError as error:
            go_on.set()
            refused = str(error)
        await until(lambda: not calling.left())
        return refused, await ctx.step.run("later", lambda: 2)

    async with flowing(store, threads) as flows:
        text = "1 functions still run in threads although nothing waits for them any more."
        assert await flows.result(threads) == [f"Step 'refused' failed: {text}", 2]


async def test_a_thread_that_outlives_its_step_can_do_nothing_with_the_run(
    store: SqliteStore,
) -> None:
    go_on = threading.Event()
    raised: list[Exception] = []

    @workflow(id="outlived")
    async def outlived(ctx: WorkflowContext) -> str:
        def work() -> str:
            go_on.wait(30)
            try:
                asyncio.run(ctx.step.run("nested", lambda: 1))
            except StepExecutionError as error:
                raised.append(error)
            return "dropped"

        with contextlib.suppress(StepExecutionError):
            await ctx.step.run("work", work, timeout=0.02, max_retries=0)
        return "ended"

    async with flowing(store, outlived) as flows:
        events = await flows.run(outlived)
        go_on.set()
        await until(lambda: bool(raised))
        assert await flows.events(events[0].run_id) == events
    assert "The function of a step cannot use ctx.step" in str(raised[0])


@pytest.mark.parametrize("form", ["async", "sync", "lambda"])
async def test_a_function_of_a_step_has_no_steps(store: SqliteStore, form: str) -> None:
    calls = []

    @workflow(id="nested")
    async def nested(ctx: WorkflowContext) -> None:
        async def inner() -> None:
            calls.append(1)
            await ctx.step.wait_for("nap", seconds=1)

        if form == "async":
            await ctx.step.run("outer", inner)
        elif form == "lambda":
            await ctx.step.run("outer", lambda: inner())  # noqa: PLW0108 - the form that is tested
        else:
            await ctx.step.run("outer", lambda: asyncio.run(inner()))

    async with flowing(store, nested) as flows:
        events = await flows.run(nested)
    assert "cannot use ctx.step" in events[-1].error.message
    assert len(calls) == 1


@pytest.mark.parametrize(
    "options",
    [
        {"max_retries": -1},
        {"max_retries": 1.5},
        {"base_delay": -1},
        {"max_delay": float("nan")},
        {"timeout": 0},
        {"timeout": "1"},
    ],
)
async def test_options_out_of_bounds_are_refused(
    store: SqliteStore, options: dict[str, Any]
) -> None:
    @workflow(id="options")
    async def function(ctx: WorkflowContext) -> None:
        await ctx.step.run("a", lambda: 1, **options)

    async with flowing(store, function) as flows:
        events = await flows.run(function)
    assert kinds(events) == ["workflow_start", "error"]
    assert next(iter(options)) in events[-1].error.message


async def test_exit_of_a_thread_ends_the_step_only(store: SqliteStore) -> None:
    @workflow(id="exits")
    async def exits(ctx: WorkflowContext) -> str:
        try:
            await ctx.step.run("exit", sys.exit, 1, max_retries=0)
        except StepExecutionError as error:
            return str(error)
        return "not reached"

    async with flowing(store, exits) as flows:
        assert await flows.result(exits) == "Step 'exit' failed: SystemExit: 1"
