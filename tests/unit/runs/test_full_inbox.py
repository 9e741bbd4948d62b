"""Waits of a run whose inbox is full."""

from __future__ import annotations

from pathlib import Path

import pytest

from polos_service.errors import StepError
from polos_service.runs import waiting
from polos_service.runs.context import RunContext
from tests.support.runs import opened
from tests.unit.runs.test_waits import SUSPEND, TIMER, YES, answer, ended, names, running, soon


async def test_a_wait_that_nobody_could_answer_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(waiting, "INBOX_LIMIT", 2)

    async def run(ctx: RunContext) -> None:
        for key in ("first", "second"):
            assert (await ctx.wait(key, SUSPEND)).data_json == YES.data_json
        with pytest.raises(StepError, match="The wait 'third' cannot begin: the run's inbox is"):
            await ctx.wait("third", SUSPEND)
        await ctx.wait("nap", TIMER, until=soon())

    async with opened(tmp_path) as store, running(store, run) as run_id:
        for key in ("first", "second"):
            await answer(store, run_id, key)
        events = await ended(store, run_id)
    assert names(events)[-3:] == ["suspended", "resumed", "workflow_finish"]
    assert "third" not in {event.suspended.step_key for event in events}
