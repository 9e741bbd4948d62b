"""Sums over the model calls of a run, however large a provider's figures are."""

from __future__ import annotations

from polos.v1.event_pb2 import Cost, Usage
from polos_service.runs.attempt import Attempt, StepOutput
from polos_service.runs.context import RunContext
from polos_service.runs.totals import INT32_MAX, INT64_MAX, Totals
from polos_service.store.sqlite import SqliteStore
from tests.support.runs import executing, kinds, runnable
from tests.support.stores import all_events, new_run


async def huge(_attempt: Attempt) -> StepOutput:
    usage = Usage(
        input_tokens=INT32_MAX,
        output_tokens=INT32_MAX,
        total_tokens=INT32_MAX,
        cache_read_input_tokens=INT32_MAX,
    )
    return StepOutput(result_json="1", usage=usage, cost=Cost(usd_micros=INT64_MAX))


async def test_sums_beyond_what_an_event_can_tell_stay_at_its_bound(store: SqliteStore) -> None:
    totals: list[Totals] = []

    async def run(ctx: RunContext) -> None:
        for number in range(3):
            await ctx.step(f"llm:{number}", "llm", huge)
        totals.append(ctx.totals)

    async with executing(store, runnable(run)):
        run_id = await store.create(new_run())
        events = await all_events(store, run_id)
    assert kinds(events)[1::2] == [f"step_finish llm:{number}/1" for number in range(3)]
    assert kinds(events)[-1] == "workflow_finish"
    (found,) = totals
    for one in (found.standing, found.spent):
        assert one.usage.input_tokens == one.usage.total_tokens == INT32_MAX
        assert one.usage.cache_read_input_tokens == INT32_MAX
        assert not one.usage.HasField("cache_creation_input_tokens"), "unknown is not 0"
        assert one.cost == Cost(usd_micros=INT64_MAX)
    assert found.steps == 3
