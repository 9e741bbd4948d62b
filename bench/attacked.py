"""What `polos serve` serves while it is attacked: the honest agent, and two hostile providers."""

from __future__ import annotations

import os

from bench.app import relay
from polos import Agent

__all__ = ["endless_fragments", "huge_error", "relay", "short_tokens"]

HOSTILE = os.environ["BENCH_HOSTILE"]

huge_error = Agent(
    id="huge_error", provider="openai", model="huge-error", provider_base_url=HOSTILE
)
endless_fragments = Agent(
    id="endless_fragments", provider="openai", model="endless-fragments", provider_base_url=HOSTILE
)
short_tokens = Agent(
    id="short_tokens", provider="openai", model="short-tokens", provider_base_url=HOSTILE
)
