"""What a runnable works with. Its steps are durable, and nothing else is."""

from __future__ import annotations

import asyncio
from collections.abc import Collection, Iterator
from contextlib import AbstractContextManager, contextmanager
from copy import copy
from typing import Any, NoReturn

from google.protobuf.duration_pb2 import Duration
from google.protobuf.message import Message

from polos.v1.event_pb2 import (
    Resumed,
    RunCancelled,
    StepFinish,
    ToolCall,
    WaitKind,
    WorkflowRetry,
)
from polos_service.errors import LogFull, StepError, Unable, Unrecorded
from polos_service.runs.attempt import Body, StepOutput, duration
from polos_service.runs.branch import Branch
from polos_service.runs.budget import NO_BUDGET, Budget
from polos_service.runs.cancellation import Cancellation
from polos_service.runs.child_runs import ChildRuns
from polos_service.runs.clock import Clock
from polos_service.runs.frame import SECOND
from polos_service.runs.holding import Boundary, Holding, Load
from polos_service.runs.journals import Journals
from polos_service.runs.leftovers import Leftovers
from polos_service.runs.lineage import Lineage
from polos_service.runs.pausing import Ended, Other, Pausing
from polos_service.runs.retries import ONCE, Retries
from polos_service.runs.spending import TreeBudget
from polos_service.runs.stepping import Stepping
from polos_service.runs.timing import warn_of_timing
from polos_service.runs.totals import Totals
from polos_service.runs.waiting import Waiting
from polos_service.runs.writer import Writer
from polos_service.store import Claim, Parent


