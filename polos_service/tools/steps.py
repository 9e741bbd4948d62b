"""What the steps of a run's code tell its readers: events of its own, and what a wait shows."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from pydantic import BaseModel

from polos.v1.error_pb2 import FailureReason
from polos.v1.event_pb2 import Custom
from polos_client.event import is_reserved
from polos_service.errors import StepError
from polos_service.runs.attempt import Attempt
from polos_service.tools.values import bad, encode

TYPE_LIMIT = 128
"""Characters of the type of a user's own event."""

DEFAULT_TYPE = "custom"
"""The type of an event for which none is given."""


SHOWN_LIMIT = 256 * 1024
"""Bytes of the data of an event, and of what a wait shows, at most."""


async def publish(attempt: Attempt, data: Any, event_type: Any) -> None:
    """Emit an event of a user's own type.

    Raises:
        StepError: the type is empty, too long or one of the service's own, or the data cannot be
            stored.

    """
    kind: object = DEFAULT_TYPE if event_type is None else event_type
    if not isinstance(kind, str) or not 1 <= len(kind) <= TYPE_LIMIT:
        raise bad(f"The type of an event must be a text of 1 to {TYPE_LIMIT} characters.")
    if is_reserved(kind):
        raise bad(
            f"The type {kind!r} of an event is reserved: readers would take the event for one of "
            "the service's own. Choose another type."
        )
    text = shown("data of an event", data)
    await attempt.emit(
        Custom(type=kind, data_json=text, step_key=attempt.key, attempt=attempt.number)
    )


def shown(what: str, data: Any) -> str:
    """Return a JSON object that readers get, as JSON text.

    Raises:
        StepError: it is not an object, cannot be stored, or is larger than SHOWN_LIMIT.

    """
    if not isinstance(data, Mapping | BaseModel):
        raise bad(f"The {what} must be a dict or a model, not {type(data).__name__}.")
    text, _ = encode(data)
    size = len(text.encode())
    if size > SHOWN_LIMIT:
        raise StepError(
            FailureReason.FAILURE_REASON_OUTPUT_TOO_LARGE,
            f"The {what} has {size} bytes, the limit is {SHOWN_LIMIT}. Give less, or a reference.",
        )
    return text
