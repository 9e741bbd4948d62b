"""The Messages API: what a request looks like."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from polos_service.models import ModelRequest
from polos_service.models.anthropic.turns import system_of, turns_of
from polos_service.models.messages import Message, calls_of
from polos_service.models.output import OutputFormat, told

PATH = "/v1/messages"
"""Where requests go, behind the base URL."""

VERSION = "2023-06-01"
"""The version of the API. Later ones take no temperature, and other servers know only this one."""

DEFAULT_MAX_TOKENS = 32_000
"""The bound on an answer, its reasoning included, if neither agent nor run sets one: the API
demands it, and each model of the fourth generation or later can take as much."""


def body(request: ModelRequest, provider: str) -> dict[str, Any]:
    """Return the parameters of the call; a run's options override the agent's definition.

    Tools among the agent's own parameters (for example those that the provider's servers run) join
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
    elif names := _called(request.messages):
        # The API wants the tools that were called, even where none may be.
        made["tools"] = [{"name": name, "input_schema": {"type": "object"}} for name in names]
        made["tool_choice"] = {"type": "none"}
    if _thinks(made.get("thinking")):
        made.pop("temperature", None)
    if request.output is not None:
        _demand(made, request.output)
    return made


def _demand(body: dict[str, Any], output: OutputFormat) -> None:
    """Put the form of the answer into a request: with tools as well, the API takes both.

    https://platform.claude.com/docs/en/build-with-claude/structured-outputs says what can be
    enforced.
    """
    schema = output.strict(all_required=False, recursive=False)
    if schema is None:
        tell(body, output.schema)
        return
    form = {"type": "json_schema", "schema": schema}
    body["output_config"] = {"format": form, **body.get("output_config", {})}


def tell(body: dict[str, Any], schema: Mapping[str, Any]) -> None:
    """Tell the form of the answer in the system prompt."""
    system = body.get("system", [])
    blocks = [{"type": "text", "text": system}] if isinstance(system, str) else system
    body["system"] = [*blocks, {"type": "text", "text": told(schema)}]


def tell_instead(body: dict[str, Any]) -> bool:
    """Tell the form of the answer in words instead of in a field; return whether there was one."""
    match body.get("output_config"):
        case {"format": {"type": "json_schema", "schema": schema}, **rest}:
            body["output_config"] = rest
            if not rest:
                del body["output_config"]
            tell(body, schema)
            return True
    return False


def _called(messages: Iterable[Message]) -> list[str]:
    """Return the names of the tools that a conversation has calls of."""
    return list(dict.fromkeys(call.name for one in messages for call in calls_of(one.parts)))


def _tool(tool: Mapping[str, Any]) -> dict[str, Any]:
    described = {"description": tool["description"]} if tool.get("description") else {}
    schema = {"type": "object", **(tool.get("parameters") or {})}
    return {"name": tool["name"], **described, "input_schema": schema}


def _thinks(thinking: object) -> bool:
    return isinstance(thinking, Mapping) and thinking.get("type") != "disabled"
