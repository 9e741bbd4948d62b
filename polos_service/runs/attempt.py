"""An attempt of a step while it runs, and what a step returns."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from itertools import chain
from typing import Any

from google.protobuf.duration_pb2 import Duration
from google.protobuf.message import Message

from polos.v1.error_pb2 import FailureReason
from polos.v1.event_pb2 import (
    Cost,
    FinishReason,
    InvalidOutput,
    LongAnswer,
    StepFailure,
    StepFinish,
    ToolCall,
    Usage,
)
from polos_service.errors import StepError
from polos_service.limits import OUTPUT_LIMIT
from polos_service.runs.clock import Clock
from polos_service.runs.frame import SECOND, Encoder
from polos_service.runs.private import private_line, private_lines
from polos_service.runs.said import NOTHING, Said
from polos_service.runs.writer import Writer


@dataclass(frozen=True, kw_only=True, slots=True)
class StepOutput:
    """What a step returns, the same whether it ran or its output stood in the log.

    Attributes:
        result_json: the output as JSON text, at most OUTPUT_LIMIT bytes; empty if there is a
            long answer.
        long_answer: tells that the output stands in the events before the step's end; None if
            `result_json` is all.
        said: what those events tell.
        usage: the tokens of a model call; None if the provider does not tell them.
        cost: the cost of a model call; None if it is not known.
        finish_reason: how a model call ended; unspecified for any other step.
        started_run_id: the run with a log of its own that the step has started; empty if none.
        result_schema: name of the pydantic model that the output is an instance of, as
            `module.Class`; empty if it is not one.
        invalid: why the answer of a model call does not conform to the agent's output schema;
            None if it does, or there is none.
        private: JSON values stored beside it and never served, at most OUTPUT_LIMIT bytes
            unless `Attempt.keep` has stored them.

    """

    result_json: str = ""
    long_answer: LongAnswer | None = None
    said: Said = NOTHING
    usage: Usage | None = None
    cost: Cost | None = None
    finish_reason: FinishReason.ValueType = FinishReason.FINISH_REASON_UNSPECIFIED
    started_run_id: str = ""
    result_schema: str = ""
    invalid: InvalidOutput | None = None
    private: Mapping[str, Any] = field(default_factory=dict)


class Attempt:
    """One attempt of a step.

    Attributes:
        key: the step's key.
        call: the tool call that a tool step makes; None for any other step.
        number: which attempt of the step this is, from 1. It voids what those before it emitted.
        spoke: True once this attempt has emitted an event, or begun a child.

    """

    def __init__(
        self,
        writer: Writer,
        clock: Clock,
        *,
        key: str,
        kind: str,
        call: ToolCall | None,
        number: int,
        encoder: Encoder | None,
    ) -> None:
        """Begin now; `encoder` is that of a child run, None at the root run."""
        self.key = key
        self.call = call
        self.number = number
        self.spoke = False
        self._kind = kind
        self._encoder = encoder
        self._writer = writer
        self._clock = clock
        self._began = clock.now()
        self._kept: bytes | None = None

    async def emit(self, payload: Message) -> None:
        """Emit an event; waits only while the backlog is over its bound.

        The payload is encoded at once, so it can be changed and emitted again.

        Raises:
            Finished: this process no longer writes the run's log.
            StepError: the event is larger than every store takes.

        """
        self._writer.emit(payload, encoder=self._encoder)
        self.spoke = True
        if self._writer.full:
            await self._writer.room()

    async def keep(self, private: Mapping[str, Any], carrier: Message) -> None:
        """Store the private part of the step's output, however large; once, before its end.

        What one line beside the step's end cannot hold is cut, and each piece is stored beside
        an event of its own, which is `carrier`.

        Raises:
            Finished: this process no longer writes the run's log.
            TypeError: a value is not a JSON value.

        """
        self._kept = b""
        if not private:
            return
        child = self._encoder.lineage.run_id if self._encoder else None
        lines = private_lines(self.key, self.number, private, child)
        first = next(lines)
        second = next(lines, None)
        if second is None:
            self._kept = first
            return
        for line in chain((first, second), lines):
            self._writer.emit(carrier, line, encoder=self._encoder)
            self.spoke = True
            await self._writer.room()

    async def checkpoint(self) -> None:
        """Wait until all that was emitted is durable: before a side effect, for example.

        Raises:
            Finished: this process no longer writes the run's log.

        """
        await self._writer.flush()

    def again(self) -> Attempt:
        """Return what begins now: the next attempt, or this one anew if it has emitted nothing."""
        return Attempt(
            self._writer,
            self._clock,
            key=self.key,
            kind=self._kind,
            call=self.call,
            number=self.number + 1 if self.spoke else self.number,
            encoder=self._encoder,
        )

    def finished(self, output: StepOutput) -> tuple[StepFinish, bytes]:
        """Return the event that this attempt ends with, and what is stored beside it.

        Raises:
            StepError: the output is larger than an event can hold.
            TypeError: a value of its private part is not a JSON value.
            ValueError: a value does not fit its field, or is text that cannot be encoded.

        """
        private = self._kept or b""
        if output.private and self._kept is None:
            child = self._encoder.lineage.run_id if self._encoder else None
            private = private_line(self.key, output.private, child)
        check_size("output", len(output.result_json.encode()))
        check_size("private part of the output", len(private))
        long = output.long_answer
        finish = self._finish(
            **({"result_json": output.result_json} if long is None else {"long_answer": long}),
            usage=output.usage,
            cost=output.cost,
            finish_reason=output.finish_reason,
            started_run_id=output.started_run_id,
            result_schema=output.result_schema,
            invalid_output=output.invalid,
        )
        return finish, private

    def failed(self, error: StepError) -> StepFinish:
        """Return the event that this attempt ends with, because of this failure.

        Raises:
            TypeError, ValueError: a value does not fit its field.

        """
        return self._finish(
            failure=StepFailure(
                message=error.message,
                reason=error.reason,
                retryable=error.retryable,
                provider_request_id=error.provider_request_id,
            ),
            usage=error.usage,
            cost=error.cost,
        )

    def _finish(self, **outcome: Any) -> StepFinish:
        return StepFinish(
            **outcome,
            step_key=self.key,
            step_type=self._kind,
            attempt=self.number,
            duration=duration(self._clock.now() - self._began),
            tool_call=ToolCall(id=self.call.id, name=self.call.name) if self.call else None,
        )


Body = Callable[[Attempt], Awaitable[StepOutput]]
"""What a step does; a StepError that it raises is recorded as the step's failure."""