class RunContext:
    """One run, the root or a child, as its runnable sees it.

    Attributes:
        run_id: the run.
        create_time: when it was created, in nanoseconds since the epoch.
        end_payload: the payload of a child's last event; None if it has not ended.
        children: what the run has begun inside its steps.
        tidying: what is done beside the code of the whole tree.
        cancellation: that of a child by somebody, and not only of its root.

    """

    def __init__(self, branch: Branch, create_time: int, depth: int = 0) -> None:
        """Begin at the first step.

        Args:
            branch: the run, and what the log has of it.
            create_time: when it was created, in nanoseconds since the epoch.
            depth: how many runs are above it, in other logs, too.

        """
        self.run_id = branch.run_id
        self.create_time = create_time
        self.end_payload = branch.journal.end
        self._depth = depth
        self._holding = branch.holding
        self._writer = branch.holding.writer
        self._clock = branch.holding.clock
        self.tidying = branch.holding.tidying
        self.cancellation = Cancellation(branch.holding, branch.run_id)
        self._begin(branch)

    def _begin(self, branch: Branch) -> None:
        """Let the code begin, or begin anew."""
        self._branch = branch
        self._journal = branch.journal
        self.children = ChildRuns(branch, self._depth, RunContext)
        self._steps = Stepping(branch, self.children)
        self._waits = Pausing(branch)
        self._leftovers = Leftovers(branch, self._steps, self._waits)

    @classmethod
    def of_root(
        cls,
        claim: Claim,
        journals: Journals,
        writer: Writer,
        clock: Clock,
        boundary: Boundary,
        *,
        load: Load | None = None,
        budget: Budget = NO_BUDGET,
        waiting: Waiting | None = None,
    ) -> RunContext:
        """Return the context of a claimed run."""
        holding = Holding(
            claim.run_id,
            claim.project,
            journals,
            writer,
            clock,
            boundary,
            load,
            claim.deadline,
            budget=budget,
            waiting=waiting,
            parent=claim.parent,
        )
        branch = Branch(holding, Lineage(claim.run_id, claim.workflow_id), journals.root)
        depth = 0 if claim.parent is None else claim.parent.depth
        return cls(branch, claim.create_time, depth)

    @property
    def project(self) -> str:
        """The project that the run belongs to."""
        return self._holding.project

    @property
    def root(self) -> Lineage:
        """The root run."""
        return self._writer.lineage

    @property
    def parent_run_id(self) -> str | None:
        """The run whose step began this one; None if a caller did."""
        above = self._branch.lineage.origin or self._holding.parent
        return None if above is None else above.run_id

    def below(self, step_key: str) -> Parent:
        """Return a step of this run as what starts a run with a log of its own.

        Raises:
            StepError: there are MAX_DEPTH runs above that run.

        """
        self.children.require_depth(step_key)
        return Parent(
            root=self._holding.root, run_id=self.run_id, step_key=step_key, depth=self._depth + 1
        )

    @property
    def tools(self) -> list[tuple[ToolCall, StepFinish]]:
        """The calls of tools that have ended, with their ends, in the log's order."""
        return self._branch.tools

    @property
    def totals(self) -> Totals:
        """What the model calls of the run and its children add up to."""
        return self._branch.totals

    @property
    def broken(self) -> Unrecorded | LogFull | None:
        """Why something could not be recorded, in the root run or a child; None: all could."""
        return self._branch.broken

    @property
    def retries(self) -> int:
        """How often the run's code has started over."""
        return self._journal.retries

    @property
    def replays(self) -> bool:
        """Whether the log has a step or a wait that the code has not asked for yet."""
        return self._branch.replays

    @property
    def budget(self) -> TreeBudget:
        """What the model calls of the whole tree may use together."""
        return self._holding.spending.budget

    def keep_within(self, budget: TreeBudget) -> None:
        """Hold the model calls of the whole tree within a budget: that of its root run."""
        self._holding.spending.budget = budget

    def start(self, payload: Message) -> None:
        """Emit the run's first event, unless the log has it.

        Raises:
            StepError: the event is larger than every store takes.

        """
        if not self._journal.started:
            self._branch.emit(payload)

    def knows(self, key: str) -> bool:
        """Return whether the log has a step or a wait with this key."""
        return key in self._journal.kinds

    def kind(self, key: str) -> str | None:
        """Return the kind of a step or a wait that the log has; None if it has none."""
        return self._journal.kinds.get(key)

    def ended(self, key: str) -> bool:
        """Return whether the log has the end of a step or a wait with this key."""
        return key in self._journal.results

    def shown(self, key: str) -> str | None:
        """Return what a wait that the log has shows to whoever answers; None if it has none."""
        begun = self._journal.waits.get(key)
        return None if begun is None else begun[1].data_json

    def after(self, seconds: float) -> int:
        """Return the time in so many seconds, in nanoseconds since the epoch."""
        return self._clock.now() + round(seconds * SECOND)

    def left(self, deadline: int | None) -> float | None:
        """Return the seconds until a time in nanoseconds since the epoch; None for None."""
        return None if deadline is None else max(0.0, (deadline - self._clock.now()) / SECOND)

    def deadlines(self) -> Iterator[int]:
        """Yield when it and its children must have ended, in nanoseconds since the epoch."""
        for child in self._branch.children.values():
            yield from child.deadlines()
        if self._journal.deadline is not None:
            yield self._journal.deadline

    def working(self) -> AbstractContextManager[None]:
        """Keep the run from being parked, whatever else waits."""
        return self._branch.working()

    async def paced(self) -> None:
        """Return when a child may begin: one of the claim's does in each turn of the loop."""
        await self._holding.pacer.next()

    def waiting_for_room(self) -> AbstractContextManager[int]:
        """Let the run be parked while it can only try again; give a time until when it can.

        The time is in nanoseconds since the epoch. A parked run is woken then.
        """
        return self._branch.waiting_for_room()

    @contextmanager
    def handing_over(self) -> Iterator[None]:
        """Hand out no result while what the code is about to get is made ready, and do not park."""
        with self._branch.gate.holding(), self._branch.working():
            yield

    async def leave_unread(self, key: str, why: StepError) -> NoReturn:
        """Leave the run to code that can read what the log has of a step, as it could before."""
        message = (
            f"The log of run {self.run_id} has the result of step {key!r}, which the code cannot "
            f"read any more: {why.message.rstrip('.')}. Go back to the code that the run was "
            "started with, or cancel the run."
        )
        await self._branch.leave(Unable(message, step_key=key))

    def age(self) -> Duration:
        """Return the time since the run was created."""
        return duration(self._clock.now() - self.create_time)

    async def step(
        self,
        key: str,
        kind: str,
        body: Body,
        *,
        call: ToolCall | None = None,
        retries: Retries = ONCE,
        resumes: bool = False,
        works: bool = True,
        abandons: bool = False,
        reserve: int = 0,
    ) -> StepOutput:
        """Return the output that the log holds for `key`, or run `body` and record its output.

        A retryable StepError is tried again as `retries` says. It is not if its pause would not be
        over before the run's deadline.

        Args:
            key: any text of 1 to KEY_LIMIT bytes, used once in the run.
            kind: the step's type, for example `llm`; the same whenever the step is asked for.
            body: what the step does.
            call: the tool call that a tool step makes.
            retries: how often the step is tried, and how far apart.
            resumes: True if the body emits nothing itself and begins a child: after a crash
                its attempt goes on with that child, instead of a new attempt.
            works: False if the body itself says when it works, with `working`. Else the run is
                not parked before it ends, unless it `resumes`.
            abandons: True if the run's code may stop waiting for the step, which is recorded as
                its end then.
            reserve: the output tokens that a model call may use; 0: not known.

        Raises:
            Finished: this process no longer writes the run's log.
            StepError: the step failed, now or when it was recorded.
            LogFull, Unrecorded: the end of this step, or of one before it, could not be recorded.
            ValueError: the key was used before in this run, is empty, or too long.

        """
        return await self._steps.step(
            key,
            kind,
            body,
            call=call,
            retries=retries,
            resumes=resumes,
            works=works and not resumes,
            abandons=abandons,
            reserve=reserve,
        )

    async def wait(
        self, key: str, kind: WaitKind.ValueType, *, data_json: str = "", until: int | None = None
    ) -> Resumed:
        """Wait, and return how the wait has ended, the same whenever it is asked for.

        Args:
            key: as that of a step.
            kind: what it waits for.
            data_json: what is shown to whoever answers.
            until: when a timer's time comes, or the wait expires, in nanoseconds since the epoch;
                None: never. What the log has counts.

        Raises:
            Finished: this process no longer writes the run's log.
            LogFull, Unrecorded: something could not be recorded.
            StepError: the data has more than ANSWER_LIMIT bytes.
            ValueError: the key was used before in this run, is empty, or too long.

        """
        return (await self.waited(key, kind, data_json=data_json, until=until)).resumed

    async def waited(
        self,
        key: str,
        kind: WaitKind.ValueType,
        *,
        data_json: str = "",
        until: int | None = None,
        other: Other | None = None,
    ) -> Ended:
        """Wait as `wait` does, and return where the log has the end as well.

        `other` is the run that a wait of kind RUN is for.
        """
        return await self._waits.wait(key, kind, data_json, until, other)

    async def finish(self, payload: Message) -> None:
        """Emit the last event of a child, unless the log has it; durable when this returns.

        Raises:
            StepError: the event is larger than every store takes.

        """
        if self.end_payload is None:
            self._branch.emit(payload)
            self.end_payload = payload
            await self._writer.flush()
        self.warn_of_unasked()

    def cancel(self) -> None:
        """Record that a child is cancelled, with all that it has open, unless it has ended."""
        if self.end_payload is not None:
            return
        self.cancel_children()
        self._leftovers.drop()
        self.end()
        self.end_payload = self.cancelled_end()
        self._branch.emit(self.end_payload)
        self._branch.recording = False
        self._branch.cancelled = True

    async def end_cancelled(self) -> None:
        """Record that somebody has cancelled a child, once its code has stopped."""
        self.cancel()
        self.tidying.begin(self.cancellation.settle())
        await self.tidying.done()

    def cancelled_end(self) -> RunCancelled:
        """Return the last event of the run if it ends now because it is cancelled."""
        totals = self.totals
        return RunCancelled(total_steps=totals.steps, duration=self.age(), **totals.told())

    def cancel_children(self) -> None:
        """Record that every child is cancelled that is under way, or was left so by the log."""
        self._leftovers.cancel_children()

    def leave_open(self) -> None:
        """Record nothing of what a child has open: its code is stopped, and goes on later."""
        self._leftovers.leave_open()

    def once(self) -> RunContext:
        """Return this context for the code as it runs now: it is over when that starts over."""
        return copy(self)

    def enter(self) -> None:
        """Note that the run's code begins in the task that calls."""
        self._branch.main = asyncio.current_task()

    def close(self) -> None:
        """Record nothing any more: code that goes on although it was cancelled gets Finished."""
        self.end()
        self._writer.close()

    def end(self) -> None:
        """Begin nothing any more: every call is refused from now on."""
        self._branch.over = True

    def tasks(self) -> Collection[asyncio.Task[Any]]:
        """Return the tasks that the code has begun, as far as known, and that are not done."""
        return self._branch.tasks() - {self._branch.main}

    def warn_of_timing(self) -> None:
        """Say in the service's log that code which is about to be stopped measures time itself."""
        warn_of_timing(self._branch.lineage.workflow_id, self._branch.tasks())

    async def settle(self) -> None:
        """End what the run's code has begun and does not wait for, once it has returned or raised.

        Each step and each wait is recorded as cancelled, whether it was begun now or before.
        """
        with self.working():
            await self._leftovers.settle()

    async def start_over(self, message: str) -> None:
        """Let the run's code begin anew, after it raised an exception with this message.

        What it has begun goes on where the code asks for it again; what has ended comes from the
        log.
        """
        branch = self._branch
        self.leave_open()
        with self.working():
            await self._leftovers.stop()
            await self.tidying.done()  # the log tells first how the waits ended that it gave up
            branch.emit(WorkflowRetry(attempt=self._journal.retries + 2, message=message))
            await self._holding.reload()
        journal = self._holding.journals.of(branch.lineage)
        self._begin(Branch(self._holding, branch.lineage, journal, branch.numbers))

    def warn_of_unasked(self) -> None:
        """Say in the service's log which recorded steps the run's code no longer asked for."""
        self._leftovers.warn_of_unasked()
