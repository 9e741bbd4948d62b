"""A run always ends, whatever is raised inside it and wherever."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from contextlib import suppress
from typing import Any

import pytest
import structlog
from structlog.testing import capture_logs

from polos.v1.error_pb2 import FailureReason
from polos.v1.event_pb2 import Event, ToolCall, WorkflowFinish
from polos.v1.run_pb2 import RunState
from polos_service.errors import Finished, StepError, Unrecorded
from polos_service.limits import EVENT_LIMIT
from polos_service.runs import executor as module
from polos_service.runs.attempt import Attempt, StepOutput
from polos_service.runs.clock import SystemClock
from polos_service.runs.context import RunContext
from polos_service.runs.endings import MAX_CLAIMS
from polos_service.runs.writer import Writer
from polos_service.store import Claim, Frame
from polos_service.store.sqlite import SqliteStore
from tests.support.runs import Code, FakeClock, done, executing, kinds, resting, runnable
from tests.support.stores import all_events, claimed, new_run, soon, until

INTERNAL = FailureReason.FAILURE_REASON_INTERNAL
GIVEN_UP = FailureReason.FAILURE_REASON_RUN_GIVEN_UP
FAILED, QUEUED = RunState.RUN_STATE_FAILED, RunState.RUN_STATE_QUEUED


pytestmark = pytest.mark.usefixtures("impatient")


async def in_a_group(_ctx: RunContext) -> None:
    """Fail in a task group, which on Python 3.11 leaves the task's `cancelling()` at 1."""

    async def fail() -> None:
        raise ValueError("inside")

    async with asyncio.TaskGroup() as group:
        group.create_task(fail())
        group.create_task(asyncio.Event().wait())


async def cancelling_itself(_ctx: RunContext) -> None:
    task = asyncio.current_task()
    assert task is not None
    task.cancel()
    await asyncio.Event().wait()


async def claiming_to_be_cancelled(_ctx: RunContext) -> None:
    raise asyncio.CancelledError


async def exiting(_ctx: RunContext) -> None:
    raise SystemExit(1)


async def unprintable(_ctx: RunContext) -> None:
    error = SyntaxError("x")
    error.text = 5  # type: ignore[assignment]  # the traceback module fails on it
    raise error


async def swallowing(ctx: RunContext) -> None:
    """Go on as if nothing had happened after a step failed unexpectedly."""

    async def break_down(_attempt: Attempt) -> StepOutput:
        raise KeyError("a defect")

    for key in ("a", "b"):
        with suppress(Unrecorded):
            await ctx.step(key, "tool", break_down)


async def swallowing_unrecorded(ctx: RunContext) -> None:
    """Go on after a step whose end could not be recorded."""
    huge = ToolCall(id="i" * EVENT_LIMIT, name="n")

    async def work(attempt: Attempt) -> StepOutput:
        attempt.call = huge
        return await done(attempt)

    for key in ("a", "b"):
        with suppress(Unrecorded):
            await ctx.step(key, "tool", work)


@pytest.mark.parametrize(
    "run",
    [
        in_a_group,
        cancelling_itself,
        claiming_to_be_cancelled,
        exiting,
        unprintable,
        swallowing,
        swallowing_unrecorded,
    ],
    ids=lambda run: run.__name__,
)
async def test_whatever_a_run_s_code_raises_the_run_ends(
    store: SqliteStore, run: Callable[[RunContext], Any]
) -> None:
    with capture_logs() as logs:
        async with executing(store, runnable(run)) as executor:
            run_id = await store.create(new_run())
            *_, end = await all_events(store, run_id)
            await until(lambda: executor.running == 0)
    assert end.error.reason == INTERNAL
    assert (await store.get("default", run_id)).state == FAILED
    (line,) = [line for line in logs if line["event"] == "run_failed"]
    assert line["error_id"] == end.error.error_id


@pytest.mark.parametrize(
    "payload",
    [WorkflowFinish(result_json='"' + "x" * EVENT_LIMIT + '"'), "no payload", None, Event()],
    ids=["too large", "text", "nothing", "not a payload"],
)
async def test_an_end_that_cannot_be_stored_is_an_error(
    store: SqliteStore, payload: object
) -> None:
    async def run(_ctx: RunContext) -> None:
        pass

    code = Code(run, payload)  # type: ignore[arg-type]  # that is the point
    async with executing(store, {"agent": code}):
        run_id = await store.create(new_run())
        (end,) = await all_events(store, run_id)
    assert end.error.reason == INTERNAL


