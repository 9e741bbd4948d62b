"""What the runs of one claim share, the root and its children."""

from __future__ import annotations

import asyncio
import math
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field

from polos_client.errors import StoreUnavailable
from polos_service.errors import Unable, Unrecorded
from polos_service.pacer import Pacer
from polos_service.runs.budget import NO_BUDGET, Budget
from polos_service.runs.clock import Clock
from polos_service.runs.journals import Journals
from polos_service.runs.spending import Spending
from polos_service.runs.tidying import Tidying
from polos_service.runs.totals import TreeTotals
from polos_service.runs.waiting import Waiting
from polos_service.runs.writer import Writer
from polos_service.store import Parent

Boundary = Callable[[Unable | StoreUnavailable | None], Awaitable[None]]
"""Awaited where a step is about to begin, and with a reason where the run cannot go on. Does
not return where the run is to be let go, so that its code cannot go on regardless."""

Load = Callable[[], Awaitable[Journals]]
"""Reads the log as it is now."""


@dataclass(slots=True)
class Holding:
    """What a root run and its children share while one claim is worked on.

    Attributes:
        root: id of the root run.
        project: the project that it belongs to.
        journals: what the log said when the code began, at first or anew.
        writer: the log's one writer.
        clock: the time.
        boundary: see `Boundary`.
        load: see `Load`; None in a context whose run cannot start over.
        deadline: when the root run must have ended, in nanoseconds since the epoch; None: never.
        broken: why a step's end could not be recorded; None as long as each could. The root
            run ends then, whatever its code makes of it.
        budget: bounds the model calls of the project.
        totals: what the model calls of the tree add up to, with those of this claim.
        spending: holds these calls within the budget of the tree.
        waiting: what the run can wait with; None in a context whose run cannot wait.
        pacer: lets one child begin in each turn of the loop, so that many at once do not delay
            those who read.
        parent: the step that has started the root run; None if a caller has.
        tidying: what is done beside the code.

    """

    root: str
    project: str
    journals: Journals
    writer: Writer
    clock: Clock
    boundary: Boundary
    load: Load | None = None
    deadline: int | None = None
    broken: Unrecorded | None = None
    budget: Budget = NO_BUDGET
    waiting: Waiting | None = None
    pacer: Pacer = field(default_factory=lambda: Pacer(crowd=math.inf))
    parent: Parent | None = None
    tidying: Tidying = field(init=False, default_factory=Tidying)
    totals: TreeTotals = field(init=False)
    spending: Spending = field(init=False)
    _reading: asyncio.Lock = field(init=False, default_factory=asyncio.Lock)
    _read: int = field(init=False, default=0)
    """The sequence up to which `journals` has the log, as far as it was read again."""

    def __post_init__(self) -> None:
        self.totals = self.journals.totals
        self.spending = Spending(self.totals.root)

    async def reload(self) -> None:
        """Read the log again, with what this claim has recorded.

        Those who ask while it is being read share the reading that follows.
        """
        if self.load is None:
            raise RuntimeError("A run whose context cannot read its log cannot start over.")
        wanted = self.writer.latest
        async with self._reading:
            if self._read < wanted:
                await self.writer.flush()
                self._read = self.writer.durable
                self.journals = await self.load()
