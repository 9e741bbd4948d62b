"""Hands out what steps and waits come to: in the log's order, one at a time.

Code that races steps against each other sees who is first. It must see the same again when it is
run against its log. So one result is handed out, and the next when the code has done with it
whatever it does without waiting. A result that is recorded but not yet durable keeps those behind
it in the log back.
"""

from __future__ import annotations

import asyncio
import heapq
from bisect import bisect_left, insort
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from itertools import count

QUIET = 20
"""Turns of the loop, without a result being asked for or handed out, after which the code waits.
Each task between a step and the code that awaits it takes up to three."""

ALONE = 3
"""The same where one task alone is known to ask for results: others may be about to begin."""


class Gate:
    """The gate of one claim."""

    def __init__(self, recorded: Iterable[int] = (), *, strict: bool = False) -> None:
        """Take the sequences of the results that the log has.

        With `strict`, a result waits until all that are before it in the log were handed out, even
        if the code does not ask for them.
        """
        self._recorded = sorted(recorded)
        self._strict = strict
        self._passed = 0
        self._waiting: list[tuple[int, int, Callable[[], bool], asyncio.Future[None]]] = []
        self._pushes = count()
        self._held: list[int] = []
        self._quiet = QUIET
        self._counting = False

    async def turn(self, sequence: int, alone: Callable[[], bool], *, new: bool) -> None:
        """Wait until the result with this sequence has its turn.

        Args:
            sequence: of the event that holds the result.
            alone: says whether nothing else of the run asks for results.
            new: whether the result was recorded now; the code has waited for it, then.

        """
        first = self._is_next(sequence) and not self._is_held(sequence)
        if new and first and self.quiet and not self._waiting:
            self._pass(sequence)
            return
        future: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        # The second member keeps the others from being compared.
        heapq.heappush(self._waiting, (sequence, next(self._pushes), alone, future))
        self.stir()
        await future

    @contextmanager
    def holding(self, sequence: int = 0) -> Iterator[None]:
        """Hand out nothing that is behind this sequence in the log until the block is left."""
        insort(self._held, sequence)
        try:
            yield
        finally:
            self._held.remove(sequence)
            self.stir()

    def stir(self) -> None:
        """Note that the code has something to do: count its quiet turns anew."""
        self._quiet = 0
        if not self._counting:
            self._counting = True
            asyncio.get_running_loop().call_soon(self._count)

    @property
    def quiet(self) -> bool:
        """Whether the code has done whatever it does without waiting."""
        return self._quiet >= QUIET

    @property
    def due(self) -> int | None:
        """The sequence of the result that is the next in the log; None after the last."""
        return self._recorded[self._passed] if self._passed < len(self._recorded) else None

    def _is_next(self, sequence: int) -> bool:
        return self.due is None or self.due >= sequence

    def _is_held(self, sequence: int) -> bool:
        return bool(self._held) and self._held[0] < sequence

    def _pass(self, sequence: int) -> None:
        """Note that a result is handed out."""
        self._passed = max(self._passed, bisect_left(self._recorded, sequence) + 1)
        self.stir()

    def _count(self) -> None:
        self._quiet += 1
        if self._waiting and self._quiet >= self._enough():
            self._hand_out()
        self._counting = self._quiet < QUIET
        if self._counting:
            asyncio.get_running_loop().call_soon(self._count)

    def _enough(self) -> int:
        """Return how many quiet turns are enough for what waits."""
        _, _, alone, _ = self._waiting[0]
        return ALONE if len(self._waiting) == 1 and alone() else QUIET

    def _hand_out(self) -> None:
        """Hand out the first result that somebody still waits for, if it is its turn."""
        while self._waiting:
            sequence, _, _, future = self._waiting[0]
            if self._is_held(sequence) or (self._strict and not self._is_next(sequence)):
                return
            heapq.heappop(self._waiting)
            self._pass(sequence)
            if not future.done():
                future.set_result(None)
                return
