"""A step of a run: its attempts, and how its end is recorded and comes back from the log."""

from __future__ import annotations

import asyncio
import math
from contextlib import nullcontext
from functools import partial
from typing import NoReturn

from polos.v1.error_pb2 import FailureReason
from polos.v1.event_pb2 import RunCancelled, StepFinish, StepRetry, StepStart, ToolCall
from polos_service.errors import Finished, LogFull, StepError, Unable, Unrecorded
from polos_service.logs import get_logger
from polos_service.runs.attempt import Attempt, Body, StepOutput
from polos_service.runs.branch import Branch, Child
from polos_service.runs.child_runs import ChildRuns
from polos_service.runs.frame import SECOND
from polos_service.runs.retries import Retries
from polos_service.runs.totals import MODEL_CALL

CANCELLED = FailureReason.FAILURE_REASON_STEP_CANCELLED
RESTARTED = FailureReason.FAILURE_REASON_PROCESS_RESTARTED

log = get_logger(__name__)


class Stepping:
    """Performs the steps of one run."""

    def __init__(self, branch: Branch, children: ChildRuns[Child]) -> None:
        self._branch = branch
        self._children = children
        self._holding = branch.holding
        self._journal = branch.journal
        self._writer = branch.holding.writer
        self._clock = branch.holding.clock

    async def step(
        self,
        key: str,
        kind: str,
        body: Body,
        *,
        call: ToolCall | None,
        retries: Retries,
        resumes: bool,
        works: bool,
        abandons: bool,
        reserve: int,
    ) -> StepOutput:
        """Return the output that the log holds for `key`, or run `body` and record its output."""
        await self._branch.ask(key, kind)
        recorded = self._journal.finished.get(key)
        if recorded is not None:
            await self._branch.turn(self._journal.results[key], new=False)
            self._keep(call, recorded)
            return await self._replay(recorded)
        await self._holding.boundary(None)
        if kind == MODEL_CALL:
            body = partial(self._pay, body, reserve)
        # What a child does counts by itself: its parent only waits for it.
        with self._branch.working() if works else nullcontext():
            try:
                attempt = await self._begin(key, kind, call, resumes=resumes)
                return await self._perform(attempt, body, retries)
            except asyncio.CancelledError:
                if abandons:
                    self.abandon(key)
                raise

    def abandon(self, key: str) -> None:
        """Record that the run's code no longer waits for a step, unless the run stops here."""
        attempt = self._branch.open.pop(key, None)
        if attempt is None or self._writer.closed or not self._branch.recording:
            return
        self._cancel_child(key, attempt.number)
        error = StepError(CANCELLED, "The run's code did not wait for the step.")
        self._branch.emit(attempt.failed(error))
        self._branch.gate.stir()

    def take_up(self, key: str) -> None:
        """Have under way the child that the log has of an open step, also before the code has."""
        attempt = self._branch.open.get(key)
        if attempt is not None:
            self._children.take_up(key, attempt.number)

    def _cancel_child(self, key: str, attempt: int) -> None:
        """Record that the child of an attempt is cancelled, unless it has ended."""
        self._children.take_up(key, attempt)
        child = self._branch.children.pop(key, None)
        if child is not None:
            child.cancel()

    def attempt(
        self, key: str, kind: str, call: ToolCall | None, number: int | None = None
    ) -> Attempt:
        """Return an attempt of a step; None: the one that the log has."""
        return Attempt(
            self._writer,
            self._clock,
            key=key,
            kind=kind,
            call=call,
            number=self._journal.attempts[key] if number is None else number,
            encoder=self._branch.encoder,
        )

    async def _begin(self, key: str, kind: str, call: ToolCall | None, *, resumes: bool) -> Attempt:
        """Begin a step's first attempt, or the one that follows what the log has of it."""
        begun = self._journal.attempts.get(key, 0)
        left = self._journal.starts.get(key, 0) - self._clock.now()
        same = bool(begun) and (left > 0 or (resumes and not self._is_given_up(key)))
        attempt = self.attempt(key, kind, call, begun if same else begun + 1)
        self._branch.open[key] = attempt
        if not begun:
            self._branch.emit(StepStart(step_key=key, step_type=kind, attempt=1, tool_call=call))
        elif same and resumes:
            attempt.spoke = True
        elif same:
            await self._clock.sleep(left / SECOND)
        elif key in self._journal.interrupted:
            error = StepError(CANCELLED, "The workflow's function started over.")
            self._announce(attempt, error)
        else:
            message = "The service process ended during this step."
            self._announce(attempt, StepError(RESTARTED, message))
        return attempt

    def _is_given_up(self, key: str) -> bool:
        """Return whether the code gave up the child of a step before it started over."""
        child = self._children.last(key)
        return (
            key in self._journal.interrupted
            and child is not None
            and isinstance(child.end, RunCancelled)
        )

    async def _pay(self, body: Body, reserve: int, attempt: Attempt) -> StepOutput:
        """Call a model, if the tree may spend anything more, and the project may today."""
        async with self._holding.spending.call(reserve):
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
                await self._branch.leave(reason)
            except Exception as error:
                if self._branch.broken is not None:
                    raise
                broken = Unrecorded(f"Step {attempt.key!r} failed unexpectedly.")
                self._holding.broken = broken
                raise broken from error
            else:
                return await self._record(attempt, output)

    async def _retry(
        self, attempt: Attempt, error: StepError, pause: float, retries: Retries
    ) -> Attempt:
        """Pause, and return the next attempt.

        It is told at once if the retries are recorded, or the attempt before was paid for.
        """
        if retries.recorded or error.usage is not None:
            attempt.spoke = True
            again = self._branch.open[attempt.key] = attempt.again()
            self._announce(again, error, start=pause)
            if error.usage is not None:
                await self._holding.budget.count(error.usage, error.cost)
            await self._writer.flush()
            await self._clock.sleep(pause)
            return again
        await self._clock.sleep(pause)
        again = self._branch.open[attempt.key] = attempt.again()
        if attempt.spoke:
            self._announce(again, error)
        return again

    def _left(self) -> float:
        """Return the seconds until the run's deadline."""
        deadline = self._holding.deadline
        return math.inf if deadline is None else (deadline - self._clock.now()) / SECOND

    async def _record(self, attempt: Attempt, output: StepOutput) -> StepOutput:
        """Record the step's output, or if that is impossible, that the step failed."""
        self._check_open(attempt)
        try:
            finish, private = attempt.finished(output)
            self._branch.emit(finish, private)
        except Finished:
            raise
        except StepError as error:
            await self._fail(attempt, error.used(output.usage, output.cost))
        except Exception:
            log.exception("output_not_stored", run_id=self._branch.run_id, step_key=attempt.key)
            message = "The step's output cannot be stored as an event."
            await self._fail(attempt, StepError(FailureReason.FAILURE_REASON_INTERNAL, message))
        await self._hand_out(self._ended(attempt, finish), finish)
        return output

    async def _hand_out(self, sequence: int, finish: StepFinish) -> None:
        """Hand out the end of a step, and count what the project has spent."""
        with self._branch.gate.holding(sequence):
            if finish.step_type == MODEL_CALL:
                cost = finish.cost if finish.HasField("cost") else None
                await self._holding.budget.count(finish.usage, cost)
            await self._branch.hand_out(sequence)

    async def _fail(self, attempt: Attempt, error: StepError) -> NoReturn:
        """Record that the step failed, and raise why."""
        self._check_open(attempt)
        try:
            finish = attempt.failed(error)
            self._branch.emit(finish)
        except (Finished, LogFull):
            raise
        except Exception as cause:
            broken = Unrecorded(f"The end of step {attempt.key!r} could not be recorded.")
            self._holding.broken = broken
            raise broken from cause
        await self._hand_out(self._ended(attempt, finish), finish)
        error.attempt = attempt.number
        raise error

    def _check_open(self, attempt: Attempt) -> None:
        """Refuse the end of a step that was recorded as given up, or is begun anew elsewhere.

        Raises:
            Finished: it was.

        """
        if attempt.key not in self._branch.open or not self._branch.recording:
            raise Finished(f"The run's code does not wait for step {attempt.key!r} any more.")

    def _ended(self, attempt: Attempt, finish: StepFinish) -> int:
        """Note that the end of a step was just emitted; return its sequence."""
        self._branch.open.pop(attempt.key, None)
        self._keep(attempt.call, finish)
        self._branch.children.pop(attempt.key, None)
        return self._writer.latest

    def _keep(self, call: ToolCall | None, finish: StepFinish) -> None:
        """Keep the end of a child's tool call for the child's result."""
        if call is not None and self._branch.encoder is not None:
            self._branch.tools.append((call, finish))

    def _announce(self, attempt: Attempt, error: StepError, *, start: float | None = None) -> None:
        """Tell why an attempt begins, and what the one before has used.

        A child of that one is void: it ends first, for whoever reads it alone.
        """
        self._cancel_child(attempt.key, attempt.number - 1)
        retry = StepRetry(
            step_key=attempt.key,
            attempt=attempt.number,
            reason=error.reason,
            message=error.message,
            usage=error.usage,
            cost=error.cost,
        )
        if start is not None:
            retry.start_time.FromNanoseconds(self._clock.now() + round(start * SECOND))
        self._branch.emit(retry)

    async def _replay(self, recorded: StepFinish) -> StepOutput:
        if recorded.HasField("failure"):
            failure = recorded.failure
            if failure.reason == CANCELLED:
                with self._branch.gate.holding(self._journal.results[recorded.step_key]):
                    await self._branch.never(recorded.step_key)
            error = StepError(
                failure.reason,
                failure.message,
                retryable=failure.retryable,
                provider_request_id=failure.provider_request_id,
            )
            error.attempt = recorded.attempt
            raise error
        return StepOutput(
            result_json=recorded.result_json,
            long_answer=recorded.long_answer if recorded.HasField("long_answer") else None,
            said=self._journal.take_said(recorded.step_key),
            usage=recorded.usage if recorded.HasField("usage") else None,
            cost=recorded.cost if recorded.HasField("cost") else None,
            finish_reason=recorded.finish_reason,
            result_schema=recorded.result_schema,
            invalid=recorded.invalid_output if recorded.HasField("invalid_output") else None,
            private=self._journal.take_private(recorded.step_key),
        )
