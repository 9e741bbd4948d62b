"""Steps: what finished never runs again, what failed is tried again."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import pytest

from polos.v1.error_pb2 import FailureReason
from polos.v1.event_pb2 import Cost, FinishReason, ToolCall, Usage
from polos_service.errors import StepError
from polos_service.limits import OUTPUT_LIMIT
from polos_service.runs.attempt import Attempt, StepOutput
from polos_service.runs.context import RunContext
from polos_service.runs.frame import SECOND
from polos_service.runs.retries import BACKOFF_BASE, BACKOFF_CAP, RETRY_AFTER_LIMIT, Backoff
from polos_service.store import Claim, RunStore
from tests.support.runs import FakeClock, context, done, kinds, text
from tests.support.stores import claimed, events_of, history, soon

UNAVAILABLE = FailureReason.FAILURE_REASON_MODEL_UNAVAILABLE


class Work:
    """A step's work that fails as told, then succeeds; counts its calls."""

    def __init__(
        self,
        *failures: StepError,
        say: Sequence[str] = (),
        output: StepOutput | None = None,
    ) -> None:
        self.calls = 0
        self._failures = failures
        self._say = say
        self._output = output or StepOutput(result_json='"out"')

    async def __call__(self, attempt: Attempt) -> StepOutput:
        self.calls += 1
        for content in self._say:
            await attempt.emit(text(content, attempt))
        if self.calls <= len(self._failures):
            raise self._failures[self.calls - 1]
        return self._output


def busy(**fields: Any) -> StepError:
    return StepError(UNAVAILABLE, "busy", retryable=True, **fields)


async def reclaimed(store: RunStore, claim: Claim) -> Claim:
    await store.release(claim)
    again = await store.claim_run(claim.project, claim.run_id)
    assert again is not None
    return again


async def log(store: RunStore, claim: Claim) -> list[str]:
    return kinds(await events_of(store, claim.run_id))


async def test_a_step_begins_and_ends_in_the_log(store: RunStore) -> None:
    claim, clock = await claimed(store), FakeClock()
    call = ToolCall(id="c", name="tool", arguments_json='{"a": 1}')
    async with context(store, claim, clock) as ctx:

        async def work(attempt: Attempt) -> StepOutput:
            clock.time += 1_500_000_000
            return StepOutput(result_json="7")

        output = await soon(ctx.step("key", "tool", work, call=call))
        start, finish = await events_of(store, claim.run_id)
    assert output.result_json == "7"
    assert start.step_start.tool_call == call
    assert (start.step_start.step_key, start.step_start.step_type) == ("key", "tool")
    ended = finish.step_finish
    assert (ended.step_key, ended.step_type, ended.attempt) == ("key", "tool", 1)
    assert ended.result_json == "7"
    assert ended.duration.ToMilliseconds() == 1500
    assert ended.tool_call == ToolCall(id="c", name="tool")


async def test_a_finished_step_never_runs_again(store: RunStore) -> None:
    claim = await claimed(store)
    output = StepOutput(
        result_json='{"a": 1}',
        usage=Usage(input_tokens=1, output_tokens=2, total_tokens=3, cache_read_input_tokens=0),
        cost=Cost(usd_micros=5),
        finish_reason=FinishReason.FINISH_REASON_LENGTH,
        private={"thought": "deep\n"},
    )
    work = Work(output=output)
    async with context(store, claim) as ctx:
        assert await soon(ctx.step("llm:1", "llm", work)) == output
        totals = ctx.totals.told()
    before = await log(store, claim)
    again = await reclaimed(store, claim)
    async with context(store, again) as ctx:
        assert await soon(ctx.step("llm:1", "llm", work)) == output
        assert ctx.totals.told() == totals
    assert work.calls == 1
    assert await log(store, claim) == before


async def test_a_failed_step_never_runs_again_and_fails_the_same(store: RunStore) -> None:
    claim = await claimed(store)
    failed = StepError(UNAVAILABLE, "broken", retryable=True, provider_request_id="req-7")
    work = Work(failed, failed)
    async with context(store, claim) as ctx:
        with pytest.raises(StepError):
            await soon(ctx.step("key", "llm", work))
    again = await reclaimed(store, claim)
    async with context(store, again) as ctx:
        with pytest.raises(StepError) as raised:
            await soon(ctx.step("key", "llm", work, retries=Backoff(3)))
    assert work.calls == 1
    error = raised.value
    assert (error.reason, error.message, error.retryable) == (UNAVAILABLE, "broken", True)
    assert await log(store, claim) == ["step_start key/1", "step_finish key/1"]


