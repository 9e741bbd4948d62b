"""One run of a tree, the root or a child: what its steps and waits share."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, NoReturn, Protocol
from weakref import WeakSet

from google.protobuf.message import Message

from polos.v1.event_pb2 import StepFinish, Suspended, ToolCall
from polos_client.errors import StoreUnavailable
from polos_service.errors import Finished, LogFull, Nondeterministic, Unable, Unrecorded
from polos_service.limits import KEY_LIMIT
from polos_service.runs.attempt import Attempt
from polos_service.runs.frame import SECOND, Encoder
from polos_service.runs.gate import Gate
from polos_service.runs.holding import Holding
from polos_service.runs.journal import Journal
from polos_service.runs.lineage import Lineage, number_of

REFUSALS = 100
"""Calls that are refused by raising once the code is over. Further calls do not return: code
that asks again whatever it gets must not hold the loop."""

GIVING_UP = 60.0
"""Seconds beyond the time that the code took to give a step up, before it counts as other code."""


class Child(Protocol):
    """A child run that is under way, as its parent sees it."""

    @property
    def end_payload(self) -> Message | None:
        """The payload of its last event; None if it has not ended."""
        ...

    def cancel(self) -> None:
        """Record that it is cancelled, with all that it has open, unless it has ended."""
        ...

    def leave_open(self) -> None:
        """Record nothing of what it has open: its code is stopped, and goes on later."""
        ...

    def deadlines(self) -> Iterator[int]:
        """Yield its deadline and those of its own children, in nanoseconds since the epoch."""
        ...


class Branch:
    """One run, while its code is run once.

    Attributes:
        run_id: the run.
        lineage: the same, with its parent.
        holding: what it shares with the other runs of the claim.
        journal: what the log said of it when the code began.
        numbers: the numbers of the child and of the children above it; none at the root run.
        encoder: that of a child; None at the root run, whose writer has one.
        totals: what its model calls add up to, with those of its children.
        open: the attempts under way, by step.
        waits: the waits under way, by key, with their ids.
        children: the children under way, by the step that began them.
        tools: the calls of tools that have ended, with their ends.
        gate: hands out results in the log's order.
        main: the task that the code began in; None if that is not known.
        over: True once the code has ended or is to end. Every call of it is refused then.
        cancelled: True once a child's end by a cancellation is recorded.
        recording: False once what it has open is left as it is, for the code to go on with.

    """

    def __init__(
        self,
        holding: Holding,
        lineage: Lineage,
        journal: Journal,
        above: frozenset[int] = frozenset(),
    ) -> None:
        """Begin at the first step; `above` has the numbers of the children above the run."""
        self.run_id = lineage.run_id
        self.lineage = lineage
        self.holding = holding
        self.journal = journal
        number = number_of(lineage.run_id)
        self.numbers = above if number is None else above | {number}
        self.encoder = Encoder(lineage, self.numbers) if lineage.origin else None
        self.totals = holding.totals.of(lineage)
        self.open: dict[str, Attempt] = {}
        self.waits: dict[str, tuple[int, Suspended]] = {}
        self.children: dict[str, Child] = {}
        self.tools: list[tuple[ToolCall, StepFinish]] = []
        self.gate = Gate(journal.results.values())
        self.over = False
        self.recording = True
        self.cancelled = False
        self._used: set[str] = set()
        self._unasked = len(journal.kinds)
        self._refused = 0
        self.main: asyncio.Task[Any] | None = None
        self._tasks: WeakSet[asyncio.Task[Any]] = WeakSet()
        self._spared: WeakSet[asyncio.Task[Any]] = WeakSet()
        """Tasks that got a result although they had been cancelled."""

    @property
    def broken(self) -> Unrecorded | LogFull | None:
        """Why something could not be recorded, in the root run or a child; None: all could."""
        return self.holding.broken or self.holding.writer.log_full

    @property
    def replays(self) -> bool:
        """Whether the log has a step or a wait that the code has not asked for yet."""
        return self._unasked > 0

    def emit(self, payload: Message, private: bytes = b"") -> None:
        """Emit an event of the run."""
        self.holding.writer.emit(payload, private, encoder=self.encoder)
        self.totals.add(payload)

    def tasks(self) -> set[asyncio.Task[Any]]:
        """Return the tasks of the code that are known and not done.

        They are the one that it began in, and those that have asked for steps or waits.
        """
        return {task for task in (self.main, *self._tasks) if task and not task.done()}

    async def ask(self, key: str, kind: str) -> None:
        """Note that the run's code asks for a step or a wait, and check that it may.

        Raises:
            CancelledError: the task was cancelled when it was about to get its last result.

        """
        self.gate.stir()
        if self.over or self.holding.writer.closed:
            await self._refuse()
        self._make_up()
        if self.broken is not None:
            raise self.broken
        if key in self._used:
            raise ValueError(f"The step key {key!r} is already used in run {self.run_id}.")
        if not 1 <= len(key.encode()) <= KEY_LIMIT:
            raise ValueError(f"The step key {key!r:.80} does not have 1 to {KEY_LIMIT} bytes.")
        self._tasks.add(current())
        self._used.add(key)
        recorded_kind = self.journal.kinds.get(key)
        if recorded_kind is not None:
            self._unasked -= 1
            if recorded_kind != kind:
                await self.leave(self.nondeterministic(key, "the kind", recorded_kind, kind))

    async def turn(self, sequence: int, *, new: bool) -> None:
        """Wait until a result has its turn; `new` says that it was recorded now."""
        task = current()

        def alone() -> bool:
            return task is self.main and self.tasks() <= {task}

        with self.working():
            await self.gate.turn(sequence, alone, new=new)

    async def hand_out(self, sequence: int) -> None:
        """Return when a result that was recorded just now is durable and has its turn.

        While the code is quiet, only the process's own time cancels a task, an `asyncio.timeout`
        for example. The log has the result by now, and the code will get it when it runs again:
        so it does now, and is cancelled where it asks for the next step.
        """
        with self.gate.holding(sequence), self.working():
            while True:
                try:
                    await self.holding.writer.flush()
                    await self.turn(sequence, new=True)
                except asyncio.CancelledError:
                    stops = self.over or self.holding.writer.closed or not self.recording
                    if stops or not self.gate.quiet:
                        raise
                    self._spared.add(current())
                else:
                    return

    def _make_up(self) -> None:
        """Cancel the task that calls, if it was spared and nobody has taken that back."""
        task = current()
        if task in self._spared:
            self._spared.discard(task)
            if task.cancelling():
                raise asyncio.CancelledError

    @contextmanager
    def working(self) -> Iterator[None]:
        """Keep the run from being parked."""
        waiting = self.holding.waiting
        if waiting is None:
            yield
            return
        with waiting.activity.working():
            yield

    @contextmanager
    def waiting_for_room(self, key: str) -> Iterator[int]:
        """Let the run be parked while a step can only try again; give a time until when it can."""
        waiting = self.holding.waiting
        if waiting is None:
            yield self.holding.clock.now() + SECOND
            return
        since = self.journal.times.get(key, self.holding.clock.now())
        with waiting.activity.pausing(since) as until:
            yield until

    async def never(self, key: str) -> NoReturn:
        """Wait for the run's code to give up what it gave up when this was recorded.

        Code that has not given it up in the time that it took then, and GIVING_UP, is other code.
        Until then the run is not parked: what measures that time would begin anew.
        """
        took = self.journal.given_up.get(key, 0) / SECOND
        with self.working():
            await self.holding.clock.sleep(took + GIVING_UP)
        reason = self.nondeterministic(key, "the end", "given up by the code", "its result")
        await self.leave(reason)

    async def leave(self, reason: Unable | StoreUnavailable) -> NoReturn:
        """Leave the run to another claim; its code does not get to see that."""
        await self.holding.boundary(reason)
        raise reason

    def nondeterministic(self, key: str, what: str, recorded: str, asked: str) -> Unable:
        """Return the error of code that asks for something else than the log has."""
        return Nondeterministic(
            what, run_id=self.run_id, step_key=key, recorded=recorded, asked=asked
        )

    def unasked(self) -> list[str]:
        """Return the keys of the steps and waits in the log that the code has not asked for."""
        return [key for key in self.journal.kinds if key not in self._used]

    async def _refuse(self) -> NoReturn:
        self._refused += 1
        if self._refused > REFUSALS:
            await asyncio.Event().wait()
        await asyncio.sleep(0)
        raise Finished(f"The code of run {self.run_id} is over, and begins nothing any more.")


def current() -> asyncio.Task[Any]:
    """Return the task that runs now."""
    task = asyncio.current_task()
    if task is None:
        raise RuntimeError("Steps and waits work in a task only.")
    return task
