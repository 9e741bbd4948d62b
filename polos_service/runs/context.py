"""What a runnable works with. Its steps are durable, and nothing else is."""

from __future__ import annotations

import asyncio
import math
from collections.abc import Awaitable, Callable, Coroutine, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial
from typing import Any, NoReturn

from google.protobuf.duration_pb2 import Duration
from google.protobuf.message import Message

from polos.v1.error_pb2 import FailureReason
from polos.v1.event_pb2 import (
    Resumed,
    StepFinish,
    StepRetry,
    StepStart,
    Suspended,
    ToolCall,
    WaitKind,
)
from polos_service.cancelling import seen
from polos_service.errors import Finished, LogFull, Nondeterministic, StepError, Unable, Unrecorded
from polos_service.limits import KEY_LIMIT
from polos_service.logs import get_logger
from polos_service.runs.answers import Answer
from polos_service.runs.attempt import Attempt, Body, StepOutput, duration
from polos_service.runs.budget import NO_BUDGET, Budget
from polos_service.runs.clock import Clock
from polos_service.runs.frame import SECOND, Encoder
from polos_service.runs.gate import Gate
from polos_service.runs.journal import WAITS, Journal, Journals
from polos_service.runs.lineage import Lineage, Origin
from polos_service.runs.retries import ONCE, Retries
from polos_service.runs.totals import MODEL_CALL, Totals
from polos_service.runs.waiting import CANCELLED, Waiting
from polos_service.runs.writer import Writer
from polos_service.store import Claim

Boundary = Callable[[Unable | None], Awaitable[None]]
"""Awaited where a step is about to begin, and with a reason where the run cannot go on. Does
not return where the run is to be let go, so that its code cannot go on regardless."""

UNASKED_SHOWN = 20
"""Step keys at most that a warning in the service's log names."""

log = get_logger(__name__)


@dataclass(slots=True)
class Holding:
    """What a root run and its children share while one claim is worked on.

    Attributes:
        root: id of the root run.
        journals: what the log said when the claim began.
        writer: the log's one writer.
        clock: the time.
        boundary: see `Boundary`.
        deadline: when the root run must have ended, in nanoseconds since the epoch; None: never.
        broken: why a step's end could not be recorded; None as long as each could. The root
            run ends then, whatever its code makes of it.
        budget: bounds the model calls.
        waiting: what the run can wait with; None in a context whose run cannot wait.
        gate: hands out results in the log's order.

    """

    root: str
    journals: Journals
    writer: Writer
    clock: Clock
    boundary: Boundary
    deadline: int | None = None
    broken: Unrecorded | None = None
    budget: Budget = NO_BUDGET
    waiting: Waiting | None = None
    gate: Gate = field(init=False)
    _tidying: set[asyncio.Task[None]] = field(init=False)

    def __post_init__(self) -> None:
        self.gate = Gate(self.journals.results())
        self._tidying: set[asyncio.Task[None]] = set()

    def tidy(self, work: Coroutine[Any, Any, None]) -> None:
        """Do something beside the run's code, that nothing depends on."""
        task = asyncio.create_task(work)
        self._tidying.add(task)
        task.add_done_callback(self._tidying.discard)
        task.add_done_callback(seen)

    async def tidied(self) -> None:
        """Wait for the end of what `tidy` has begun."""
        if self._tidying:
            await asyncio.wait(self._tidying)


