"""Chat completions: what a request looks like."""

from __future__ import annotations

from typing import Any

from polos_service.models import ModelRequest
from polos_service.models.openai.chat_messages import Writer
from polos_service.models.openai.dialect import Dialect

PATH = "/chat/completions"
"""Where requests go, behind the base URL."""

BOUNDS = {"max_tokens", "max_completion_tokens"}
"""The names of the bound on the output; servers refuse two of them together."""


def body(request: ModelRequest, dialect: Dialect, provider: str) -> dict[str, Any]:
    """Return the parameters of the call; a run's options override the agent's definition."""
    writer = Writer(provider=provider, dialect=dialect)
    made: dict[str, Any] = {
        "model": request.model,
        "messages": writer.messages(request.messages),
        "stream": True,
    }
    if dialect.stream_options:
        made["stream_options"] = {"include_usage": True}
    if request.tools:
        made["tools"] = [{"type": "function", "function": dict(tool)} for tool in request.tools]
    if request.temperature is not None:
        made["temperature"] = request.temperature
    if request.max_output_tokens is not None:
        made[dialect.bound] = request.max_output_tokens
    for chosen in (request.settings, request.options):
        if BOUNDS & chosen.keys():
            made = {name: value for name, value in made.items() if name not in BOUNDS}
        made |= chosen
    return made
