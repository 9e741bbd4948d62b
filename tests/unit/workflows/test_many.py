"""Many steps: the last costs what the first did."""

from __future__ import annotations

import asyncio
import sys
from types import FrameType

from polos_client.define.context import WorkflowContext
from polos_client.define.workflow import workflow
from polos_service.store.sqlite import SqliteStore
from tests.support.flows import flowing, result_of


class Work:
    """Counts the calls of Python functions of the service between two marks."""

    def __init__(self) -> None:
        self.calls = 0
        self.marks: list[int] = []

    def __call__(self, frame: FrameType, event: str, arg: object) -> None:
        if event == "call" and "polos_service" in frame.f_code.co_filename:
            self.calls += 1

    def mark(self) -> None:
        self.marks.append(self.calls)

    def parts(self) -> list[int]:
        return [after - before for before, after in zip(self.marks, self.marks[1:], strict=False)]


async def test_the_last_step_costs_what_the_first_did(store: SqliteStore) -> None:
    work = Work()
    passes: list[list[int]] = []

    @workflow(id="many")
    async def function(ctx: WorkflowContext) -> int:
        work.marks.clear()
        sys.setprofile(work)
        for number in range(400):
            if number % 100 == 0:
                work.mark()
            await ctx.step.now(f"step {number}")
        work.mark()
        sys.setprofile(None)
        passes.append(work.parts())
        await ctx.step.suspend("end")
        return 400

    async with flowing(store, function, threshold=0.05) as flows:
        run_id = await flows.start(function)
        await flows.parked(run_id)
        await flows.answer(run_id, "end")
        assert result_of(await flows.ended(run_id)) == 400
    for first, *_, last in passes:
        assert last <= first * 1.3
    assert passes[1][0] < passes[0][0]


async def test_a_thousand_parallel_steps(store: SqliteStore) -> None:
    passes: list[int] = []

    @workflow(id="wide")
    async def function(ctx: WorkflowContext) -> int:
        found = await asyncio.gather(*(ctx.step.now(f"step {number}") for number in range(1000)))
        passes.append(len(found))
        await ctx.step.suspend("end")
        return len(found)

    async with flowing(store, function, threshold=0.05) as flows:
        run_id = await flows.start(function)
        await flows.parked(run_id)
        await flows.answer(run_id, "end")
        assert result_of(await flows.ended(run_id)) == 1000
    assert passes == [1000, 1000]
