"""Which parameters of the Responses API a run may choose.

Those of chat completions have the same names here and are translated, as far as the API has them.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from polos_service.models.openai import options as chat
from polos_service.models.options import COUNT, OBJECT, TEXT, Rule, broken

ABSENT = ("frequency_penalty", "logit_bias", "presence_penalty", "seed", "stop")
"""Parameters of chat completions that the Responses API does not have."""

BOUNDS = ("max_output_tokens", "max_completion_tokens", "max_tokens")
"""The names of the bound on an answer, the API's own first."""

RULES: Mapping[str, Rule] = {
    **{name: rule for name, rule in chat.RULES.items() if name not in ABSENT},
    "max_output_tokens": COUNT,
    "reasoning": OBJECT,
    "text": OBJECT,
    "truncation": TEXT,
}
"""What may be chosen. All else stays with the service, what is kept at the provider above all."""


def check(options: Mapping[str, Any]) -> Mapping[str, str]:
    """Return what is wrong with `options`, by name; empty if nothing is."""
    wrong = broken(options, RULES)
    for name in ABSENT:
        if name in wrong:
            wrong[name] = f"is not a parameter of the Responses API; allowed: {', '.join(RULES)}"
    first, *others = [name for name in BOUNDS if name in options] or [""]
    for name in others:
        wrong[name] = f"means the same as {first}: set only one of them"
    return wrong