class RunContext:
    """One run, the root or a child, as its runnable sees it.

    Attributes:
        run_id: the run.
        totals: usage, cost and count of the run's own model calls that finished.

    """

    def __init__(
        self, holding: Holding, lineage: Lineage, journal: Journal, create_time: int
    ) -> None:
        """Begin at the first step; `create_time` is in nanoseconds since the epoch."""
        self.run_id = lineage.run_id
        self.totals = Totals()
        self._holding = holding
        self._journal = journal
        self._create_time = create_time
        self._writer = holding.writer
        self._clock = holding.clock
        # None at the root run: the writer has its encoder.
        self._encoder = Encoder(lineage) if lineage.origin else None
        self._used: set[str] = set()
        self._origins: set[Origin] = set()
        self._open: dict[str, Attempt] = {}
        """The attempts under way, by step."""

    @classmethod
    def of_root(
        cls,
        claim: Claim,
        journals: Journals,
        writer: Writer,
        clock: Clock,
        boundary: Boundary,
        *,
        budget: Budget = NO_BUDGET,
        waiting: Waiting | None = None,
    ) -> RunContext:
        """Return the context of a claimed run."""
        holding = Holding(
            claim.run_id,
            journals,
            writer,
            clock,
            boundary,
            claim.deadline,
            budget=budget,
            waiting=waiting,
        )
        lineage = Lineage(claim.run_id, claim.workflow_id)
        return cls(holding, lineage, journals.root, claim.create_time)

    @property
    def broken(self) -> Unrecorded | LogFull | None:
        """Why something could not be recorded, in the root run or a child; None: all could."""
        return self._holding.broken or self._writer.log_full

    def start(self, payload: Message) -> None:
        """Emit the run's first event, unless the log has it.

        Raises:
            StepError: the event is larger than every store takes.

        """
        if not self._journal.started:
            self._emit(payload)

    @property
    def create_time(self) -> int:
        """When the run was created, in nanoseconds since the epoch."""
        return self._create_time

    def knows(self, key: str) -> bool:
        """Return whether the log has a step or a wait with this key."""
        return key in self._journal.kinds

    @property
    def replays(self) -> bool:
        """Whether the log has the end of a step or a wait that the code has not asked for yet."""
        return any(key not in self._used for key in self._journal.results)

    def age(self) -> Duration:
        """Return the time since the run was created."""
        return duration(self._clock.now() - self._create_time)

    async def step(
        self,
        key: str,
        kind: str,
        body: Body,
        *,
        call: ToolCall | None = None,
        retries: Retries = ONCE,
        resumes: bool = False,
        abandons: bool = False,
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
            abandons: True if the run's code may stop waiting for the step, which is recorded as
                its end then.

        Raises:
            Finished: this process no longer writes the run's log.
            StepError: the step failed, now or when it was recorded.
            LogFull, Unrecorded: the end of this step, or of one before it, could not be recorded.
            ValueError: the key was used before in this run, is empty, or too long.

        """
        await self._ask(key, kind)
        recorded = self._journal.finished.get(key)
        if recorded is not None:
            await self._holding.gate.turn(self._journal.results[key])
            return await self._replay(recorded)
        await self._holding.boundary(None)
        if kind == MODEL_CALL:
            body = partial(self._pay, body)
        with self._working():
            try:
                attempt = await self._begin(key, kind, call, resumes=resumes)
                return await self._perform(attempt, body, retries)
            except asyncio.CancelledError:
                if abandons:
                    self._abandon(key)
                raise

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
            StepError: the data is larger than an event can hold.
            ValueError: the key was used before in this run, is empty, or too long.

        """
        await self._ask(key, WAITS[kind])
        recorded = self._journal.resumed.get(key)
        if recorded is not None:
            await self._holding.gate.turn(self._journal.results[key])
            if recorded.cancelled:
                await asyncio.Event().wait()  # until the run's code cancels it once more
            return recorded
        await self._holding.boundary(None)
        wait_id, told = await self._suspend(key, kind, data_json, until)
        try:
            answer = await self._waiting.ending(self.run_id, wait_id, told)
        except asyncio.CancelledError:
            self._cease(wait_id, told)
            raise
        resumed = resumed_by(wait_id, told, answer)
        self._emit(resumed)
        sequence = self._writer.latest
        await self._writer.flush()
        await self._waiting.close(wait_id, kind)
        await self._holding.gate.turn(sequence)
        return resumed

    async def begin_child(self, attempt: Attempt, workflow_id: str, payload: Message) -> RunContext:
        """Return the context of the child run that this attempt of a step begins, or has begun.

        When this returns the child's first event is durable: its code may begin, and its id
        be told. The child ends with `finish`.

        Args:
            attempt: an attempt of a step of this run; it begins one child at most.
            workflow_id: the agent or workflow that the child executes.
            payload: the child's first event, if it begins now.

        Raises:
            StepError: the first event is larger than every store takes.
            ValueError: the attempt has begun a child before.

        """
        origin = Origin(self.run_id, attempt.key, attempt.number)
        if origin in self._origins:
            raise ValueError(f"Step {attempt.key!r} of run {self.run_id} has a child already.")
        self._origins.add(origin)
        attempt.spoke = True
        journal = self._holding.journals.child(origin)
        if journal is not None and journal.lineage is not None:
            recorded = journal.lineage.workflow_id
            if recorded != workflow_id:
                await self._leave(
                    self._nondeterministic(attempt.key, "the child", recorded, workflow_id)
                )
            return RunContext(self._holding, journal.lineage, journal, journal.start_time)
        run_id = f"{self._holding.root}:{self._writer.latest + 1}"
        lineage = Lineage(run_id, workflow_id, origin)
        child = RunContext(self._holding, lineage, Journal(lineage), self._clock.now())
        child._emit(payload)
        await self._writer.flush()
        return child

    async def finish(self, payload: Message) -> None:
        """Emit the last event of a child, unless the log has it; durable when this returns.

        Raises:
            StepError: the event is larger than every store takes.

        """
        if not self._journal.ended:
            self._emit(payload)
            await self._writer.flush()
        self.warn_of_unasked()

    async def tidied(self) -> None:
        """Wait for the end of what is done beside the run's code."""
        await self._holding.tidied()

    def close(self) -> None:
        """Record nothing any more: code that goes on although it was cancelled gets Finished."""
        self._writer.close()

    def warn_of_unasked(self) -> None:
        """Say in the service's log which recorded steps the run's code no longer asked for."""
        asked_for = (*self._journal.attempts, *self._journal.waits)
        unasked = [key for key in asked_for if key not in self._used]
        if unasked:
            shown = ", ".join(unasked[:UNASKED_SHOWN])
            log.warning("steps_unasked", run_id=self.run_id, count=len(unasked), step_keys=shown)

    def _emit(self, payload: Message, private: bytes = b"") -> None:
        self._writer.emit(payload, private, encoder=self._encoder)

    async def _leave(self, reason: Unable) -> NoReturn:
        """Leave the run to another process; its code does not get to see that."""
        await self._holding.boundary(reason)
        raise reason

    def _nondeterministic(self, key: str, what: str, recorded: str, asked: str) -> Unable:
        return Nondeterministic(
            what, run_id=self.run_id, step_key=key, recorded=recorded, asked=asked
        )

    async def _ask(self, key: str, kind: str) -> None:
        """Note that the run's code asks for a step or a wait, and check that it may."""
        if self.broken is not None:
            raise self.broken
        if key in self._used:
            raise ValueError(f"The step key {key!r} is already used in run {self.run_id}.")
        if not 1 <= len(key.encode()) <= KEY_LIMIT:
            raise ValueError(f"The step key {key!r:.80} does not have 1 to {KEY_LIMIT} bytes.")
        self._used.add(key)
        recorded_kind = self._journal.kinds.get(key, kind)
        if recorded_kind != kind:
            await self._leave(self._nondeterministic(key, "the kind", recorded_kind, kind))

    @property
    def _waiting(self) -> Waiting:
        if self._holding.waiting is None:
            raise RuntimeError("A run whose context has nothing to wait with cannot wait.")
        return self._holding.waiting

    @contextmanager
    def _working(self) -> Iterator[None]:
        """Keep the run from being parked."""
        waiting = self._holding.waiting
        if waiting is None:
            yield
            return
        waiting.activity.work()
        try:
            yield
        finally:
            waiting.activity.rest()

    async def _suspend(
        self, key: str, kind: WaitKind.ValueType, data_json: str, until: int | None
    ) -> tuple[int, Suspended]:
        """Begin a wait, or go on with the one that the log has; return its id, and what is told."""
        begun = self._journal.waits.get(key)
        if begun is None:
            told = Suspended(step_key=key, kind=kind, data_json=data_json)
            if until is not None:
                told.expire_time.FromNanoseconds(until)
            self._emit(told)
            begun = self._writer.latest, told
        lineage = self._encoder.lineage if self._encoder else self._writer.lineage
        # Before the event can be seen: whoever sees it may look the wait up.
        await asyncio.gather(self._waiting.open(lineage, *begun), self._writer.flush())
        return begun

    def _cease(self, wait_id: int, told: Suspended) -> None:
        """Record that the run's code no longer waits, unless the run stops here."""
        if self._writer.closed:
            return
        self._emit(resumed_by(wait_id, told, CANCELLED))
        self._holding.tidy(self._close_wait(wait_id, told))

    async def _close_wait(self, wait_id: int, told: Suspended) -> None:
        await self._waiting.close(wait_id, told.kind)
        if told.kind != WaitKind.WAIT_KIND_TIMER:
            await self._waiting.end(self.run_id, told.step_key, CANCELLED)

    def _abandon(self, key: str) -> None:
        """Record that the run's code no longer waits for a step, unless the run stops here."""
        attempt = self._open.pop(key, None)
        if attempt is None or self._writer.closed:
            return
        reason = FailureReason.FAILURE_REASON_STEP_CANCELLED
        self._emit(attempt.failed(StepError(reason, "The run's code did not wait for the step.")))

    async def _begin(self, key: str, kind: str, call: ToolCall | None, *, resumes: bool) -> Attempt:
        """Begin a step's first attempt, or the one that follows what the log has of it."""
        begun = self._journal.attempts.get(key, 0)
        left = self._journal.starts.get(key, 0) - self._clock.now()
        same = bool(begun) and (resumes or left > 0)
        attempt = Attempt(
            self._writer,
            self._clock,
            key=key,
            kind=kind,
            call=call,
            number=begun if same else begun + 1,
            encoder=self._encoder,
        )
        self._open[key] = attempt
        if not begun:
            self._emit(StepStart(step_key=key, step_type=kind, attempt=1, tool_call=call))
        elif resumes:
            attempt.spoke = True
        elif same:
            await self._clock.sleep(left / SECOND)
        else:
            self._announce(
                attempt,
                FailureReason.FAILURE_REASON_PROCESS_RESTARTED,
                "The service process ended during this step.",
            )
        return attempt

    async def _pay(self, body: Body, attempt: Attempt) -> StepOutput:
        """Call a model, if the project may spend anything today."""
        await self._holding.budget.require()
        return await body(attempt)

    async def _perform(self, attempt: Attempt, body: Body, retries: Retries) -> StepOutput:
        failures = self._journal.failures.get(attempt.key, 0) if retries.recorded else 0
        while True:
            try:
                output = await body(attempt)
            except StepError as error:
                failures += 1
                pause = retries.pause(failures, error, self._left())
                if pause is None:
                    await self._fail(attempt, error)
                attempt = await self._retry(attempt, error, pause, retries)
            except Unable as reason:
                await self._leave(reason)
            except Exception as error:
                if self.broken is not None:
                    raise
                broken = Unrecorded(f"Step {attempt.key!r} failed unexpectedly.")
                self._holding.broken = broken
                raise broken from error
            else:
                return await self._record(attempt, output)

    async def _retry(
        self, attempt: Attempt, error: StepError, pause: float, retries: Retries
    ) -> Attempt:
        """Pause, and return the next attempt: told at once if the retries are recorded."""
        if retries.recorded:
            attempt.spoke = True
            again = self._open[attempt.key] = attempt.again()
            self._announce(again, error.reason, error.message, start=pause)
            await self._writer.flush()
            await self._clock.sleep(pause)
            return again
        await self._clock.sleep(pause)
        again = self._open[attempt.key] = attempt.again()
        if attempt.spoke:
            self._announce(again, error.reason, error.message)
        return again

    def _left(self) -> float:
        """Return the seconds until the run's deadline."""
        deadline = self._holding.deadline
        return math.inf if deadline is None else (deadline - self._clock.now()) / SECOND

    async def _record(self, attempt: Attempt, output: StepOutput) -> StepOutput:
        """Record the step's output, or if that is impossible, that the step failed."""
        try:
            finish, private = attempt.finished(output)
            self._emit(finish, private)
        except Finished:
            raise
        except StepError as error:
            await self._fail(attempt, error)
        except Exception:
            log.exception("output_not_stored", run_id=self.run_id, step_key=attempt.key)
            message = "The step's output cannot be stored as an event."
            await self._fail(attempt, StepError(FailureReason.FAILURE_REASON_INTERNAL, message))
        sequence = self._ended(attempt)
        self.totals.add(finish)
        if finish.step_type == MODEL_CALL:
            await self._holding.budget.count(finish)
        await self._writer.flush()
        await self._holding.gate.turn(sequence)
        return output

    async def _fail(self, attempt: Attempt, error: StepError) -> NoReturn:
        """Record that the step failed, and raise why."""
        try:
            self._emit(attempt.failed(error))
        except (Finished, LogFull):
            raise
        except Exception as cause:
            broken = Unrecorded(f"The end of step {attempt.key!r} could not be recorded.")
            self._holding.broken = broken
            raise broken from cause
        sequence = self._ended(attempt)
        await self._writer.flush()
        await self._holding.gate.turn(sequence)
        raise error

    def _ended(self, attempt: Attempt) -> int:
        """Note that the end of a step was just emitted; return its sequence."""
        self._open.pop(attempt.key, None)
        return self._writer.latest

    def _announce(
        self,
        attempt: Attempt,
        reason: FailureReason.ValueType,
        message: str,
        *,
        start: float | None = None,
    ) -> None:
        retry = StepRetry(
            step_key=attempt.key, attempt=attempt.number, reason=reason, message=message
        )
        if start is not None:
            retry.start_time.FromNanoseconds(self._clock.now() + round(start * SECOND))
        self._emit(retry)

    async def _replay(self, recorded: StepFinish) -> StepOutput:
        if recorded.HasField("failure"):
            failure = recorded.failure
            if failure.reason == FailureReason.FAILURE_REASON_STEP_CANCELLED:
                await asyncio.Event().wait()  # until the run's code cancels it once more
            raise StepError(
                failure.reason,
                failure.message,
                retryable=failure.retryable,
                provider_request_id=failure.provider_request_id,
            )
        self.totals.add(recorded)
        return StepOutput(
            result_json=recorded.result_json,
            long_answer=recorded.long_answer if recorded.HasField("long_answer") else None,
            said=self._journal.take_said(recorded.step_key),
            usage=recorded.usage if recorded.HasField("usage") else None,
            cost=recorded.cost if recorded.HasField("cost") else None,
            finish_reason=recorded.finish_reason,
            private=self._journal.take_private(recorded.step_key),
        )


def resumed_by(wait_id: int, told: Suspended, answer: Answer | None) -> Resumed:
    """Return the event that ends a wait; with None, because its time has come."""
    resumed = Resumed(step_key=told.step_key, wait_id=wait_id, kind=told.kind)
    if answer is None:
        return resumed
    match answer.ending:
        case "answered":
            resumed.data_json = answer.data_json
            resumed.request_id, resumed.principal = answer.request_id, answer.principal
        case "expired":
            resumed.expired = True
        case "cancelled":
            resumed.cancelled = True
    return resumed
