"""What code of a user's has raised, in words."""

from __future__ import annotations

from collections.abc import Iterator

from polos_client.errors import StepExecutionError

FAILURES = 10
"""Failures of a group that its text names at most."""

SHOWN = 300
"""Characters of each of them that it shows, if there are several."""


def told(error: BaseException) -> str:
    """Return an exception's class and text, without its traceback; its own text may fail.

    A group of exceptions tells those in it as well.
    """
    name = type(error).__name__
    try:
        text = f"{name}: {error}".removesuffix(": ")
        if isinstance(error, BaseExceptionGroup):
            text = f"{text}: {'; '.join(map(told, error.exceptions))}"
    except BaseException:  # noqa: BLE001 - it is any code
        return name
    return text


def failed_steps(error: BaseException) -> str | None:
    """Return why steps failed if an exception says nothing else; None for any other exception.

    It is a StepExecutionError, or a group of nothing but these, as asyncio.TaskGroup raises it.
    """
    leaves = list(_leaves(error))
    if not all(isinstance(one, StepExecutionError) for one in leaves):
        return None
    name = StepExecutionError.__name__  # a step's failure names its cause already
    reasons = list(dict.fromkeys(told(one).removeprefix(f"{name}: ") for one in leaves))
    if len(reasons) == 1:
        return reasons[0]
    shown = [one if len(one) <= SHOWN else f"{one[:SHOWN]}..." for one in reasons[:FAILURES]]
    more = len(reasons) - len(shown)
    rest = f"; and {more} more" if more else ""
    return f"{len(reasons)} failures: {'; '.join(shown)}{rest}"


def _leaves(error: BaseException) -> Iterator[BaseException]:
    """Yield the exceptions of a group, and of the groups in it, in their order."""
    waiting = [error]
    while waiting:
        one = waiting.pop()
        if isinstance(one, BaseExceptionGroup):
            waiting.extend(reversed(one.exceptions))
        else:
            yield one