def duration(nanoseconds: int) -> Duration:
    """Return a duration; 0 for a negative one, which a clock that was set back gives."""
    seconds, nanos = divmod(max(0, nanoseconds), SECOND)
    return Duration(seconds=seconds, nanos=nanos)


def check_size(what: str, size: int) -> None:
    """Check that a part of a step's output fits into an event.

    Raises:
        StepError: it is larger than an event can hold.

    """
    if size > OUTPUT_LIMIT:
        raise StepError(
            FailureReason.FAILURE_REASON_OUTPUT_TOO_LARGE,
            f"The {what} has {size} bytes, the limit is {OUTPUT_LIMIT}. "
            "Make it smaller, or use a reference to it.",
        )


def check_start(target_id: str, size: int) -> None:
    """Check that a step can start a run: what the run is started with is stored in one line.

    Args:
        target_id: what is to run.
        size: bytes of its definition and its input, as they are stored.

    Raises:
        StepError: it is too large.

    """
    if size > OUTPUT_LIMIT:
        raise StepError(
            FailureReason.FAILURE_REASON_OUTPUT_TOO_LARGE,
            f"{target_id!r} cannot be started by a step: its definition and its input have {size} "
            f"bytes as they are stored, the limit is {OUTPUT_LIMIT}. The definition of an agent "
            "holds its system prompt, its tools and its output_schema. Make these or the input "
            "smaller.",
        )
