"""What may stand in the definition of an agent; everything else is refused where it stands."""

from __future__ import annotations

import inspect
import json
import re
from collections.abc import Mapping
from typing import Any

from pydantic import JsonValue, TypeAdapter, ValidationError

from polos_client.deadlines import is_number
from polos_client.define.stop import StopCondition, as_condition
from polos_client.define.tool import Tool
from polos_client.errors import DefinitionError

_ID = re.compile(r"[A-Za-z0-9_.-]{1,128}")
_NAME = re.compile(r"[A-Za-z0-9_.-]{1,64}")
_HEADER = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]{1,256}")
_MAX_TEMPERATURE = 2
_JSON = TypeAdapter(dict[str, JsonValue])

_ADDRESS = "set provider_base_url, and POLOS_PROVIDER_KEYS in the service"
_ELSEWHERE = {
    "api_key": _ADDRESS,
    "base_url": _ADDRESS,
    "extra_query": "it is not supported",
    "input": "pass it to agent.run",
    "instructions": "set system_prompt",
    "messages": "pass them to agent.run as its input",
    "model": "set model",
    "stream": "the service always streams; agent.stream passes the events on",
    "system": "set system_prompt",
    "timeout": "set deadlines",
    "tools": "set tools",
}
"""What an agent sets otherwise, and how."""

_KEYS = frozenset({"api-key", "authorization", "cookie", "proxy-authorization", "x-api-key"})
_FRAMING = frozenset(
    {
        *("accept-encoding", "connection", "content-encoding", "content-length", "content-type"),
        *("expect", "host", "te", "trailer", "transfer-encoding", "upgrade"),
    }
)
"""Headers of the connection, which are the service's own."""


def agent_id(value: object) -> str:
    """Return the id; raise DefinitionError unless an agent may have it."""
    if not isinstance(value, str) or not _ID.fullmatch(value):
        raise DefinitionError(
            f"the agent id {value!r} must be 1 to 128 letters, digits, '_', '.' or '-'"
        )
    return value


def provider_name(value: object) -> str:
    """Return the provider; raise DefinitionError unless it is a name. The service knows which."""
    return _name("provider", value)


def llm_api(value: object) -> str | None:
    """Return the provider's API; raise DefinitionError unless it is a name, or None."""
    return None if value is None else _name("provider_llm_api", value)


def _name(what: str, value: object) -> str:
    if not isinstance(value, str) or not _NAME.fullmatch(value):
        raise DefinitionError(
            f"the {what} {value!r:.80} must be 1 to 64 letters, digits, '_', '.' or '-'"
        )
    return value


def base_url(value: object) -> str | None:
    """Return the address; raise DefinitionError unless it is a text, or None."""
    if value is not None and not isinstance(value, str):
        # Nothing of it is repeated: it may hold a password.
        raise DefinitionError(
            f"provider_base_url must be a string, not of type {type(value).__name__}"
        )
    return value


def provider_kwargs(value: Any) -> dict[str, Any]:
    """Return a copy of the parameters; raise DefinitionError unless an agent may set them."""
    if value is None:
        return {}
    if not isinstance(value, Mapping):
        raise DefinitionError(f"provider_kwargs must be a dict, not {value!r:.80}")
    try:
        copy = _JSON.validate_python(value)
    except ValidationError as error:
        place = str(error.errors()[0]["loc"][0])
        raise DefinitionError(f"provider_kwargs: {place:.80} must be a JSON value") from None
    for name, one in copy.items():
        try:
            json.dumps(one, allow_nan=False)
        except (ValueError, RecursionError) as error:
            raise DefinitionError(
                f"provider_kwargs: {name:.80} must be a JSON value: {error}"
            ) from None
    body = copy.get("extra_body", {})
    if not isinstance(body, dict):
        raise DefinitionError(f"provider_kwargs: extra_body must be a dict, not {body!r:.80}")
    for name in (*copy, *body):
        if name in _ELSEWHERE:
            raise DefinitionError(f"provider_kwargs must not contain {name}: {_ELSEWHERE[name]}")
    _check_headers(copy.get("extra_headers", {}))
    return copy


def _check_headers(headers: Any) -> None:
    if not isinstance(headers, dict):
        raise DefinitionError(f"provider_kwargs: extra_headers must be a dict, not {headers!r:.80}")
    for name, value in headers.items():
        if name.lower() in _KEYS:
            raise DefinitionError(
                f"provider_kwargs: extra_headers must not contain {name}: the service sends the "
                "key that it is configured with"
            )
        if not _HEADER.fullmatch(name) or name.lower() in _FRAMING:
            raise DefinitionError(f"provider_kwargs: extra_headers must not contain {name!r:.80}")
        if not (isinstance(value, str) and value.isascii() and value.isprintable()):
            raise DefinitionError(
                f"provider_kwargs: extra_headers[{name!r}] must be printable ASCII text"
            )


def model_name(value: object) -> str:
    """Return the model; raise DefinitionError unless it is a text that is not empty."""
    if not isinstance(value, str) or not value:
        raise DefinitionError(f"the model must be the name of one, not {value!r}")
    return value


def temperature(value: float | None) -> float | None:
    """Return the temperature; raise DefinitionError unless it is from 0 to 2, or None."""
    if value is not None and not (is_number(value) and 0 <= value <= _MAX_TEMPERATURE):
        raise DefinitionError(f"the temperature must be from 0 to 2, not {value!r}")
    return value


def output_tokens(value: Any) -> int | None:
    """Return the bound; raise DefinitionError unless it is a whole number above 0, or None."""
    if value is not None and not (type(value) is int and 1 <= value < 2**31):
        raise DefinitionError(f"max_output_tokens must be an integer, at least 1, not {value!r}")
    return value


def tools(value: Any, agent: type[Any]) -> tuple[Tool, ...]:
    """Return the tools, of which those that are an `agent` are made; they have different ids.

    Raises:
        DefinitionError: one is neither a tool nor an agent, or two have one id.

    """
    found: list[Tool] = []
    for one in _listed("tools", value):
        if inspect.isroutine(one):
            raise DefinitionError(f"{one.__name__} is a plain function: put @tool on it")
        made = one.as_tool() if isinstance(one, agent) else one
        if not isinstance(made, Tool):
            raise DefinitionError(f"{one!r} is not a tool: put @tool on a function")
        found.append(made)
    ids = [one.id for one in found]
    twice = sorted({one for one in ids if ids.count(one) > 1})
    if twice:
        raise DefinitionError(
            f"two tools have the id {twice[0]!r}: give one @tool(id=...), or agent.as_tool(id=...)"
        )
    return tuple(found)


def stop_conditions(value: Any) -> tuple[StopCondition, ...]:
    """Return the conditions under names that differ; raise DefinitionError where one is none."""
    found: list[StopCondition] = []
    for one in _listed("stop_conditions", value):
        found.append(as_condition(one).apart_from(found))
    return tuple(found)


def _listed(name: str, value: Any) -> tuple[Any, ...]:
    if value is None:
        return ()
    try:
        return tuple(value)
    except TypeError:
        told = getattr(value, "__name__", repr(value))
        raise DefinitionError(f"{name} must be a list, as {name}=[{told}]") from None
