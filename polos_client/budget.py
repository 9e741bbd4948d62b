"""Budget: what a run may use, together with all that it starts inside itself."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from polos_client.deadlines import is_number
from polos_client.errors import DefinitionError

MAX_TOKENS = 10**15
"""Tokens that a budget may have."""

MAX_MICROS = 10**15
"""Millionths of a US dollar that a budget may have: a thousand million dollars."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Budget:
    """What the model calls of a run and of all its children may use together.

    Once it is used up, every further model call fails with reason "budget_exceeded". Calls in
    progress continue, so the run may exceed the budget by at most one call of each agent.

    Attributes:
        tokens: input and output tokens, from 1 to 10^15; None: any number.
        cost: US dollars, from 0.000001 to 10^9; None: any cost. With a cost, a model whose price is
            not known is not called: reason "price_unknown".

    """

    tokens: int | None = None
    cost: float | None = None

    def __post_init__(self) -> None:
        """Refuse what is out of bounds."""
        if self.tokens is None and self.cost is None:
            raise DefinitionError("a Budget needs tokens or cost, for example Budget(tokens=10000)")
        if self.tokens is not None and not _is_count(self.tokens):
            raise DefinitionError(
                f"the budget tokens={self.tokens!r} must be a whole number from 1 to {MAX_TOKENS}"
            )
        if self.cost is not None and not (is_number(self.cost) and 1 <= self.micros <= MAX_MICROS):
            raise DefinitionError(
                f"the budget cost={self.cost!r} must be from 0.000001 to {MAX_MICROS // 10**6} "
                "US dollars"
            )

    @property
    def micros(self) -> int:
        """The cost in millionths of a US dollar; 0 if there is no such limit."""
        cost = self.cost or 0.0
        return round(cost * 1e6) if 0 <= cost < MAX_MICROS else 0


def _is_count(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and 1 <= value <= MAX_TOKENS
