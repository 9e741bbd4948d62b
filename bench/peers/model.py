"""How the peers ask the provider: with the `openai` package, and nothing else of this project."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any

from openai import AsyncOpenAI

PATIENCE = 600.0
"""Seconds for everything that may time out. A relay that is busy with fifty answers needs more
than the package's five to connect for the next."""


def provider() -> AsyncOpenAI:
    """Return the client of the provider that the environment names."""
    return AsyncOpenAI(max_retries=0, timeout=PATIENCE)


def asked(prompt: str) -> dict[str, Any]:
    """Return the parameters of a model call."""
    return {
        "model": "mock",
        "messages": [{"role": "user", "content": prompt}],
        "stream": True,
        "stream_options": {"include_usage": True},
    }


async def typed(client: AsyncOpenAI, prompt: str) -> AsyncIterator[str]:
    """Yield the text of an answer, read as the package's documentation shows."""
    stream = await client.chat.completions.create(**asked(prompt))
    async for chunk in stream:
        if chunk.choices and chunk.choices[0].delta.content:
            yield chunk.choices[0].delta.content
