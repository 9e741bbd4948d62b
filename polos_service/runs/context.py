"""What a runnable works with: its steps, and nothing else is durable."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import NoReturn

from google.protobuf.duration_pb2 import Duration
from google.protobuf.message import Message

from polos.v1.error_pb2 import FailureReason
from polos.v1.event_pb2 import StepFinish, StepRetry, StepStart, ToolCall
from polos_service.errors import StepError, Unrecorded
from polos_service.runs.clock import Clock
from polos_service.runs.journal import Journal
from polos_service.runs.step import (
    Step,
    StepOutput,
    Work,
    duration,
    pause,
    worth_waiting,
)
from polos_service.runs.totals import Totals
from polos_service.runs.writer import Writer
from polos_service.store import Claim

Boundary = Callable[[], Awaitable[None]]
"""Awaited where a step is about to begin; does not return where the run is to be let go."""


class RunContext:
    """One run, as its runnable sees it.

    Attributes:
        run_id: the run.
        totals: usage, cost and count of the model calls that finished.
        broken: why a step's end could not be recorded; None as long as each could. The run
            ends then, whatever its code makes of it.

    """

    def __init__(
        self, claim: Claim, journal: Journal, writer: Writer, clock: Clock, boundary: Boundary
    ) -> None:
        self.run_id = claim.run_id
        self.totals = Totals()
        self.broken: Unrecorded | None = None
        self._create_time = claim.create_time
        self._journal = journal
        self._writer = writer
        self._clock = clock
        self._boundary = boundary
        self._used: set[str] = set()

    def start(self, payload: Message) -> None:
        """Emit the run's first event, unless the log has it."""
        if not self._journal.started:
            self._writer.emit(payload)

    def age(self) -> Duration:
        """Return the time since the run was created."""
        return duration(self._clock.now() - self._create_time)

    async def step(
        self, key: str, kind: str, work: Work, *, call: ToolCall | None = None, tries: int = 1
    ) -> StepOutput:
        """Return the output that the log holds for `key`, or run `work` and record its output.

        A retryable StepError is tried again, up to `tries` times in all, after a pause
        that grows: silently as long as the attempt has emitted nothing, else announced
        by `step_retry`. `call` is the tool call that a tool step makes.

        Raises:
            StepError: the step failed, now or when it was recorded.
            Unrecorded: the end of this step, or of one before it, could not be recorded.
            ValueError: the key was used before in this run.

        """
        if self.broken is not None:
            raise self.broken
        if key in self._used:
            raise ValueError(f"The step key {key!r} was used before in run {self.run_id}.")
        self._used.add(key)
        recorded = self._journal.finished.get(key)
        if recorded is not None:
            return self._replay(recorded)
        await self._boundary()
        return await self._perform(self._begin(key, kind, call), work, tries)

    def _begin(self, key: str, kind: str, call: ToolCall | None) -> Step:
        begun = self._journal.attempts.get(key, 0)
        step = Step(self._writer, self._clock, key=key, kind=kind, call=call, attempt=begun + 1)
        if begun:
            self._announce(
                step,
                FailureReason.FAILURE_REASON_PROCESS_RESTARTED,
                "The service's process ended in the middle of this step.",
            )
        else:
            self._writer.emit(StepStart(step_key=key, step_type=kind, attempt=1, tool_call=call))
        return step

    async def _perform(self, step: Step, work: Work, tries: int) -> StepOutput:
        for tried in range(1, tries + 1):
            try:
                output = await work(step)
            except StepError as error:
                if tried == tries or not worth_waiting(error):
                    await self._fail(step, error)
                await self._clock.sleep(pause(tried, error.retry_after))
                step = self._again(step, error)
            except Exception as error:
                self.broken = Unrecorded(f"Step {step.key!r} failed in a way that nobody expects.")
                raise self.broken from error
            else:
                return await self._finish(step, output)
        raise ValueError(f"A step needs at least one try, not {tries}.")

    async def _finish(self, step: Step, output: StepOutput) -> StepOutput:
        """Record the step's output, or if that is impossible, that the step failed."""
        try:
            finish, private = step.finished(output)
            self._writer.emit(finish, private)
        except (StepError, TypeError, ValueError) as error:
            await self._fail(step, unstorable(error))
        self.totals.add(finish)
        await self._writer.flush()
        return output

    async def _fail(self, step: Step, error: StepError) -> NoReturn:
        """Record that the step failed, and raise why."""
        try:
            self._writer.emit(step.failed(error))
        except (StepError, TypeError, ValueError) as cause:
            self.broken = Unrecorded(f"The end of step {step.key!r} could not be recorded.")
            raise self.broken from cause
        await self._writer.flush()
        raise error

    def _again(self, step: Step, error: StepError) -> Step:
        again = step.again()
        if step.spoke:
            self._announce(again, error.reason, error.message)
        return again

    def _announce(self, step: Step, reason: FailureReason.ValueType, message: str) -> None:
        self._writer.emit(
            StepRetry(step_key=step.key, attempt=step.attempt, reason=reason, message=message)
        )

    def _replay(self, recorded: StepFinish) -> StepOutput:
        if recorded.HasField("failure"):
            failure = recorded.failure
            raise StepError(
                failure.reason,
                failure.message,
                retryable=failure.retryable,
                provider_request_id=failure.provider_request_id,
            )
        self.totals.add(recorded)
        return StepOutput(
            result_json=recorded.result_json,
            usage=recorded.usage if recorded.HasField("usage") else None,
            cost=recorded.cost if recorded.HasField("cost") else None,
            finish_reason=recorded.finish_reason,
            private=self._journal.private.get(recorded.step_key, {}),
        )


def unstorable(error: Exception) -> StepError:
    """Return the failure of a step whose output cannot be stored."""
    if isinstance(error, StepError):
        return error
    return StepError(
        FailureReason.FAILURE_REASON_INTERNAL, "The step's output cannot be stored as an event."
    )