async def test_private_state_is_in_no_event(store: RunStore) -> None:
    claim = await claimed(store)
    output = StepOutput(result_json="1", private={"secret": "hidden"})
    async with context(store, claim) as ctx:
        await soon(ctx.step("key", "llm", Work(output=output)))
    assert "hidden" not in str(await events_of(store, claim.run_id))
    assert any(b"hidden" in entry.private for entry in await history(store, claim))


@pytest.mark.parametrize("recorded", [False, True])
async def test_a_key_is_used_once_in_a_run(store: RunStore, recorded: bool) -> None:  # noqa: FBT001
    claim = await claimed(store)
    async with context(store, claim) as ctx:
        await soon(ctx.step("key", "tool", done))
        if not recorded:
            with pytest.raises(ValueError, match="'key'"):
                await ctx.step("key", "tool", done)
    if recorded:
        async with context(store, await reclaimed(store, claim)) as ctx:
            await soon(ctx.step("key", "tool", done))
            with pytest.raises(ValueError, match="'key'"):
                await ctx.step("key", "tool", done)


async def test_a_retry_before_the_first_output_is_silent(store: RunStore) -> None:
    claim, clock = await claimed(store), FakeClock()
    work = Work(busy(), busy())
    async with context(store, claim, clock) as ctx:
        await soon(ctx.step("key", "llm", work, retries=Backoff(3)))
    assert work.calls == 3
    assert await log(store, claim) == ["step_start key/1", "step_finish key/1"]


async def test_a_retry_after_output_is_announced(store: RunStore) -> None:
    claim = await claimed(store)
    async with context(store, claim, FakeClock()) as ctx:
        await soon(ctx.step("key", "llm", Work(busy(), busy(), say=["a"]), retries=Backoff(3)))
    events = await events_of(store, claim.run_id)
    assert kinds(events) == [
        "step_start key/1",
        "text_delta key/1",
        "step_retry key/2",
        "text_delta key/2",
        "step_retry key/3",
        "text_delta key/3",
        "step_finish key/3",
    ]
    assert (events[2].step_retry.reason, events[2].step_retry.message) == (UNAVAILABLE, "busy")


@pytest.mark.parametrize(
    ("failures", "tries", "calls"),
    [
        ([busy()] * 5, 3, 3),
        ([busy()], 1, 1),
        ([StepError(UNAVAILABLE, "for good")], 3, 1),
        ([busy(), StepError(UNAVAILABLE, "for good")], 3, 2),
    ],
)
async def test_only_what_may_succeed_is_tried_again_and_not_for_ever(
    store: RunStore, failures: list[StepError], tries: int, calls: int
) -> None:
    claim = await claimed(store)
    work = Work(*failures)
    async with context(store, claim, FakeClock()) as ctx:
        with pytest.raises(StepError) as raised:
            await soon(ctx.step("key", "llm", work, retries=Backoff(tries)))
    assert work.calls == calls
    assert raised.value is failures[calls - 1]
    finish = (await events_of(store, claim.run_id))[-1].step_finish
    assert finish.failure.message == raised.value.message
    assert finish.failure.retryable == raised.value.retryable


async def test_the_pause_between_tries_doubles_up_to_its_cap(store: RunStore) -> None:
    claim, clock = await claimed(store), FakeClock()
    async with context(store, claim, clock) as ctx:
        await soon(ctx.step("key", "llm", Work(*[busy()] * 7), retries=Backoff(8)))
    bounds = [min(BACKOFF_CAP, BACKOFF_BASE * 2**n) for n in range(7)]
    assert len(clock.slept) == 7
    for slept, bound in zip(clock.slept, bounds, strict=True):
        assert bound / 2 <= slept <= bound


async def test_the_provider_s_own_pause_is_kept(store: RunStore) -> None:
    claim, clock = await claimed(store), FakeClock()
    async with context(store, claim, clock) as ctx:
        failures = (busy(retry_after=30.0), busy(retry_after=0.0))
        await soon(ctx.step("key", "llm", Work(*failures), retries=Backoff(3)))
    assert clock.slept[0] == 30.0
    assert clock.slept[1] >= BACKOFF_BASE


