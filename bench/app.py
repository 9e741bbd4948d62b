"""What `polos serve` serves in the benchmarks: an agent that only asks the mock provider."""

from __future__ import annotations

from polos import Agent

relay = Agent(id="relay", provider="openai", model="mock")
