"""The budget of a tree: what the model calls of a root run and its children may use together."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass

from polos.v1.error_pb2 import FailureReason
from polos_service.errors import StepError
from polos_service.runs.totals import Totals

MICROS = 1_000_000
"""Millionths of a US dollar in a dollar."""


@dataclass(frozen=True, slots=True)
class TreeBudget:
    """The limits that a root run is started with.

    Attributes:
        tokens: input and output tokens, from 1; None: any number.
        usd_micros: cost in millionths of a US dollar, from 1; None: any.

    """

    tokens: int | None = None
    usd_micros: int | None = None


UNBOUNDED = TreeBudget()
"""No limits."""


class Spending:
    """Holds the model calls of a tree within its budget.

    A call begins while less than the budget is spent. So what is spent exceeds the budget by
    what the calls then at work use: one for each run at most. A call whose number of output
    tokens is bounded reserves as many. While what is spent and what is reserved reach the budget,
    further calls wait for those at work to end.

    Attributes:
        budget: the limits.

    """

    def __init__(self, totals: Totals) -> None:
        """Begin with what the root run has spent so far."""
        self.budget = UNBOUNDED
        self._totals = totals
        self._reserved = 0
        self._ended = asyncio.Event()
        """Replaced whenever a call that has reserved tokens ends."""

    @asynccontextmanager
    async def call(self, reserve: int) -> AsyncIterator[None]:
        """Let a model call be made, as soon as there is room for it.

        Args:
            reserve: the output tokens that it may use; 0: not known.

        Raises:
            StepError: the budget is used up.

        """
        self._check()
        while self.budget.tokens is not None and self._held() >= self.budget.tokens:
            await self._ended.wait()
            self._check()
        self._reserved += reserve
        try:
            yield
        finally:
            self._reserved -= reserve
            if reserve:
                self._ended.set()
                self._ended = asyncio.Event()

    def _held(self) -> int:
        return self._totals.spent.tokens + self._reserved

    def _check(self) -> None:
        """Refuse a call once the budget is used up.

        Raises:
            StepError: it is.

        """
        budget, spent = self.budget, self._totals.spent
        if budget.tokens is not None and spent.tokens >= budget.tokens:
            what = f"{spent.tokens} tokens; its budget is {budget.tokens} (budget_tokens)"
        elif budget.usd_micros is not None and spent.usd_micros >= budget.usd_micros:
            what = (
                f"{spent.usd_micros / MICROS:g} US dollars; its budget is "
                f"{budget.usd_micros / MICROS:g} (budget_cost)"
            )
        else:
            return
        raise StepError(
            FailureReason.FAILURE_REASON_BUDGET_EXCEEDED,
            f"The run and its children have spent {what}. No further model call is made; start "
            "a run with a larger budget.",
        )
