"""Quotas: the limits of a single project, which POLOS_PROJECT_LIMITS sets.

What counts for each of them, and where, is in docs/operations.md, "Limits per project".
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import Annotated, Final

from pydantic import BaseModel, ConfigDict, Field

from polos_client.errors import QuotaExceeded

SETTING = "POLOS_PROJECT_LIMITS"
"""The setting with the limits of projects."""

OTHERS = "*"
"""The name in the setting that stands for every project that it does not name."""

MOST = 2**62
"""The greatest limit: sums of a few of them still fit into 64 bits."""

Count = Annotated[int, Field(ge=0, le=MOST, strict=True)]
"""A limit that is a whole number."""

Dollars = Annotated[float, Field(ge=0, le=1e12, allow_inf_nan=False)]
"""A limit in US dollars."""


class Quota(BaseModel):
    """The limits of a project. A limit that is None does not bound anything.

    Attributes:
        runs: runs that are worked on at once. Further ones stay queued.
        starts_per_minute: runs that are started in a minute of UTC.
        streams: streams of runs that are open.
        queued: runs that are queued.
        input_bytes: bytes of the request that starts a run.
        log_bytes: bytes of the log of one run, private parts included.
        stored_bytes: bytes of the definitions and logs of all runs that are stored.
        tokens_per_day: input and output tokens of model calls in a day of UTC.
        cost_per_day: US dollars that model calls cost in a day of UTC.

    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    runs: Count | None = None
    starts_per_minute: Count | None = None
    streams: Count | None = None
    queued: Count | None = None
    input_bytes: Count | None = None
    log_bytes: Count | None = None
    stored_bytes: Count | None = None
    tokens_per_day: Count | None = None
    cost_per_day: Dollars | None = None

    @property
    def cost_micros(self) -> int | None:
        """The cost per day in millionths of a dollar."""
        return None if self.cost_per_day is None else round(self.cost_per_day * 1_000_000)


NO_LIMITS: Final = Quota()
"""The quota of a project without any limits."""


class Quotas:
    """The quotas of all projects."""

    def __init__(self, by_project: Mapping[str, Quota] = MappingProxyType({})) -> None:
        self._by_project = by_project
        self._others = by_project.get(OTHERS, NO_LIMITS)
        self.bound_runs = any(quota.runs is not None for quota in by_project.values())
        """Whether any project may only have so many runs at once."""

    def renamed(self, name: Callable[[str], str]) -> Quotas:
        """Return the same quotas of projects that are called otherwise."""
        return Quotas(
            {one if one == OTHERS else name(one): quota for one, quota in self._by_project.items()}
        )

    def of(self, project: str) -> Quota:
        """Return the quota of a project."""
        return self._by_project.get(project, self._others)

    def room(self, project: str, held: int) -> int | None:
        """Return how many more runs a project may have at once; None: as many as it likes."""
        runs = self.of(project).runs
        return None if runs is None else max(0, runs - held)


UNLIMITED: Final = Quotas()
"""No project has limits."""


def exceeded(
    limit: str, value: float, project: str, what: str, *, retry_after: float | None = None
) -> QuotaExceeded:
    """Return the error for a call beyond a limit.

    Args:
        limit: the name of the limit.
        value: what it is set to.
        project: whose it is.
        what: what happened and what to do, in a sentence or two.
        retry_after: seconds until the call may succeed; None if waiting does not help.

    """
    return QuotaExceeded(
        f"{what} The limit {limit} of the project {project!r} is {value} ({SETTING}).",
        retry_after=retry_after,
        limit=limit,
        value=str(value),
        project=project,
    )
