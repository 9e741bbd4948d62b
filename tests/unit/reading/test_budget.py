"""Bytes that many hold at once: bounded, in order, and given back whatever happens."""

from __future__ import annotations

import asyncio

import pytest

from polos_service.reading.budget import Budget
from tests.support.stores import settled, soon


async def waiting(budget: Budget, size: int) -> asyncio.Task[None]:
    """Return a task that wants bytes and has not got them."""
    task = asyncio.create_task(budget.take(size))
    await settled()
    assert not task.done()
    return task


async def test_what_is_left_is_taken_at_once_and_the_rest_in_order() -> None:
    budget = Budget(10)
    await soon(budget.take(6))
    large = await waiting(budget, 8)
    small = await waiting(budget, 1)  # there is room, but others were before
    budget.give(6)
    await soon(asyncio.gather(large, small))
    await waiting(budget, 2)


async def test_whoever_gives_up_waiting_leaves_the_place_to_others() -> None:
    budget = Budget(10)
    await soon(budget.take(6))
    large, small = await waiting(budget, 8), await waiting(budget, 4)
    large.cancel()
    await soon(small)
    with pytest.raises(asyncio.CancelledError):
        await large


async def test_whoever_gives_up_in_the_turn_that_it_is_served_gives_back() -> None:
    budget = Budget(10)
    await soon(budget.take(10))
    late = await waiting(budget, 10)
    budget.give(10)
    late.cancel()
    with pytest.raises(asyncio.CancelledError):
        await late
    await soon(budget.take(10))
