"""What a project may still spend on model calls today."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Protocol

from polos.v1.error_pb2 import FailureReason
from polos.v1.event_pb2 import Cost, Usage
from polos_client.errors import StoreUnavailable
from polos_service.errors import StepError
from polos_service.logs import get_logger
from polos_service.quotas import SETTING, Quota, Quotas
from polos_service.runs.clock import Clock
from polos_service.runs.totals import Sum
from polos_service.store.usage import DAY, SECOND, Spent, UsageStore, day_of

log = get_logger(__name__)


class Budget(Protocol):
    """Bounds the model calls of a run."""

    async def require(self) -> None:
        """Return if another model call may begin.

        Raises:
            StepError: the project has spent what it may today.

        """
        ...

    async def count(self, usage: Usage, cost: Cost | None) -> None:
        """Count what a model call used, whether it stands, is void or has failed.

        It is durable when this returns, unless the store fails.
        """
        ...


class NoBudget:
    """Spending is neither bounded nor counted."""

    async def require(self) -> None:
        """Permit every call."""

    async def count(self, usage: Usage, cost: Cost | None) -> None:
        """Count nothing."""


NO_BUDGET = NoBudget()
"""Bounds nothing."""


class DailyBudget:
    """The limits `tokens_per_day` and `cost_per_day` of a project.

    While the store does not answer, calls are permitted: they can hardly be recorded either.
    """

    def __init__(self, store: UsageStore, clock: Clock, project: str, quota: Quota) -> None:
        self._store = store
        self._clock = clock
        self._project = project
        self._quota = quota

    async def require(self) -> None:
        """Return if another model call may begin.

        Raises:
            StepError: the project has spent what it may today.

        """
        now = self._clock.now()
        try:
            spent = await self._store.spent(self._project, day_of(now))
        except StoreUnavailable as error:
            log.warning("budget_not_read", project=self._project, error=str(error))
            return
        quota = self._quota
        if quota.tokens_per_day is not None and spent.tokens >= quota.tokens_per_day:
            what = f"{spent.tokens} tokens; tokens_per_day is {quota.tokens_per_day}"
        elif quota.cost_micros is not None and spent.usd_micros >= quota.cost_micros:
            what = f"{spent.usd_micros / 1e6:g} US dollars; cost_per_day is {quota.cost_per_day:g}"
        else:
            return
        raise self._exhausted(now, what)

    async def count(self, usage: Usage, cost: Cost | None) -> None:
        """Count what a model call used."""
        call = Sum.of(usage, cost)
        spent = Spent(max(0, call.tokens), max(0, call.usd_micros))
        if spent == Spent():
            return
        try:
            await self._store.spend(self._project, day_of(self._clock.now()), spent)
        except StoreUnavailable as error:
            log.warning("spending_not_counted", project=self._project, error=str(error))

    def _exhausted(self, now: int, what: str) -> StepError:
        reset = (day_of(now) + 1) * DAY
        when = datetime.fromtimestamp(reset, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
        return StepError(
            FailureReason.FAILURE_REASON_BUDGET_EXHAUSTED,
            f"The project {self._project!r} has spent {what} ({SETTING}). "
            f"The limit resets at {when}; until then model calls are refused.",
            retryable=True,
            retry_after=reset - now / SECOND,
        )


class Budgets:
    """The budgets of all projects.

    Attributes:
        quotas: the limits of all projects.

    """

    def __init__(self, quotas: Quotas, store: UsageStore, clock: Clock) -> None:
        self._store = store
        self._clock = clock
        self.quotas = quotas

    def of(self, project: str) -> Budget:
        """Return the budget of a project."""
        quota = self.quotas.of(project)
        if quota.tokens_per_day is None and quota.cost_per_day is None:
            return NO_BUDGET
        return DailyBudget(self._store, self._clock, project, quota)
