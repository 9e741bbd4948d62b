"""The OpenAI form of a conversation, in which callers send one."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from itertools import islice
from typing import Any, get_args

from polos_service.models.messages import (
    Call,
    Message,
    Part,
    Reasoning,
    Result,
    Role,
    Text,
    calls_of,
)
from polos_service.models.openai.form_parts import SHOWN, Wrong, kind_of, parts_of, rest, string

MAX_WRONG = 8
"""Errors that are told at once."""

ROLES = (*get_args(Role), "function")
"""Who may speak. A `function` is what the API called a tool before."""

THOUGHTS = ("reasoning_content", "reasoning")
"""The members in which servers tell the reasoning of a model, by how common they are."""


def messages_of(form: Sequence[Any], provider: str) -> tuple[list[Message], dict[str, str]]:
    """Return a conversation, and what is wrong with it by path; empty if nothing is.

    Args:
        form: the messages, in the form of the OpenAI chat API.
        provider: the provider that gets back the members that have no place in a message.

    """
    reading = _Reading(provider)
    messages, wrong = [], {}
    for index, one in enumerate(form):
        try:
            messages.append(reading.message(index, one))
        except Wrong as error:
            wrong[f"[{index}]{error.path}"] = error.what
            if len(wrong) == MAX_WRONG:
                break
    # Where a message is missing, the order of those that are left says nothing.
    return messages, wrong or dict(islice(_out_of_order(messages), MAX_WRONG))


def stored_messages_of(form: Sequence[Mapping[str, Any]], provider: str) -> list[Message]:
    """Return a conversation that an earlier version stored as its caller had sent it.

    It was not checked then. A message that cannot be read goes to the provider as it is.
    """
    reading = _Reading(provider)
    messages = []
    for index, one in enumerate(form):
        try:
            messages.append(reading.message(index, one))
        except Wrong:
            role: Any = one.get("role")
            said = one.get("content")
            messages.append(
                Message(
                    role=role if role in get_args(Role) else "user",
                    parts=(Text(text=said),) if isinstance(said, str) else (),
                    state={provider: one},
                )
            )
    return messages


class _Reading:
    """Reads the messages of one conversation, in order."""

    def __init__(self, provider: str) -> None:
        self._provider = provider
        self._functions: dict[str, str] = {}  # ids of legacy calls, which have none, by name

    def message(self, index: int, one: Any) -> Message:
        """Return a message.

        Raises:
            Wrong: a member of it is wrong.

        """
        if not isinstance(one, dict):
            raise Wrong("", f"is {kind_of(one)}; allowed: an object with a role and content")
        role: Any = one.get("role")
        if role not in ROLES:
            found = f"{role!r:.{SHOWN}}" if isinstance(role, str) else kind_of(role)
            raise Wrong(".role", f"is {found}; allowed: {', '.join(ROLES)}")
        if role == "assistant":
            return self._assistant(index, one)
        content = one.get("content")
        if content in (None, []) and role != "function":
            found = "missing" if content is None else "an empty array"
            raise Wrong(".content", f"is {found}; allowed: a string or an array of parts")
        if role in ("tool", "function"):
            return self._result(one)
        if one.get("tool_calls"):
            raise Wrong(".tool_calls", f"belongs to an assistant message, not to one of {role}")
        parts = _at(".content", parts_of, content, self._provider)
        return Message(role=role, parts=parts, state=self._rest(one, "role", "content"))

    def _assistant(self, index: int, one: Mapping[str, Any]) -> Message:
        known = ["role", "content", "tool_calls", "function_call"]
        parts: list[Part] = []
        for name in THOUGHTS:
            thought = one.get(name)
            if isinstance(thought, str) and thought:
                state = {} if name == THOUGHTS[0] else {self._provider: {"field": name}}
                parts.append(Reasoning(text=thought, state=state))
                known.append(name)
                break
        parts += _at(".content", parts_of, one.get("content"), self._provider)
        refusal = one.get("refusal")
        if isinstance(refusal, str):
            parts.append(Text(text=refusal))
            known.append("refusal")
        calls = one.get("tool_calls") or ()
        if not isinstance(calls, list | tuple):
            raise Wrong(".tool_calls", f"is {kind_of(calls)}; allowed: an array of calls")
        for number, call in enumerate(calls):
            parts.append(_at(f".tool_calls[{number}]", _call, call, self._provider))
        if one.get("function_call") is not None:
            parts.append(_at(".function_call", self._legacy, one["function_call"], index))
        return Message(role="assistant", parts=tuple(parts), state=self._rest(one, *known))

    def _legacy(self, function: Any, index: int) -> Call:
        name, arguments = _function(function)
        call_id = self._functions[name] = _legacy_id(index)
        return Call(id=call_id, name=name, arguments_json=arguments)

    def _result(self, one: Mapping[str, Any]) -> Message:
        if one["role"] == "tool":
            member = "tool_call_id"
            call_id = string(one.get(member), f".{member}")
        else:
            member = "name"
            name = string(one.get(member), f".{member}")
            if (call_id := self._functions.pop(name, "")) == "":
                raise Wrong(
                    f".{member}", f"is {name[:SHOWN]!r}; no earlier function_call has this name"
                )
        content = _at(".content", parts_of, one.get("content"), self._provider)
        state = self._rest(one, "role", "content", member)
        return Message(role="tool", parts=(Result(call_id=call_id, content=content, state=state),))

    def _rest(self, one: Mapping[str, Any], *known: str) -> Mapping[str, Any]:
        return rest(one, known, self._provider)


def _at(path: str, read: Callable[..., Any], *arguments: Any) -> Any:
    """Return what `read` returns; its errors are those of the member at `path`."""
    try:
        return read(*arguments)
    except Wrong as wrong:
        raise wrong.under(path) from None


def _call(call: Any, provider: str) -> Call:
    if not isinstance(call, dict):
        raise Wrong("", f"is {kind_of(call)}; allowed: an object with id and function")
    call_id = string(call.get("id"), ".id")
    kind = call.get("type") or "function"
    if kind == "custom":
        custom = call.get("custom")
        if not isinstance(custom, dict):
            raise Wrong(".custom", f"is {kind_of(custom)}; allowed: an object")
        name, text = string(custom.get("name"), ".custom.name"), custom.get("input")
        if not isinstance(text, str):
            raise Wrong(".custom.input", f"is {kind_of(text)}; allowed: a string")
        # Its type stays in the state: the input of a custom tool is text, and no object.
        state = rest({"type": kind, **call}, ("id", "custom"), provider)
        return Call(id=call_id, name=name, arguments_json=json.dumps(text), state=state)
    if kind != "function":
        raise Wrong(".type", f"is {kind!r:.{SHOWN}}; allowed: function, custom")
    name, arguments = _at(".function", _function, call.get("function"))
    function = {k: v for k, v in call["function"].items() if k not in ("name", "arguments")}
    state = rest({**call, "function": function or None}, ("id", "type"), provider)
    return Call(id=call_id, name=name, arguments_json=arguments, state=state)


def _function(function: Any) -> tuple[str, str]:
    """Return name and arguments; servers that give the arguments as an object are understood."""
    if not isinstance(function, dict):
        raise Wrong("", f"is {kind_of(function)}; allowed: an object with name and arguments")
    name, arguments = string(function.get("name"), ".name"), function.get("arguments")
    if isinstance(arguments, dict):
        arguments = json.dumps(arguments, ensure_ascii=False)
    if not isinstance(arguments, str | None):
        raise Wrong(".arguments", f"is {kind_of(arguments)}; allowed: a string with JSON")
    return name, arguments or "{}"


def _out_of_order(messages: Sequence[Message]) -> Iterator[tuple[str, str]]:
    """Yield path and error of each result without a call, and of each call without a result.

    Providers want the results of all calls right behind the message that has the calls.
    """
    unanswered: dict[str, str] = {}
    for index, message in enumerate(messages):
        for part in message.parts:
            if isinstance(part, Result) and unanswered.pop(part.call_id, None) is None:
                what = "no unanswered call in the assistant message before it has this id"
                yield f"[{index}].tool_call_id", f"is {part.call_id[:SHOWN]!r}; {what}"
        if message.role != "tool":
            yield from _without_result(unanswered)
            unanswered = {}
        for number, call in enumerate(calls_of(message.parts)):
            legacy = call.id == _legacy_id(index)
            path = f"[{index}].function_call" if legacy else f"[{index}].tool_calls[{number}]"
            if call.id in unanswered:
                yield f"{path}.id", f"is {call.id[:SHOWN]!r}; another call has this id"
            unanswered[call.id] = path
    yield from _without_result(unanswered)


def _without_result(unanswered: Mapping[str, str]) -> Iterator[tuple[str, str]]:
    what = "has no result; the message with its result must follow before any other message"
    for path in unanswered.values():
        yield path, what


def _legacy_id(index: int) -> str:
    """Return the id of the call in the `function_call` of a message."""
    return f"function_call_{index}"
