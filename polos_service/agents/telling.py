"""Tells the readers of a run what a model says: as it comes, or what its step's end cannot hold."""

from __future__ import annotations

from dataclasses import replace

from polos.v1.error_pb2 import FailureReason
from polos.v1.event_pb2 import (
    ReasoningDelta,
    TextDelta,
    ToolCallDelta,
    ToolCallRequested,
)
from polos_service.agents.answers import UNJUDGED, Judged
from polos_service.agents.turn import event_of, output_of, private_of, result_of
from polos_service.errors import StepError
from polos_service.limits import PIECE_LIMIT
from polos_service.models import ModelAnswer
from polos_service.models.messages import reasoning_of
from polos_service.runs.attempt import Attempt, StepOutput
from polos_service.runs.said import pieces, size_of

WHOLE = PIECE_LIMIT // 4
"""Characters of a piece of text that is not cut: each has four bytes at most. Longer ones are cut
into pieces of as many bytes, which are as large as a response to a reader."""


WRONG = "wrong"
"""The member of the private part of a step that says what is wrong with an answer."""


class Telling:
    """What readers of a run hear of one attempt of a model call.

    While the model answers it is the model's output if the run streams, else UNHEARD is.
    """

    def __init__(self, attempt: Attempt, turn: int) -> None:
        self._attempt = attempt
        self._turn = turn
        self._key = attempt.key
        self._number = attempt.number
        self._delta = TextDelta(step_key=attempt.key, step=turn, attempt=attempt.number)
        """Each piece of text in turn: a new message would take longer than the rest of it."""
        self._said = 0
        """Characters of text that readers have."""
        self._thoughts: list[str] = []
        """The reasoning that readers have."""

    async def text(self, piece: str) -> None:
        """Emit a piece of the text."""
        if len(piece) > WHOLE:
            for part in pieces(piece, WHOLE):
                await self.text(part)
            return
        self._said += len(piece)
        self._delta.content = piece
        await self._attempt.emit(self._delta)

    async def reasoning(self, piece: str) -> None:
        """Emit a piece of the reasoning."""
        for part in pieces(piece, WHOLE) or [""]:
            await self._attempt.emit(self._reasoning(part))
        self._thoughts.append(piece)

    async def end(
        self, answer: ModelAnswer, *, streams: bool, judged: Judged = UNJUDGED
    ) -> StepOutput:
        """Emit what the step's end cannot hold, and return the step's output.

        Args:
            answer: the whole answer.
            streams: whether the run streams, and so has events of tool calls anyway.
            judged: what was found of the answer.

        Raises:
            StepError: the provider told more text than its answer has.

        """
        result = result_of(answer)
        if result is None:
            await self._rest(answer.text)
        if answer.asks and (streams or result is None):
            await self._calls(answer)
        reasoning = reasoning_of(answer.parts)
        if not self._thoughts and size_of(reasoning) > PIECE_LIMIT:
            await self.reasoning(reasoning)
        heard = bool(reasoning) and "".join(self._thoughts) == reasoning
        private = private_of(answer, heard=heard)
        if judged.told:
            private[WRONG] = judged.told
        await self._attempt.keep(private, self._reasoning(""))
        output = output_of(answer, result, private, self._key, heard=heard)
        return replace(output, result_schema=judged.schema, invalid=judged.invalid)

    async def _rest(self, text: str) -> None:
        """Emit the text that readers do not have yet: all of it if the run does not stream."""
        if self._said > len(text):
            raise StepError(
                FailureReason.FAILURE_REASON_INTERNAL,
                f"The model's answer has {len(text)} characters, but {self._said} were streamed.",
            )
        if rest := text[self._said :]:
            await self.text(rest)

    async def _calls(self, answer: ModelAnswer) -> None:
        for index, call in enumerate(answer.calls):
            event = event_of(call, self._key, index)
            if event.HasField("long_arguments"):
                for piece in pieces(call.arguments_json, PIECE_LIMIT):
                    await self._attempt.emit(
                        ToolCallDelta(
                            content=piece,
                            call=index,
                            step_key=self._key,
                            step=self._turn,
                            attempt=self._number,
                        )
                    )
            await self._attempt.emit(
                ToolCallRequested(
                    tool_call=event, step_key=self._key, step=self._turn, attempt=self._number
                )
            )

    def _reasoning(self, piece: str) -> ReasoningDelta:
        return ReasoningDelta(
            content=piece, step_key=self._key, step=self._turn, attempt=self._number
        )


class Unheard:
    """Drops what a model says: the run does not stream."""

    async def text(self, piece: str) -> None:
        """Drop a piece of the text."""

    async def reasoning(self, piece: str) -> None:
        """Drop a piece of the reasoning."""


UNHEARD = Unheard()
