"""The tool calls of a chat completion, put together from fragments in every form servers use."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import orjson

from polos_service.limits import CALLS_LIMIT
from polos_service.models.arguments import Arguments, parsed, supersedes
from polos_service.models.draft import Draft, Growing
from polos_service.models.failures import Failures
from polos_service.models.kinds import kind_of
from polos_service.models.lenient import writable

ARGUMENTS = ("arguments", "parameters", "input", "args")
"""How servers call the arguments of a call."""

MAX_DIGITS = 5
"""An index in a text has fewer digits."""

_KNOWN = frozenset({"index", "id", "type", "function", "name", *ARGUMENTS})
_LEGACY = "function_call"


@dataclass(slots=True)
class _Asked:
    call: Growing
    arguments: Arguments
    index: object = None
    named_in: int = 0
    """The number of the delta in which it was last named."""

    @property
    def is_one(self) -> bool:
        """Whether it is a call: some servers send empty ones with each text."""
        return bool(self.call.name) or self.arguments.begun


class Calls:
    """Puts calls together.

    Which call a fragment belongs to is decided by its id, then by its index, and else it is the
    last one. Whether it begins another call: see `_begins_another`.
    """

    def __init__(
        self, draft: Draft, failures: Failures, tools: Sequence[Mapping[str, Any]] = ()
    ) -> None:
        """Take the tools that the model may call: pieces of a name are joined to one of theirs."""
        self._draft = draft
        self._failures = failures
        self._names = frozenset(str(tool["name"]) for tool in tools)
        self._asked: list[_Asked] = []
        self._by_id: dict[str, _Asked] = {}
        self._by_index: dict[object, _Asked] = {}
        self._deltas = 0

    def take(self, told: Any) -> None:
        """Take the `tool_calls` of a delta.

        Raises:
            StepError: a fragment cannot be understood, or a bound is exceeded.

        """
        self._deltas += 1
        if self._continues(told):
            return
        for fragment in self._fragments(told):
            self._take(fragment, _index(fragment.get("index")))

    def complete(self, told: Any) -> None:
        """Take the `tool_calls` of a message that repeats those that came in fragments.

        Raises:
            StepError: as `take`.

        """
        self._deltas += 1
        before = list(self._asked)
        for place, fragment in enumerate(self._fragments(told)):
            inner, call_id, name, text = self._read(fragment)
            known = self._by_id.get(call_id) or next(iter(before[place : place + 1]), None)
            if known is None:
                known = self._begin(None, "", None)
            elif known.arguments.is_closed() or parsed(text) is None:
                text = ""
            else:
                known.arguments.clear()
            self._add(known, call_id, "" if known.call.name else name, text)
            self._keep(known.call, fragment, inner)

    def _fragments(self, told: Any) -> list[dict[str, Any]]:
        if isinstance(told, str) and _opens(told):
            told = parsed(told) or told
        if isinstance(told, dict) and told and all(isinstance(one, dict) for one in told.values()):
            # By their index. A call in itself has texts, too.
            told = [{"index": index, **one} for index, one in told.items()]
        fragments = told if isinstance(told, list) else [told] if told else []
        if any(isinstance(one, list) for one in fragments):
            fragments = [
                each for one in fragments for each in (one if isinstance(one, list) else [one])
            ]
        if len(fragments) > CALLS_LIMIT:
            raise self._failures.too_large(f"{CALLS_LIMIT} tool calls")
        for fragment in fragments:
            if not isinstance(fragment, dict | None):
                raise self._odd("tool_calls", fragment)
        return [fragment for fragment in fragments if fragment is not None]

    def _continues(self, told: Any) -> bool:
        """Take a fragment of arguments and nothing else, as most are; return whether it was one."""
        try:
            (fragment,) = told
            function, asked = fragment["function"], self._by_index[fragment["index"]]
            text = function["arguments"]
            plain = len(fragment) == 2 and len(function) == 1 and type(text) is str  # noqa: PLR2004
        except (LookupError, TypeError, ValueError):
            return False
        if plain and not _opens(text):
            asked.arguments.add(text)
            return True
        return False

    def take_legacy(self, told: Any) -> None:
        """Take the `function_call` of a delta, of which there is one in an answer.

        Servers that send `tool_calls` as well say the same in both.

        Raises:
            StepError: it cannot be understood, or a bound is exceeded.

        """
        if not isinstance(told, dict):
            raise self._odd(_LEGACY, told)
        if any(asked.index != _LEGACY for asked in self._asked):
            return
        self._deltas += 1
        self._take(told, _LEGACY)

    def are_any(self) -> bool:
        """Return whether there is a call."""
        return any(asked.is_one for asked in self._asked)

    def are_whole(self) -> bool:
        """Return whether every call has a name, and arguments that are whole if it has any."""
        calls = (asked for asked in self._asked if asked.is_one)
        return all(asked.call.name and asked.arguments.is_whole() for asked in calls)

    def settle(self) -> None:
        """Give each call the arguments that are meant, once nothing follows."""
        for asked in list(self._asked):
            call = asked.call
            if not asked.is_one:
                self._draft.drop(call)
                continue
            for text in asked.arguments.end():
                self._begin(None, "", asked).call.content.write(text)

    def _read(self, fragment: dict[str, Any]) -> tuple[dict[str, Any], str, str, str]:
        """Return what a fragment says: the object that says it, id, name and arguments."""
        function = fragment.get("function")
        if isinstance(function, str) and _opens(function):
            function = parsed(function)
        inner = next(
            (one for one in (function, fragment.get("custom")) if isinstance(one, dict)), fragment
        )
        name = inner.get("name") or (function if isinstance(function, str) else None) or ""
        if not isinstance(name, str):
            raise self._odd("tool_calls[].function.name", name)
        call_id = fragment.get("id") or ""
        call_id = str(call_id) if isinstance(call_id, str | int) else ""
        return inner, call_id, name, self._arguments(inner)

    def _take(self, fragment: dict[str, Any], index: object) -> None:
        inner, call_id, name, text = self._read(fragment)
        asked = self._find(index, call_id)
        if asked is None and text and not (call_id or name) and self._goes_on():
            # Some servers count fragments, or number a call anew.
            asked = self._by_index[index] = self._asked[-1]
        if asked is None and index is None and not (call_id or name or text):
            return
        if asked is None or self._begins_another(asked, call_id, name, text):
            asked = self._begin(index, name, asked)
            self._by_id.pop(call_id, None)
        elif text and self._is_again(asked, text):
            asked, text = self._again(asked, index, text)
        self._add(asked, call_id, name, text)
        self._keep(asked.call, fragment, inner)

    def _find(self, index: object, call_id: str) -> _Asked | None:
        known = self._by_id.get(call_id) if call_id else None
        if known is not None and index in (None, known.index):
            return known
        if index is not None:
            return self._by_index.get(index)
        return self._asked[-1] if self._asked else None

    def _begins_another(  # noqa: PLR0911 - a list of rules, in order
        self, asked: _Asked, call_id: str, name: str, text: str
    ) -> bool:
        """Return whether a fragment begins a call, rather than continues the one that it is for.

        Some servers number every call 0, some give no ids, some repeat id and name in each
        fragment, some give each fragment an id of its own, some write a name in pieces.
        """
        call, arguments = asked.call, asked.arguments
        if not call.name and not call.id:
            return False
        if call_id and call.id and self._by_id.get(call_id) is not asked:
            if name and not (name == call.name and arguments.begun):
                return True
            return arguments.is_closed()
        if not name:
            return False
        repeated, same_id = name == call.name, bool(call_id and call.id)
        if not call.name:
            return False
        if asked.named_in == self._deltas and not (repeated and same_id):
            return True
        if not arguments.begun:
            if repeated:
                return not (text or call.id)
            return not same_id and self._joined(call.name, name) is None
        if repeated:
            return bool(text) and not call.id and arguments.is_closed()
        return not same_id or arguments.is_closed()

    def _begin(self, index: object, name: str, before: _Asked | None) -> _Asked:
        call = self._draft.call()
        asked = _Asked(call, Arguments(call.content, self._draft.count), index)
        if not name and before is not None:
            call.name = before.call.name
        self._asked.append(asked)
        if index is not None:
            self._by_index[index] = asked
        return asked

    def _goes_on(self) -> bool:
        """Return whether the last call has more to come."""
        return bool(self._asked) and not self._asked[-1].arguments.is_closed()

    def _is_again(self, asked: _Asked, text: str) -> bool:
        """Return whether the arguments are whole, and begin again."""
        arguments = asked.arguments
        return _opens(text) and arguments.begun and (arguments.is_closed() or arguments.are_none())

    def _again(self, asked: _Asked, index: object, text: str) -> tuple[_Asked, str]:
        """Return what whole arguments after whole arguments belong to, and what is to be added."""
        arguments = asked.arguments
        if arguments.are_none() or supersedes(parsed(text), parsed(arguments.so_far())):
            asked.arguments.clear()
            return asked, text
        for call_id in [name for name, one in self._by_id.items() if one is asked]:
            del self._by_id[call_id]
        return self._begin(index, "", asked), text

    def _add(self, asked: _Asked, call_id: str, name: str, text: str) -> None:
        call = asked.call
        if call_id and call_id not in self._by_id:
            self._by_id[self._draft.count(call_id)] = asked
            call.id = call.id or call_id
        if name:
            asked.named_in = self._deltas
            if not call.name:
                call.name = self._draft.count(name)
            elif name != call.name and (joined := self._joined(call.name, name)):
                call.name = self._draft.count(joined)
        if text:
            asked.arguments.add(text)

    def _joined(self, name: str, piece: str) -> str | None:
        """Return the name with one more piece if a tool is called like that or begins so."""
        if any(known.startswith(name + piece) for known in self._names):
            return name + piece
        return piece if piece in self._names and piece.startswith(name) else None

    def _arguments(self, inner: Mapping[str, Any]) -> str:
        told = next((inner[one] for one in ARGUMENTS if inner.get(one) is not None), "")
        return told if isinstance(told, str) else orjson.dumps(writable(told)).decode()

    def _keep(self, call: Growing, fragment: dict[str, Any], inner: dict[str, Any]) -> None:
        """Keep the members that are not ours, for they may have to go back."""
        if fragment.keys() <= _KNOWN and inner.keys() <= _KNOWN:
            return
        kept = _unknown(fragment)
        if inner is not fragment and (within := _unknown(inner)):
            kept["function"] = within
        if kept:
            self._draft.merge(call.state, kept)

    def _odd(self, field: str, value: object) -> Exception:
        what = f"choices[0].delta.{field} is {kind_of(value)}"
        return self._failures.malformed(what, retryable=False)


def _unknown(told: Mapping[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in told.items() if name not in _KNOWN and value is not None}


def _opens(text: str) -> bool:
    return text.lstrip().startswith(("{", "["))


def _index(told: object) -> object:
    """Return an index that can be compared; None if it is not a number."""
    if isinstance(told, str):
        return int(told) if told.isdecimal() and len(told) < MAX_DIGITS else None
    if isinstance(told, int | float) and told == told:  # noqa: PLR0124 - NaN equals nothing
        return told
    return None
