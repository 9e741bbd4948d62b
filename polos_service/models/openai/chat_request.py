"""Chat completions: what a request looks like."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from polos_service.models import ModelRequest
from polos_service.models.openai.chat_messages import Writer
from polos_service.models.openai.dialect import Dialect
from polos_service.models.output import OutputFormat, told

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
    if request.output is not None:
        _demand(made, request.output, dialect)
    for chosen in (request.settings, request.options):
        if BOUNDS & chosen.keys():
            made = {name: value for name, value in made.items() if name not in BOUNDS}
        made |= chosen
    return made


def _demand(body: dict[str, Any], output: OutputFormat, dialect: Dialect) -> None:
    """Put the form of the answer into a request."""
    takes = dialect.schema and (dialect.schema_with_tools or "tools" not in body)
    if takes and output.is_object:
        body["response_format"] = {"type": "json_schema", "json_schema": json_schema(output)}
    else:
        tell(body, output.schema)


def json_schema(output: OutputFormat) -> dict[str, Any]:
    """Return the form of the answer as OpenAI's APIs take it, enforced if that can be.

    https://developers.openai.com/api/docs/guides/structured-outputs says what can be.
    """
    strict = output.strict(all_required=True, recursive=True)
    schema = output.lax() if strict is None else strict
    return {"name": output.name, "strict": strict is not None, "schema": schema}


def tell(body: dict[str, Any], schema: Mapping[str, Any]) -> None:
    """Tell the form of the answer in the system prompt."""
    messages = [*body["messages"]]
    first = messages[0] if messages else {}
    if first.get("role") in ("system", "developer") and isinstance(first.get("content"), str):
        messages[0] = {**first, "content": f"{first['content']}\n\n{told(schema)}"}
    else:
        messages.insert(0, {"role": "system", "content": told(schema)})
    body["messages"] = messages


def tell_instead(body: dict[str, Any]) -> bool:
    """Tell the form of the answer in words instead of in a field; return whether there was one."""
    match body.get("response_format"):
        case {"type": "json_schema", "json_schema": {"schema": schema}}:
            del body["response_format"]
            tell(body, schema)
            return True
    return False
