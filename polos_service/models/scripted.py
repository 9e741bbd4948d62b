"""The provider `scripted`: plays the turns of `polos_client.define.scripted` instead of a model."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from polos.v1.error_pb2 import FailureReason
from polos.v1.event_pb2 import FinishReason, Usage
from polos_client.define import scripted
from polos_client.errors import DefinitionError
from polos_service.errors import StepError
from polos_service.models import Model, ModelAnswer, ModelRequest, Output
from polos_service.models.messages import Call, Part, Result, Text, text_of
from polos_service.models.silence import Silence

OPTIONS = ("seed", "temperature", "top_p")
"""Options that a run may give; a script plays the same whatever they say."""


class Scripted(Model):
    """A model that says what its script says; the script is the model's name."""

    def check(
        self,
        options: Mapping[str, Any],
        api: str | None = None,  # noqa: ARG002 - a script has none
    ) -> Mapping[str, str]:
        """Return what is wrong with a run's model options, by name; empty if nothing is."""
        what = f"cannot be set for a run of a script; allowed: {', '.join(OPTIONS)}"
        return {name: what for name in options if name not in OPTIONS}

    async def answer(self, request: ModelRequest, output: Output) -> ModelAnswer:
        """Play the request's turn, passing text to `output` as it comes.

        Raises:
            StepError: the script says so, is none, or has no such turn.

        """
        async with Silence(request, "The script") as silence:
            playing = _Playing(request, output, silence)
            try:
                for part in _turn(request).of_attempt(request.attempt):
                    await playing.play(part)
            except StepError as error:
                error.used(playing.usage, None)
                raise
        return playing.answer()

    async def close(self) -> None:
        """Do nothing: there is no connection."""


@dataclass(slots=True)
class _Playing:
    request: ModelRequest
    output: Output
    silence: Silence
    texts: list[str] = field(default_factory=list)
    calls: list[Call] = field(default_factory=list)
    finish: FinishReason.ValueType = FinishReason.FINISH_REASON_UNSPECIFIED
    usage: Usage | None = None

    async def play(self, part: scripted.Part) -> None:
        match part:
            case scripted.Say():
                await self.say(part.chunks)
            case scripted.Call():
                self.call(part)
            case scripted.Pause():
                await _pause(part.seconds)
            case scripted.Tokens():
                self.usage = _usage(part.input_tokens, part.output_tokens)
            case scripted.Finish():
                self.finish = FinishReason.Value(f"FINISH_REASON_{part.reason.upper()}")
            case scripted.Fail():
                raise StepError(part.failure_reason(), part.message, retryable=part.retryable)
            case scripted.Cut():
                raise StepError(
                    FailureReason.FAILURE_REASON_MODEL_CUT_SHORT,
                    "The answer of the script ended before it was complete: the script cuts it.",
                    retryable=True,
                )

    async def say(self, chunks: tuple[str, ...]) -> None:
        for text in chunks:
            self.silence.heard()
            self.texts.append(text)
            await self.output.text(text)
            self.silence.listen()

    def call(self, part: scripted.Call) -> None:
        number = f"call_{self.request.turn}_{len(self.calls) + 1}"
        self.calls.append(Call(id=number, name=part.name, arguments_json=part.arguments_json))

    def answer(self) -> ModelAnswer:
        text = "".join(self.texts)
        if self.usage is None:
            self.usage = _usage(_words_read(self.request), len(text.split()))
        default = (
            FinishReason.FINISH_REASON_TOOL_CALLS if self.calls else FinishReason.FINISH_REASON_STOP
        )
        parts: list[Part] = [Text(text=text), *self.calls] if text else [*self.calls]
        return ModelAnswer(
            parts=parts,
            finish_reason=self.finish or default,
            usage=self.usage,
        )


def _turn(request: ModelRequest) -> scripted.Turn:
    try:
        turns = scripted.parse(request.model)
    except DefinitionError as error:
        raise _bad(str(error)) from error
    if request.turn > len(turns):
        raise _bad(
            f"The script has no turn for model call {request.turn} (it has {len(turns)}). "
            "Add a turn to the script."
        )
    return turns[request.turn - 1]


def _bad(message: str) -> StepError:
    return StepError(FailureReason.FAILURE_REASON_MODEL_BAD_REQUEST, message)


async def _pause(seconds: float | None) -> None:
    if seconds is None:
        await asyncio.Event().wait()  # until the call is cancelled
    else:
        await asyncio.sleep(seconds)


def _words_read(request: ModelRequest) -> int:
    """Return the words of the conversation, which stand in for tokens."""
    parts = [part for message in request.messages for part in message.parts]
    results = [part.content for part in parts if isinstance(part, Result)]
    said = [message.parts for message in request.messages]
    return sum(len(text_of(one).split()) for one in [*said, *results])


def _usage(read: int, written: int) -> Usage:
    return Usage(input_tokens=read, output_tokens=written, total_tokens=read + written)
