"""What a replica serves that only reads: nothing."""

from __future__ import annotations

from polos import Agent

nothing = Agent(id="nothing", provider="openai", model="mock")
