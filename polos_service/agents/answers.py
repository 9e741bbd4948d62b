"""The answers of an agent with an output schema: what conforms to it, and what follows if not."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from functools import partial

from polos.v1.error_pb2 import FailureReason
from polos.v1.event_pb2 import FinishReason, InvalidOutput, Violation
from polos_client.define.output import Output, Unfit
from polos_client.typed import schema_of
from polos_service.agents.definition import PinnedOutput
from polos_service.errors import StepError
from polos_service.models import ModelAnswer
from polos_service.models.messages import Message, Text
from polos_service.models.output import OutputFormat, told
from polos_service.tools.local import in_thread

WORDS_LIMIT = 2000
"""Characters of a refusal that its failure tells."""

WITHHELD = (FinishReason.FINISH_REASON_CONTENT_FILTER, FinishReason.FINISH_REASON_REFUSAL)
"""How an answer ends that the model refused, or that was filtered."""

CUT = FinishReason.FINISH_REASON_LENGTH


@dataclass(frozen=True, kw_only=True, slots=True)
class Judged:
    """What was found of an answer.

    Attributes:
        schema: name of the pydantic model that it is an instance of; empty if it is not one.
        invalid: why it does not conform to the schema; None if it does, or was not judged.
        told: the same for the model, with the values; empty if `invalid` is None.

    """

    schema: str = ""
    invalid: InvalidOutput | None = None
    told: str = ""


UNJUDGED = Judged()
"""An answer that is not judged: it asks for tools, or is not whole."""


class Answers:
    """Judges the answers of one run's model."""

    def __init__(self, output: Output, pinned: PinnedOutput, limit: float) -> None:
        """Prepare.

        Args:
            output: the type of the answers, as it is loaded now.
            pinned: what the run was started with.
            limit: seconds that validators of the type may take.

        """
        self._output = output
        self._limit = limit
        self.form = OutputFormat.of(pinned.name, pinned.schema_)

    async def judge(self, answer: ModelAnswer, *, last: bool) -> Judged:
        """Return what an answer is; `last` if it must not ask for tools.

        Validators are any code, so they run in a thread.
        """
        if answer.asks:
            return (
                _unfit("The answer calls a tool", "no tool can be called now") if last else UNJUDGED
            )
        if answer.finish_reason in (CUT, *WITHHELD):
            return UNJUDGED
        try:
            async with asyncio.timeout(self._limit):
                return await in_thread(partial(self._judged, answer.text))
        except TimeoutError:
            return _unfit(f"Validating it takes longer than {self._limit:g} s", "it is too complex")

    def _judged(self, text: str) -> Judged:
        try:
            return Judged(schema=schema_of(self._output.read(text)))
        except Unfit as error:
            violations = [Violation(path=one.path, rule=one.rule) for one in error.violations]
            invalid = InvalidOutput(violations=violations, violations_omitted=error.omitted)
            lines = [f"- {one.told}" for one in error.violations]
            lines += [f"- and {error.omitted} more"] if error.omitted else []
            return Judged(invalid=invalid, told="\n".join(lines))

    def demand(self, wrong: str = "") -> Message:
        """Return what the model is told that has to give its answer now.

        Args:
            wrong: what is wrong with the answer that it gave; empty if it gave none.

        """
        intro = f"Your answer does not conform to the JSON Schema:\n{wrong}\n\n" if wrong else ""
        text = f"{intro}{told(self.form.schema)}"
        return Message(role="user", parts=(Text(text=text),))


def check_given(answer: ModelAnswer) -> None:
    """Check that an answer was given, whole.

    Raises:
        StepError: it was cut short, refused, or withheld.

    """
    if answer.finish_reason == CUT:
        raise StepError(
            FailureReason.FAILURE_REASON_MODEL_CUT_SHORT,
            "The answer reached the limit on output tokens before it was complete. Raise "
            "max_output_tokens.",
        )
    if answer.finish_reason in WITHHELD:
        words = answer.text.strip()[:WORDS_LIMIT]
        if answer.finish_reason == FinishReason.FINISH_REASON_REFUSAL:
            what = "The model refused to answer"
        else:
            what = "The provider's content filter withheld the answer"
        raise StepError(
            FailureReason.FAILURE_REASON_MODEL_REFUSED, f"{what}: {words}" if words else f"{what}."
        )


def check_valid(invalid: InvalidOutput | None) -> None:
    """Check that the last answer conforms to the schema.

    Raises:
        StepError: it does not. The message has paths and rules.

    """
    if invalid is None:
        return
    found = [f"{one.path}: {one.rule}".removeprefix(": ") for one in invalid.violations]
    omitted = invalid.violations_omitted
    rest = f", and {omitted} more" if omitted else ""
    raise StepError(
        FailureReason.FAILURE_REASON_OUTPUT_INVALID,
        f"The model's answer does not conform to the output schema: {'; '.join(found)}{rest}.",
    )


def _unfit(rule: str, told: str) -> Judged:
    return Judged(invalid=InvalidOutput(violations=[Violation(rule=rule)]), told=f"- {told}")
