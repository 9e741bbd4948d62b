"""What may stand in the definition of an agent; everything else is refused where it stands."""

from __future__ import annotations

import inspect
import re
from typing import Any

from polos_client.deadlines import is_number
from polos_client.define.stop import StopCondition, as_condition
from polos_client.define.tool import Tool
from polos_client.errors import DefinitionError
from polos_client.unbuilt import PROVIDERS

_ID = re.compile(r"[A-Za-z0-9_.-]{1,128}")
_PROVIDERS = ("anthropic", "openai", "scripted")
_MAX_TEMPERATURE = 2


def agent_id(value: object) -> str:
    """Return the id; raise DefinitionError unless an agent may have it."""
    if not isinstance(value, str) or not _ID.fullmatch(value):
        raise DefinitionError(
            f"the agent id {value!r} must be 1 to 128 letters, digits, '_', '.' or '-'"
        )
    return value


def provider_name(value: str) -> str:
    """Return the provider; raise DefinitionError unless there is one of that name."""
    if value not in _PROVIDERS:
        known = value in PROVIDERS
        refused = (
            f"the provider {value!r} is not built yet in this version"
            if known
            else (f"there is no provider {value!r}")
        )
        raise DefinitionError(
            f"{refused}; there are {' and '.join(_PROVIDERS)} "
            "('openai' serves any compatible server: set provider_base_url)"
        )
    return value


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
    if value is not None and not (isinstance(value, int) and 1 <= value < 2**31):
        raise DefinitionError(f"max_output_tokens must be an integer, at least 1, not {value!r}")
    return value


def tools(value: Any) -> tuple[Tool, ...]:
    """Return the tools; raise DefinitionError unless they are tools with different ids."""
    given = _listed("tools", value)
    for one in given:
        if inspect.isroutine(one):
            raise DefinitionError(f"{one.__name__} is a plain function: put @tool on it")
        if not isinstance(one, Tool):
            raise DefinitionError(
                f"{one!r} is not a tool: put @tool on a function (sub-agents are not built yet)"
            )
    ids = [one.id for one in given]
    twice = sorted({one for one in ids if ids.count(one) > 1})
    if twice:
        raise DefinitionError(f"two tools have the id {twice[0]!r}: give one @tool(id=...)")
    return given


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
