"""The functions of a workflow's steps: how they are called, and what comes of it."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from contextvars import ContextVar
from functools import cached_property
from typing import Any

from polos.v1.error_pb2 import FailureReason
from polos_service.errors import StepError
from polos_service.runs.attempt import Attempt, StepOutput
from polos_service.sidethread import SMALL
from polos_service.tools.calling import Outcome, TooManyThreadsError, outcome_of
from polos_service.tools.local import apart
from polos_service.tools.raised import failed_steps, told
from polos_service.tools.values import Models, decode, encode, returned_by

MODELS = "models"
"""The member of a step's private part that names the classes of models."""

MEMBERS = 16
"""Members of a value at most that is written as JSON in the loop; others are in a thread."""

FAILED = FailureReason.FAILURE_REASON_STEP_FAILED

inside: ContextVar[bool] = ContextVar("inside_a_step", default=False)
"""Whether the code runs in the function of a step, which must not have steps of its own."""


class Function:
    """The function of one step."""

    def __init__(
        self, func: Callable[..., Any], call: Callable[[], Any], limit: float | None
    ) -> None:
        """Take a function, how it is called, and the seconds that a call may take."""
        self._func = func
        self._call = call
        self._limit = limit
        self._kept: list[Any] = []

    @cached_property
    def _returned(self) -> Any:
        return returned_by(self._func)

    async def body(self, attempt: Attempt) -> StepOutput:
        """Call the function once: the body of a step. It is on disk then that this begins.

        Raises:
            StepError: it raised, took too long, or what it returned cannot be stored.

        """
        await attempt.checkpoint()
        outcome = await self._outcome()
        if outcome.error is not None:
            again = failed_steps(outcome.error) is None
            raise StepError(FAILED, told(outcome.error), retryable=again) from outcome.error
        if _is_small(outcome.value):
            text, models, value = self._stored(outcome.value)
        else:
            text, models, value = await apart(lambda: self._stored(outcome.value))
        self._kept = [value]
        return StepOutput(result_json=text, private={MODELS: models} if models else {})

    async def value(self, output: StepOutput) -> Any:
        """Return what the step returns: the same now as later, when only the log has it.

        Raises:
            StepError: the class of a model in it is not loaded.

        """
        if self._kept:
            return self._kept[0]
        text, models = output.result_json, output.private.get(MODELS, {})
        if len(text) <= SMALL:
            return decode(text, models, self._returned)
        return await apart(lambda: decode(text, models, self._returned))

    async def _outcome(self) -> Outcome:
        token = inside.set(True)
        try:
            return await outcome_of(
                self._call, is_async=inspect.iscoroutinefunction(self._func), limit=self._limit
            )
        except TimeoutError:
            raise StepError(
                FailureReason.FAILURE_REASON_STEP_TIMEOUT,
                f"The function took longer than {self._limit:g} s.",
                retryable=True,
            ) from None
        except TooManyThreadsError as error:
            raise StepError(FAILED, str(error), retryable=True) from None
        finally:
            inside.reset(token)

    def _stored(self, value: Any) -> tuple[str, Models, Any]:
        """Return a value as JSON text with its models, and as it comes back from there."""
        text, models = encode(value)
        try:
            return text, models, decode(text, models, self._returned)
        except StepError as error:
            what = f"What the function returned cannot be read back. {error.message}"
            raise StepError(FailureReason.FAILURE_REASON_STEP_BAD_RESULT, what) from None


def _is_small(value: Any) -> bool:
    """Return whether a value is written as JSON in no time, without code of its own."""
    if isinstance(value, list | dict):
        members = value.values() if isinstance(value, dict) else value
        return len(value) <= MEMBERS and all(_is_flat(one) for one in members)
    return _is_flat(value)


def _is_flat(value: Any) -> bool:
    return (
        value is None
        or type(value) in (bool, int, float)
        or (type(value) is str and len(value) <= SMALL // MEMBERS)
    )
