"""Asks for a provider that is not built."""

from polos import Agent

Agent(id="claude", provider="anthropic", model="claude-sonnet-4-5")
