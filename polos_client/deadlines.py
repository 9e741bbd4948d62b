"""Deadlines: how long the parts of a run may take."""

from __future__ import annotations

from dataclasses import dataclass, fields
from typing import Any

from polos_client.errors import DefinitionError

MIN_SECONDS = 0.001
MAX_SECONDS = 30 * 24 * 3600.0
"""Seconds that the deadline of a part of a run may have."""

MAX_RUN_SECONDS = 100 * 365 * 24 * 3600.0
"""Seconds that a run's deadline may have: it may wait for years."""


def is_number(value: Any) -> bool:
    """Return True if the value is a number that can be compared: no bool, text or other."""
    return isinstance(value, int | float) and not isinstance(value, bool)


def is_duration(value: Any, most: float = MAX_SECONDS) -> bool:
    """Return True if the value is a number of seconds that a deadline may have."""
    return is_number(value) and MIN_SECONDS <= value <= most


@dataclass(frozen=True, kw_only=True, slots=True)
class Deadlines:
    """How long the parts of a run may take, in seconds.

    From 0.001 to 2592000 (30 days); `run` up to 3153600000 (100 years).

    None leaves a deadline unchanged: that of the call takes precedence over the agent's, and the
    agent's over DEFAULTS.

    Attributes:
        first_token: from the request to the first data from the model; 120 by default. The call
            then fails with reason "model_first_token_timeout", and is retried.
        token_gap: between two pieces of data in an answer; 120 by default. The call then fails with
            reason "model_stalled", and is retried.
        tool_call: the work of one call of a tool, without its waits and children; 600 by
            default. It is cancelled, and the model is told: reason "tool_timeout".
        run: the whole run from its creation, time in the queue included; 86400 (a day) by default.
            It ends with reason "run_timeout".

    """

    first_token: float | None = None
    token_gap: float | None = None
    tool_call: float | None = None
    run: float | None = None

    def __post_init__(self) -> None:
        """Refuse what is out of bounds."""
        for field in fields(self):
            value = getattr(self, field.name)
            most = MAX_RUN_SECONDS if field.name == "run" else MAX_SECONDS
            if value is not None and not is_duration(value, most):
                raise DefinitionError(
                    f"the deadline {field.name}={value!r} must be from {MIN_SECONDS:g} to "
                    f"{most:.0f} seconds"
                )

    def over(self, base: Deadlines) -> Deadlines:
        """Return these deadlines, and those of `base` where there are none."""
        return Deadlines(
            first_token=base.first_token if self.first_token is None else self.first_token,
            token_gap=base.token_gap if self.token_gap is None else self.token_gap,
            tool_call=base.tool_call if self.tool_call is None else self.tool_call,
            run=base.run if self.run is None else self.run,
        )


class Patience(float):
    """Seconds that a caller waits for a run where they gave no timeout: the run is left alone."""


PATIENCE = Patience(600.0)
"""The timeout of `run` where none is given."""

DEFAULTS = Deadlines(first_token=120.0, token_gap=120.0, tool_call=600.0, run=24 * 3600.0)
"""The deadlines where neither call nor agent says anything."""
