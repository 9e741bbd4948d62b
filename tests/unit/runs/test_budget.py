"""The budget of a day: what counts, what is refused, and when it resets."""

from __future__ import annotations

from pathlib import Path

import pytest

from polos.v1.error_pb2 import FailureReason
from polos.v1.event_pb2 import Cost, Usage
from polos_client.errors import StoreUnavailable
from polos_service.errors import StepError
from polos_service.quotas import Quota, Quotas
from polos_service.runs.attempt import Attempt, StepOutput
from polos_service.runs.budget import NO_BUDGET, Budgets
from polos_service.runs.retries import Backoff
from polos_service.store.sqlite import SqliteStore
from polos_service.store.usage import Spent, day_of
from tests.support.runs import FakeClock, context, opened
from tests.support.stores import claimed, events_of

SECOND = 1_000_000_000

DAY = 86_400


def budgets(store: SqliteStore, clock: FakeClock, **limits: float) -> Budgets:
    return Budgets(Quotas({"*": Quota.model_validate(limits)}), store.usage, clock)


def used(tokens: int = 0, usd_micros: int = 0) -> tuple[Usage, Cost]:
    return Usage(input_tokens=tokens, total_tokens=tokens), Cost(usd_micros=usd_micros)


async def exhausted(budgets: Budgets, project: str = "default") -> StepError:
    with pytest.raises(StepError) as caught:
        await budgets.of(project).require()
    assert caught.value.reason == FailureReason.FAILURE_REASON_BUDGET_EXHAUSTED
    return caught.value


async def test_the_refusal_names_limit_value_and_reset(tmp_path: Path) -> None:
    clock = FakeClock()
    async with opened(tmp_path) as store:
        bounds = budgets(store, clock, tokens_per_day=100)
        await bounds.of("default").count(*used(99))
        await bounds.of("default").require()
        await bounds.of("default").count(*used(1))
        error = await exhausted(bounds)
        assert "100 tokens; tokens_per_day is 100" in error.message
        assert "resets at 2023-11-15T00:00:00Z" in error.message
        left = DAY - clock.time / SECOND % DAY
        assert error.retry_after == pytest.approx(left)
        await bounds.of("another").require()
        clock.time += round(left * SECOND)
        await bounds.of("default").require()


async def test_cost_counts_in_dollars(tmp_path: Path) -> None:
    async with opened(tmp_path) as store:
        bounds = budgets(store, FakeClock(), cost_per_day=0.5)
        await bounds.of("default").count(*used(10, 499_999))
        await bounds.of("default").require()
        await bounds.of("default").count(*used(10, 1))
        assert "0.5 US dollars; cost_per_day is 0.5" in (await exhausted(bounds)).message


async def test_a_budget_of_zero_permits_no_call(tmp_path: Path) -> None:
    async with opened(tmp_path) as store:
        await exhausted(budgets(store, FakeClock(), tokens_per_day=0))
        await exhausted(budgets(store, FakeClock(), cost_per_day=0))


async def test_projects_without_a_budget_are_not_counted(tmp_path: Path) -> None:
    async with opened(tmp_path) as store:
        assert budgets(store, FakeClock(), runs=1).of("default") is NO_BUDGET


async def test_a_store_that_is_away_stops_no_call(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def away(*_: object) -> Spent:
        raise StoreUnavailable("It is away.")

    async with opened(tmp_path) as store:
        bounds = budgets(store, FakeClock(), tokens_per_day=1)
        monkeypatch.setattr(store.usage, "spent", away)
        monkeypatch.setattr(store.usage, "spend", away)
        await bounds.of("default").count(*used(5))
        await bounds.of("default").require()


async def test_a_refused_call_is_not_made_and_waits_for_a_reset_that_is_near(
    tmp_path: Path,
) -> None:
    clock = FakeClock()
    clock.time = (day_of(clock.time) + 1) * DAY * SECOND - 60 * SECOND
    asked: list[int] = []

    async def ask(_: Attempt) -> StepOutput:
        asked.append(clock.time)
        return StepOutput(usage=Usage(total_tokens=10))

    async with opened(tmp_path) as store:
        claim = await claimed(store)
        budget = budgets(store, clock, tokens_per_day=10).of("default")
        async with context(store, claim, clock) as ctx:
            ctx._holding.budget = budget
            await ctx.step("llm:1", "llm", ask)
            await ctx.step("tool", "tool", ask)
            assert len(asked) == 2, "tools are not refused"
            before = clock.time
            await ctx.step("llm:2", "llm", ask, retries=Backoff(4))
            assert asked[2] >= before + 60 * SECOND
            with pytest.raises(StepError, match="tokens_per_day"):
                await ctx.step("llm:3", "llm", ask, retries=Backoff(4))
            assert len(asked) == 3
            assert ctx.broken is None


async def test_a_void_attempt_and_a_failed_call_count(tmp_path: Path) -> None:
    clock = FakeClock()

    async def fails(_: Attempt) -> StepOutput:
        error = StepError(
            FailureReason.FAILURE_REASON_MODEL_CUT_SHORT, "It was cut.", retryable=True
        )
        raise error.used(Usage(input_tokens=30, total_tokens=30), Cost(usd_micros=3))

    async with opened(tmp_path) as store:
        claim = await claimed(store)
        async with context(store, claim, clock) as ctx:
            ctx._holding.budget = budgets(store, clock, tokens_per_day=1000).of("default")
            with pytest.raises(StepError, match="cut"):
                await ctx.step("llm:1", "llm", fails, retries=Backoff(3))
            assert ctx.totals.told() == {
                "usage": Usage(),
                "cost": None,
                "spent": Usage(input_tokens=90, total_tokens=90),
                "spent_cost": Cost(usd_micros=9),
            }
        assert await store.usage.spent("default", day_of(clock.time)) == Spent(90, 9)
        retries = [one.step_retry for one in await events_of(store, claim.run_id)]
        told = [(one.usage.total_tokens, one.cost.usd_micros) for one in retries if one.step_key]
        assert told == [(30, 3), (30, 3)]
