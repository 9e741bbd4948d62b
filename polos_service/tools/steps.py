"""`ctx.step` in a tool: the part of it that a tool may use."""

from __future__ import annotations

from typing import Any, NoReturn

from polos.v1.event_pb2 import Custom
from polos_client.define.steps import Data
from polos_client.errors import DefinitionError, StepExecutionError
from polos_client.wire import ANSWER_LIMIT
from polos_service.runs.attempt import Attempt
from polos_service.tools.values import encode

TYPE_LIMIT = 128
"""Characters of the type of a user's own event."""

DEFAULT_TYPE = "custom"
"""The type of an event for which none is given."""


class ToolSteps:
    """What a tool may do with `ctx.step`: put events into the run's stream."""

    def __init__(self, attempt: Attempt) -> None:
        self._attempt = attempt

    async def publish_workflow_event(
        self, step_key: str, data: Data, event_type: str | None = None
    ) -> None:
        """Put an event into the run's stream; a retry of the tool's step takes it back."""
        del step_key
        await publish(self._attempt, data, event_type)

    def __getattr__(self, name: str) -> NoReturn:
        raise DefinitionError(
            f"ctx.step.{name} is not built yet in tools; a workflow has it, and "
            "ctx.step.publish_workflow_event works here"
        )


async def publish(attempt: Attempt, data: Any, event_type: str | None) -> None:
    """Emit an event of a user's own type.

    Raises:
        StepExecutionError: the type is empty or too long, or the data is too large.
        StepError: the data cannot be stored.

    """
    kind = DEFAULT_TYPE if event_type is None else event_type
    if not 1 <= len(kind) <= TYPE_LIMIT:
        raise StepExecutionError(f"The type of an event must have 1 to {TYPE_LIMIT} characters.")
    text, _ = encode(data)
    if (size := len(text.encode())) > ANSWER_LIMIT:
        raise StepExecutionError(
            f"The event has {size} bytes of data; the limit is {ANSWER_LIMIT}."
        )
    await attempt.emit(
        Custom(type=kind, data_json=text, step_key=attempt.key, attempt=attempt.number)
    )
