"""The Messages API: what a request looks like."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from polos_service.models import ModelRequest
from polos_service.models.anthropic.turns import system_of, turns_of

PATH = "/v1/messages"
"""Where requests go, behind the base URL."""

VERSION = "2023-06-01"
"""The version of the API. Later ones take no temperature, and other servers know only this one."""

DEFAULT_MAX_TOKENS = 32_000
"""The bound on an answer, its reasoning included, if neither agent nor run sets one: the API
demands it, and each model of the fourth generation or later can take as much."""


def body(request: ModelRequest, provider: str) -> dict[str, Any]:
    """Return the parameters of the call; a run's options override the agent's definition.

    Tools among the agent's own parameters (those that the provider's servers run, say) join
    the agent's tools. A temperature is left out where the model thinks: the API refuses both.

    Raises:
        StepError: the conversation has a file of a kind that the API does not take.

    """
    made: dict[str, Any] = {
        "model": request.model,
        "max_tokens": request.max_output_tokens or DEFAULT_MAX_TOKENS,
        "messages": turns_of(request.messages, provider),
        "stream": True,
    }
    if system := system_of(request.messages, provider):
        made["system"] = system
    if request.temperature is not None:
        made["temperature"] = request.temperature
    made |= {**request.settings, **request.options}
    if tools := [*map(_tool, request.tools), *request.settings.get("tools", ())]:
        made["tools"] = tools
    if _thinks(made.get("thinking")):
        made.pop("temperature", None)
    return made


def _tool(tool: Mapping[str, Any]) -> dict[str, Any]:
    described = {"description": tool["description"]} if tool.get("description") else {}
    schema = {"type": "object", **(tool.get("parameters") or {})}
    return {"name": tool["name"], **described, "input_schema": schema}


def _thinks(thinking: object) -> bool:
    return isinstance(thinking, Mapping) and thinking.get("type") != "disabled"
