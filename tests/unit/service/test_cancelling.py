"""Tasks end although a cancellation gets lost."""

from __future__ import annotations

import asyncio

import pytest

from polos_service import cancelling
from polos_service.cancelling import cancel_until_done


async def test_a_task_that_swallows_a_cancellation_is_cancelled_again(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(cancelling, "AGAIN", 0.01)
    swallowed = 0

    async def stubborn() -> None:
        nonlocal swallowed
        while True:
            try:
                await asyncio.Event().wait()
            except asyncio.CancelledError:
                swallowed += 1
                if swallowed > 2:
                    raise

    tasks = [asyncio.create_task(stubborn()), asyncio.create_task(asyncio.sleep(0))]
    await asyncio.sleep(0)
    await asyncio.wait_for(cancel_until_done(tasks), 30)
    assert all(task.done() for task in tasks)


async def test_no_tasks_are_done_at_once() -> None:
    await asyncio.wait_for(cancel_until_done([]), 30)
