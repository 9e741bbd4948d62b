"""Chat completions: what a request looks like."""

from __future__ import annotations

from typing import Any

from polos_service.models import ModelRequest
from polos_service.models.address import Address
from polos_service.models.openai.chat_messages import OPENAI_IDS, Writer

PATH = "/chat/completions"
"""Where requests go, behind the base URL."""


def body(request: ModelRequest, address: Address, provider: str) -> dict[str, Any]:
    """Return the parameters of the call; a run's options override the agent's definition."""
    writer = Writer(provider=provider, call_ids=OPENAI_IDS if address.is_openai else None)
    made: dict[str, Any] = {
        "model": request.model,
        "messages": writer.messages(request.messages),
        "stream": True,
        "stream_options": {"include_usage": True},
    }
    if request.tools:
        made["tools"] = [{"type": "function", "function": dict(tool)} for tool in request.tools]
    if request.temperature is not None:
        made["temperature"] = request.temperature
    bounded = {"max_tokens", "max_completion_tokens"} & request.options.keys()
    if request.max_output_tokens is not None and not bounded:
        # OpenAI's newer models refuse the old name; other servers often know only that one.
        name = "max_completion_tokens" if address.is_openai else "max_tokens"
        made[name] = request.max_output_tokens
    return {**made, **request.settings, **request.options}
