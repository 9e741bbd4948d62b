"""How a step fails for the code of a workflow or a tool, and where code cannot have steps."""

from __future__ import annotations

import asyncio
import re
from collections.abc import Iterator
from contextlib import contextmanager

from polos_client.errors import StepExecutionError
from polos_service.errors import StepError
from polos_service.limits import KEY_LIMIT
from polos_service.workflows.arguments import is_key
from polos_service.workflows.functions import inside

SHOWN = 80
"""Characters of a key that the text of a failure shows."""

QUOTED = r"""(?:'(?:[^'\\]|\\.)*'|"(?:[^"\\]|\\.)*")"""

FAILED_BELOW = re.compile(rf"Step {QUOTED}(?: > {QUOTED})* failed(?: after \d+ attempts)?: ")
"""How the message of a child begins in which a step failed: see `failure_text`."""


class Raising:
    """Raises what the steps of one run fail with. It is made in the event loop of its code."""

    def __init__(self) -> None:
        self._loop = asyncio.get_running_loop()

    @contextmanager
    def __call__(self, step_key: str) -> Iterator[None]:
        """Raise what a step failed with as the user's code knows it; refuse steps elsewhere."""
        if not is_key(step_key):
            raise StepExecutionError(
                f"The step key {step_key!r:.80} must be a string of 1 to {KEY_LIMIT} bytes."
            )
        if inside.get():
            raise StepExecutionError(
                "The function of a step cannot use ctx.step: only the workflow's own code can."
            )
        if asyncio.get_running_loop() is not self._loop:
            raise StepExecutionError(
                "ctx.step works in the service's event loop only. Write the workflow's function "
                "with `async def`, and await its steps there."
            )
        try:
            yield
        except StepError as error:
            raise StepExecutionError(failure_text(step_key, error)) from None


def failure_text(step_key: str, error: StepError) -> str:
    """Return where a step failed and why: `Step 'a' > 'b' failed: ...` if it was 'b' in a child."""
    key = repr(step_key if len(step_key) <= SHOWN else f"{step_key[:SHOWN]}...")
    if FAILED_BELOW.match(error.message):
        return error.message.replace("Step ", f"Step {key} > ", 1)
    after = f" after {error.attempt} attempts" if error.attempt > 1 else ""
    return f"Step {key} failed{after}: {error.message}"
