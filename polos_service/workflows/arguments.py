"""What the methods of `ctx.step` take: keys, times, retries, entries of batches."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from datetime import timedelta
from typing import Any

from polos_client.deadlines import MAX_RUN_SECONDS, is_duration
from polos_client.define.children import AgentRunConfig, BatchWorkflowInput
from polos_client.errors import StepExecutionError
from polos_service.limits import KEY_LIMIT

MICROSECOND = timedelta(microseconds=1)


def is_key(key: object) -> bool:
    """Return whether something can be the key of a step."""
    try:
        return isinstance(key, str) and 1 <= len(key.encode()) <= KEY_LIMIT
    except UnicodeEncodeError:
        return False


def check_seconds(key: str, name: str, value: Any) -> None:
    """Check an argument that is a number of seconds, or None.

    Raises:
        StepExecutionError: it is something else, or out of bounds.

    """
    if value is not None and not is_duration(value, MAX_RUN_SECONDS):
        raise StepExecutionError(
            f"{name}={value!r:.80} of {key!r} must be from 0.001 s to {MAX_RUN_SECONDS:.0f} s."
        )


def check_retries(key: str, max_retries: Any, base_delay: Any, max_delay: Any) -> None:
    """Check the options of a step's retries.

    Raises:
        StepExecutionError: one is out of bounds.

    """
    if type(max_retries) is not int or max_retries < 0:
        raise StepExecutionError(
            f"max_retries={max_retries!r} of {key!r} must be a whole number from 0."
        )
    delays: dict[str, object] = {"base_delay": base_delay, "max_delay": max_delay}
    for name, value in delays.items():
        if not (isinstance(value, int | float) and 0 <= value < math.inf):
            raise StepExecutionError(f"{name}={value!r} of {key!r} must be seconds from 0.")


def check_wait(key: str, suspend_step_key: Any, **ids: Any) -> None:
    """Check what names a wait of another run: its key, and `ids` of that run and its code.

    Raises:
        StepExecutionError: one is not a string, or the key cannot be one.

    """
    for name, value in {"suspend_step_key": suspend_step_key, **ids}.items():
        if not isinstance(value, str):
            raise StepExecutionError(f"{name}={value!r} of {key!r} must be a string.")
    if not is_key(suspend_step_key):
        raise StepExecutionError(
            f"suspend_step_key={suspend_step_key!r:.80} of {key!r} must be a string of "
            f"1 to {KEY_LIMIT} bytes."
        )


def nanoseconds(key: str, parts: Mapping[str, Any]) -> int:
    """Return the sum of the parts of a time, such as `hours`; None is none of it.

    Raises:
        StepExecutionError: a part is not a number, or the sum is not positive or too large.

    """
    try:
        total = timedelta(**{name: part or 0 for name, part in parts.items()})
    except OverflowError:
        raise StepExecutionError(f"The wait {key!r} is longer than 100 years.") from None
    except (TypeError, ValueError):
        told = {name: part for name, part in parts.items() if part is not None}
        raise StepExecutionError(
            f"The parts of the wait {key!r} must be numbers, not {told}."
        ) from None
    if total <= timedelta():
        raise StepExecutionError(f"The wait {key!r} must be for more than 0 seconds.")
    return total // MICROSECOND * 1000


def checked_list(key: str, entries: Any) -> Sequence[Any]:
    """Return the entries of a batch.

    Raises:
        StepExecutionError: they are not a list.

    """
    if not isinstance(entries, Sequence):
        raise StepExecutionError(f"{entries!r:.80} of {key!r} must be a list of entries.")
    return entries


def checked_entries(key: str, entries: Any) -> Sequence[BatchWorkflowInput]:
    """Return the entries of a batch that names what it runs.

    Raises:
        StepExecutionError: they are not a list, or one is something else.

    """
    found = checked_list(key, entries)
    for one in found:
        if not isinstance(one, BatchWorkflowInput):
            raise StepExecutionError(f"{one!r:.80} of {key!r} must be a BatchWorkflowInput.")
    return found


def entry_of(key: str, config: Any) -> BatchWorkflowInput:
    """Return the entry of a batch that runs an agent with its input.

    Raises:
        StepExecutionError: it is not an agent with its input.

    """
    if not isinstance(config, AgentRunConfig):
        raise StepExecutionError(
            f"{config!r:.80} of {key!r} must be an agent with an input: agent.with_input(...)."
        )
    payload = {
        "input": config.input,
        "streaming": config.streaming,
        "provider_kwargs": dict(config.provider_kwargs),
    }
    return BatchWorkflowInput(
        id=config.agent.id,
        payload=payload,
        initial_state=config.initial_state,
        run_timeout_seconds=config.run_timeout_seconds,
    )