async def test_an_output_that_cannot_be_stored_is_recorded_as_a_failure(
    store: SqliteStore,
) -> None:
    outputs = [
        StepOutput(result_json="\ud800"),
        StepOutput(result_json="1", private={"key": object()}),
        StepOutput(result_json="1", private={"key": "x" * EVENT_LIMIT}),
        StepOutput(result_json=5),  # type: ignore[arg-type]  # as a defect of ours may have it
        None,
    ]
    caught: list[StepError] = []

    async def run(ctx: RunContext) -> None:
        for number, output in enumerate(outputs):

            async def work(_attempt: Attempt, output: Any = output) -> StepOutput:
                return output  # type: ignore[no-any-return]

            try:
                await ctx.step(f"{number}", "tool", work)
            except StepError as error:
                caught.append(error)

    async with executing(store, runnable(run)):
        run_id = await store.create(new_run())
        events = await all_events(store, run_id)
    assert kinds(events)[1::2] == [f"step_finish {number}/1" for number in range(5)]
    assert all(event.step_finish.HasField("failure") for event in events[1::2])
    assert len(caught) == 5
    assert events[-1].HasField("workflow_finish"), "the code was told, and went on"


async def test_a_run_whose_claims_fail_is_given_up_after_pauses_that_grow(
    store: SqliteStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "RETRY_PAUSE", 1.0)
    begun: list[str] = []
    append = store.append

    async def refuse(claim: Claim, frame: Frame, private: bytes = b"") -> None:
        if frame.outcome is None:
            raise ValueError("a defect of the store")
        await append(claim, frame, private)

    monkeypatch.setattr(store, "append", refuse)

    async def run(ctx: RunContext) -> None:
        begun.append(ctx.run_id)
        await ctx.step("a", "tool", done)

    clock = FakeClock()
    with capture_logs():
        async with executing(store, runnable(run), clock=clock):
            run_id = await store.create(new_run())
            (end,) = await all_events(store, run_id)
    assert end.error.reason == GIVEN_UP
    assert begun == [run_id] * MAX_CLAIMS
    assert [pause for pause in clock.slept if pause != module.EXPIRY_PERIOD] == [3, 9, 27, 60]


async def test_a_failing_run_is_cancelled_in_its_pause(
    store: SqliteStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with resting(store, monkeypatch) as (executor, run_id):
        await executor.cancel("default", run_id)
        (end,) = await all_events(store, run_id)
    assert end.HasField("run_cancelled")


async def test_code_that_goes_on_after_its_run_was_let_go_of_is_told_so(
    store: SqliteStore,
) -> None:
    writer = Writer(store, await claimed(store), SystemClock())
    writer.emit(WorkflowFinish())
    flushing = asyncio.create_task(writer.flush())
    await asyncio.sleep(0)
    writer.close()
    with pytest.raises(Finished, match="has released"):
        await soon(flushing)
    with pytest.raises(Finished, match="has released"):
        writer.emit(WorkflowFinish())


@pytest.mark.parametrize("name", ["polos-claim", "polos-expire"])
async def test_a_loop_that_something_cancels_begins_again(store: SqliteStore, name: str) -> None:
    async def run(ctx: RunContext) -> None:
        await ctx.step("a", "tool", done)

    with capture_logs() as logs:
        async with executing(store, runnable(run)):
            for task in asyncio.all_tasks():
                if task.get_name() == name:
                    task.cancel()
            await until(lambda: bool(logs))
            run_id = await store.create(new_run())
            assert kinds(await all_events(store, run_id))[-1] == "workflow_finish"
    assert logs[0]["event"] == "loop_restarted"


async def test_a_driver_that_something_cancels_lets_go_of_the_run(store: SqliteStore) -> None:
    begun = 0

    async def run(ctx: RunContext) -> None:
        nonlocal begun
        begun += 1
        if begun == 1:
            for task in asyncio.all_tasks():
                if task.get_name() == f"polos-run-{ctx.run_id}":
                    task.cancel()
            await asyncio.Event().wait()

    with capture_logs():
        async with executing(store, runnable(run)):
            run_id = await store.create(new_run())
            assert kinds(await all_events(store, run_id)) == ["workflow_finish"]
    assert begun == 2


async def test_runnables_of_others_are_left_to_them(store: SqliteStore) -> None:
    """A claim forced at the wrong moment changes nothing: the run goes back to the queue."""
    claim = await claimed(store, workflow_id="gone")
    async with executing(store, {}) as executor:
        await executor._take_up("default", claim.run_id, force=True)
        await until(lambda: executor.running == 0)
    assert (await store.get("default", claim.run_id)).state == QUEUED


async def test_a_log_that_cannot_be_written_does_not_keep_a_run_from_ending(
    store: SqliteStore,
) -> None:
    def full(*_: object) -> Any:
        raise OSError("no space left on device")

    structlog.configure(processors=[full])
    try:
        async with executing(store, runnable(unprintable)):
            run_id = await store.create(new_run())
            *_, end = await all_events(store, run_id)
    finally:
        structlog.reset_defaults()
    assert end.error.reason == INTERNAL