@pytest.mark.parametrize(
    ("asked", "deadline", "tries"),
    [
        (90.0, None, 2),
        (RETRY_AFTER_LIMIT, None, 2),
        (RETRY_AFTER_LIMIT + 1, None, 1),
        (90.0, 91.0, 2),
        (90.0, 89.0, 1),
        (0.0, -1.0, 1),
    ],
)
async def test_a_pause_that_the_run_does_not_outlast_is_not_begun(
    store: RunStore, asked: float, deadline: float | None, tries: int
) -> None:
    clock = FakeClock()
    due = None if deadline is None else clock.now() + int(deadline * SECOND)
    claim = await claimed(store, deadline=due)
    work = Work(busy(retry_after=asked), busy(retry_after=asked))
    async with context(store, claim, clock) as ctx:
        with pytest.raises(StepError, match="busy"):
            await soon(ctx.step("key", "llm", work, retries=Backoff(2)))
    assert work.calls == tries
    assert clock.slept == ([asked] if tries > 1 else [])


@pytest.mark.parametrize("crashes", [1, 2])
async def test_a_crash_in_the_middle_begins_the_next_attempt(store: RunStore, crashes: int) -> None:
    claim = await claimed(store)

    class Crash(BaseException):
        pass

    async def crash(attempt: Attempt) -> StepOutput:
        await attempt.emit(text("half", attempt))
        await attempt.checkpoint()
        raise Crash

    for _ in range(crashes):
        async with context(store, claim) as ctx:
            with pytest.raises(Crash):
                await soon(ctx.step("key", "llm", crash))
        claim = await reclaimed(store, claim)
    async with context(store, claim) as ctx:
        await soon(ctx.step("key", "llm", Work(say=["whole"])))
    events = await events_of(store, claim.run_id)
    last = crashes + 1
    assert kinds(events)[-3:] == [
        f"step_retry key/{last}",
        f"text_delta key/{last}",
        f"step_finish key/{last}",
    ]
    assert kinds(events).count("step_start key/1") == 1
    retry = events[-3].step_retry
    assert retry.reason == FailureReason.FAILURE_REASON_PROCESS_RESTARTED
    assert retry.message


async def test_an_output_over_its_limit_fails_the_step(store: RunStore) -> None:
    claim = await claimed(store)
    async with context(store, claim) as ctx:
        fits = StepOutput(result_json='"' + "x" * (OUTPUT_LIMIT - 2) + '"')
        assert await soon(ctx.step("fits", "tool", Work(output=fits))) == fits
        with pytest.raises(StepError, match=str(OUTPUT_LIMIT)) as raised:
            over = StepOutput(result_json='"' + "ä" * (OUTPUT_LIMIT // 2) + '"')
            await soon(ctx.step("over", "tool", Work(output=over), retries=Backoff(3)))
    assert raised.value.reason == FailureReason.FAILURE_REASON_OUTPUT_TOO_LARGE
    assert (await log(store, claim))[-1] == "step_finish over/1"


async def test_the_first_event_is_emitted_once_in_a_run(store: RunStore) -> None:
    claim = await claimed(store)

    async def begin(ctx: RunContext) -> None:
        ctx.start(text("first"))
        await soon(ctx.step(f"epoch {claim.epoch}", "tool", done))

    async with context(store, claim) as ctx:
        await begin(ctx)
    claim = await reclaimed(store, claim)
    async with context(store, claim) as ctx:
        await begin(ctx)
    assert [one.split()[0] for one in await log(store, claim)].count("text_delta") == 1


async def test_a_model_s_usage_and_cost_are_summed_while_known(store: RunStore) -> None:
    claim = await claimed(store)

    def costing(micros: int | None) -> Work:
        cost = None if micros is None else Cost(usd_micros=micros)
        usage = Usage(input_tokens=1, output_tokens=2, total_tokens=3)
        return Work(output=StepOutput(result_json="1", usage=usage, cost=cost))

    async with context(store, claim) as ctx:
        assert (ctx.totals.standing.cost, ctx.totals.steps) == (None, 0)
        for number, (micros, total) in enumerate(
            [(5, 5), (0, 5), (7, 12), (None, None), (9, None)]
        ):
            await soon(ctx.step(f"llm:{number}", "llm", costing(micros)))
            expected = None if total is None else Cost(usd_micros=total)
            assert (ctx.totals.standing.cost, ctx.totals.steps) == (expected, number + 1)
        await soon(ctx.step("tool", "tool", costing(1)))
    assert ctx.totals.steps == 5
    assert ctx.totals.standing.usage == Usage(input_tokens=5, output_tokens=10, total_tokens=15)


def test_the_pause_stays_bounded_however_often_a_step_fails() -> None:
    failure = StepError(UNAVAILABLE, "busy", retryable=True)
    pause = Backoff(9999).pause(5000, failure, math.inf)
    assert pause is not None
    assert BACKOFF_CAP / 2 <= pause <= BACKOFF_CAP
