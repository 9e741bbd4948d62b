"""Fields of a request that Polos adds by itself, and leaves out where a server refuses them.

Strict servers refuse a request because of a field that they do not know. A switch turns such a
field off for one address: by the operator's setting, or because the server refused it once. What an
agent or a caller chose is never left out: the answer would not be what they asked for.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Collection, Iterator, Mapping
from typing import Any

from polos_service.models.anthropic import request as anthropic_request
from polos_service.models.openai import chat_request, responses_request
from polos_service.models.told import Told
from polos_service.provider_settings import SwitchName

MAX_REFUSALS = 4
"""Refused fields in one call of a model after which the refusal is the call's failure."""

Body = dict[str, Any]

_REFUSAL = re.compile(
    r"unsupported|not[ _]supported|unrecogni[sz]ed|unknown|unexpected|extra|additional|forbidden"
    r"|not (?:permitted|allowed|accepted|implemented)|does(?: not|n't) (?:support|accept|allow)"
    r"|invalid (?:parameter|argument|field|key)|instead|deprecated|no longer",
    re.IGNORECASE,
)
"""What a server says of a field that it refuses, whatever its value."""

_DEMAND = re.compile(
    r"missing|required|must be (?:provided|set|passed|a |an |at |one |less|greater)"
    r"|too (?:large|long)|at (?:most|least)|less than|greater than|maximum|minimum|exceed",
    re.IGNORECASE,
)
"""What it says if it wants the field, or another value of it."""


def _without_field(name: str) -> Callable[[Body], bool]:
    """Return what leaves out a parameter."""
    return lambda body: body.pop(name, body) is not body


def _renamed(name: str, other: str) -> Callable[[Body], bool]:
    """Return what sends a parameter under its other name."""

    def rename(body: Body) -> bool:
        if name not in body or other in body:
            return False
        body[other] = body.pop(name)
        return True

    return rename


def _without_member(name: str) -> Callable[[Body], bool]:
    """Return what leaves out a member of messages and of their tool calls."""

    def strip(body: Body) -> bool:
        left_out = False
        for one in _members(body):
            left_out |= one.pop(name, body) is not body
        return left_out

    return strip


def _members(body: Body) -> Iterator[Body]:
    """Yield the messages of a body and the calls in them, each a copy that stands in its place."""
    for field in ("messages", "input"):
        if not isinstance(messages := body.get(field), list):
            continue
        messages = [dict(one) if isinstance(one, Mapping) else one for one in messages]
        body[field] = messages
        for message in messages:
            if not isinstance(message, dict):
                continue
            yield message
            if isinstance(calls := message.get("tool_calls"), list):
                message["tool_calls"] = calls = [dict(call) for call in calls]
                yield from calls


SWITCHES: Mapping[SwitchName, Callable[[Body], bool]] = {
    "stream_options": _without_field("stream_options"),
    "parallel_tool_calls": _without_field("parallel_tool_calls"),
    "tool_choice": _without_field("tool_choice"),
    "store": _without_field("store"),
    "include": _without_field("include"),
    "max_tokens": _renamed("max_tokens", "max_completion_tokens"),
    "max_completion_tokens": _renamed("max_completion_tokens", "max_tokens"),
    "reasoning": _without_member("reasoning"),
    "reasoning_content": _without_member("reasoning_content"),
    "reasoning_details": _without_member("reasoning_details"),
    "extra_content": _without_member("extra_content"),
    "response_format": chat_request.tell_instead,
    "text": responses_request.tell_instead,
    "output_config": anthropic_request.tell_instead,
}
"""What each switch does to a request; returns whether it changed anything. The two names of the
bound on an answer stand for each other, so this bound is never lost."""

FORMATS: Mapping[SwitchName, str] = {
    "response_format": r"response_format|json_schema|structured outputs?",
    "text": r"text\.format|json_schema|structured outputs?",
    "output_config": r"output_config|output[ _]format|json_schema|structured outputs?",
}
"""Switches that tell the form of an answer in words instead, and what a server says that takes no
such form, or not this one: whatever it says of it, the words work."""

RENAMES: Mapping[str, SwitchName] = {
    "max_tokens": "max_completion_tokens",
    "max_completion_tokens": "max_tokens",
}
"""Switches that keep what was chosen, and so apply to it as well; of two, one is turned off."""


def apply(body: Body, off: Collection[str], chosen: Collection[str]) -> None:
    """Turn fields of a request off.

    Args:
        body: the request; changed in place, down to its messages, which are copied.
        off: the switches that are turned off.
        chosen: parameters that an agent or a caller set; they stay.

    """
    for name, switch in SWITCHES.items():
        if name in off and (name in RENAMES or name not in chosen):
            switch(body)


def refused(
    told: Told, body: Body, off: Collection[str], chosen: Collection[str]
) -> SwitchName | None:
    """Return the switch whose field a server refused; None if it refused something else.

    Args:
        told: what the server said.
        body: the request as it was sent.
        off: the switches that are turned off already.
        chosen: parameters that an agent or a caller set.

    """
    said = " ".join((told.message, *told.fields, *told.codes))
    refuses_any = _REFUSAL.search(said) and not _DEMAND.search(said)
    for name, switch in SWITCHES.items():
        if name in off or RENAMES.get(name) in off or (name in chosen and name not in RENAMES):
            continue
        if not (refuses_any or name in FORMATS):
            continue
        words = FORMATS.get(name, name)
        if re.search(rf"(?<!\w)(?:{words})(?!\w)", said, re.IGNORECASE) and switch(dict(body)):
            return name
    return None
