"""Chat completions: the chunks of an answer, or the whole of it, as every server sends them.

What is unknown is skipped, and what can be taken is taken. An odd value fails the answer only
if nothing else was said: then the message names the field.
"""

from __future__ import annotations

import contextlib
from collections.abc import Mapping, Sequence
from typing import Any

import orjson

from polos.v1.event_pb2 import FinishReason
from polos_service.models.draft import NOTHING, VOIDING, Draft, Pieces, joined
from polos_service.models.failures import Failures
from polos_service.models.finish import finish_reason
from polos_service.models.kinds import kind_of
from polos_service.models.lenient import DONE, values
from polos_service.models.messages import Call, Reasoning, Text
from polos_service.models.openai.chat_calls import Calls
from polos_service.models.openai.chat_content import REASONING_FIELDS, content_of, reasoning_of
from polos_service.models.openai.chat_envelope import opened
from polos_service.models.openai.chat_errors import error_of
from polos_service.models.openai.chat_report import usage_told
from polos_service.models.openai.reasoning_details import FIELD as DETAILS
from polos_service.models.openai.reasoning_details import ReasoningDetails

_READ = frozenset(
    {"role", "content", "refusal", "tool_calls", "function_call", DETAILS, *REASONING_FIELDS}
)
_FOR_READERS = frozenset(
    {
        *("annotations", "citations", "search_results", "images", "audio", "logprobs"),
        *("token_ids", "name", "index", "finish_reason", "stop_reason", "usage"),
        *("padding", "obfuscation"),
    }
)
"""Members of a delta that tell something about the answer, and do not go back."""

_STATES = {name: {"field": name} for name in REASONING_FIELDS}
"""The state of reasoning: the member in which the server told it, and wants it back if at all."""

_IN_CONTENT = {"part": "thinking"}
"""The state of reasoning that was a part of the content."""

_SPOKEN = {"role", "content"}
"""The members of a delta that only says something."""

_SAID_IN: Mapping[str, type[Text | Reasoning | Call]] = {
    **dict.fromkeys(("content", "refusal"), Text),
    **dict.fromkeys((DETAILS, *REASONING_FIELDS), Reasoning),
    **dict.fromkeys(("tool_calls", "function_call"), Call),
}
"""What the members of a message say."""

_KNOWN = _READ | _FOR_READERS


class Chunks:
    """Reads the chunks of one answer.

    Attributes:
        over: True once `[DONE]` came.

    """

    def __init__(
        self, draft: Draft, failures: Failures, tools: Sequence[Mapping[str, Any]] = ()
    ) -> None:
        """Read into the draft; `tools` are those that the model may call."""
        self.over = False
        self._draft = draft
        self._failures = failures
        self._calls = Calls(draft, failures, tools)
        self._details = ReasoningDetails(draft)
        self._index: object = 0
        self._by_message = False
        self._grows = False
        self._refused = False
        self._odd = ""
        # The newest usage of a text: servers that tell one with each token are read as fast.
        self._counted: Any = None
        draft.before_answer.append(self._settle)

    def take(self, data: bytes) -> Pieces:
        """Take the data of an event.

        Raises:
            StepError: it reports an error, a call or a text in it cannot be understood, or it
                exceeds a bound.

        """
        try:
            chunk = orjson.loads(data)
        except ValueError:
            chunk = data  # dealt with below, so that no failure has this one as its context
        try:
            (choice,) = chunk["choices"]
            delta = choice["delta"]
            text = delta.get("content")
            ordinary = (
                choice.get("finish_reason") is None
                and choice.get("index", 0) == self._index
                and "error" not in chunk
                and "error" not in choice
            )
        except (LookupError, TypeError, ValueError, AttributeError):
            ordinary = False
        if ordinary:
            counted = chunk.get("usage")
            if text and type(text) is str and (len(delta) == 1 or delta.keys() == _SPOKEN):
                if counted:
                    self._counted = counted
                return self._draft.text(text), None
            if (
                not counted
                and "message" not in choice
                and "usage" not in choice
                and "x_groq" not in chunk
            ):
                if len(delta) == 1:
                    thought = delta.get("reasoning_content")
                    if thought and type(thought) is str:
                        return "", self._draft.reasoning(thought, _STATES["reasoning_content"])
                    if calls := delta.get("tool_calls"):
                        self._calls.take(calls)
                        return "", None
                return self._delta(delta)
        return self._value(chunk)

    def _unusual(self, data: bytes) -> Pieces:
        """Take data that is not plain JSON."""
        told = data.strip()
        if told == b"[DONE]":
            return self._value(DONE)
        found = None
        with contextlib.suppress(ValueError):
            found = values(told)
        if found is not None:
            return self._all(found)
        if told.startswith((b"{", b"[")):
            what = f"an event of {len(told)} bytes is not valid JSON"
            raise self._failures.malformed(what)
        self._note("the data of an event", told.decode(errors="replace"))
        return NOTHING

    def _all(self, found: Sequence[Any]) -> Pieces:
        return joined([self._value(one) for one in found])

    def _value(self, value: Any) -> Pieces:
        if isinstance(value, dict):
            return self._chunk(value)
        if isinstance(value, bytes):
            return self._unusual(value)
        if isinstance(value, list):
            return self._all([one for one in value if isinstance(one, dict)])
        if value == DONE:
            self.over = True
            self._end_without_reason()
        return NOTHING

    def _chunk(self, chunk: dict[str, Any]) -> Pieces:
        if not chunk.get("choices"):
            chunk = opened(chunk)
        choices = chunk.get("choices")
        if not choices or "error" in chunk or "errors" in chunk:
            self._check(error_of(chunk))
        if (
            "choices" not in chunk
            and not self._draft.begun
            and (failure := self._failures.another_api(chunk))
        ):
            raise failure
        choice = self._pick(choices)
        if "error" in choice:
            self._check(error_of({"choices": choices, "error": choice["error"]}))
        self._count()
        if isinstance(groq := chunk.get("x_groq"), dict):
            self._check(groq.get("error"))
        if chunk.get("usage") or groq or "usage" in choice:
            self._draft.usage = usage_told(chunk, choice) or self._draft.usage
        delta = choice.get("delta")
        if type(delta) is dict and "message" not in choice:
            told = self._delta(delta)
        else:
            told = self._delta(self._said(choice))
        reason = finish_reason(choice.get("finish_reason"), "finish_reason", self._failures)
        if reason is not None:
            self._finish(reason)
        elif chunk.get("object") == "chat.completion" and "delta" not in choice:
            self._end_without_reason()
        return told

    def _check(self, error: object) -> None:
        if error:
            raise self._failures.told(error)

    def _pick(self, choices: Any) -> dict[str, Any]:
        """Return the choice that is read, the same in every chunk; empty if it is not there."""
        if type(choices) is list and len(choices) == 1 and type(choices[0]) is dict:
            choice = choices[0]
            if choice.get("index") == self._index:
                return choice
        if isinstance(choices, dict):
            choices = [choices]
        if not isinstance(choices, list):
            self._note("choices", choices)
            return {}
        entries = [one for one in choices if isinstance(one, dict)]
        if choices and not entries:
            self._note("choices[0]", choices[0])
        found = next((one for one in entries if self._is_ours(one.get("index"))), None)
        if found is None and entries and not self._draft.begun:
            found, self._index = entries[0], entries[0].get("index")
        return found or {}

    def _is_ours(self, index: object) -> bool:
        return index is None or index == self._index or str(index) == str(self._index)

    def _said(self, choice: dict[str, Any]) -> dict[str, Any]:
        """Return what stands in the place of a delta, if the delta says nothing."""
        delta, message = choice.get("delta"), choice.get("message")
        if isinstance(delta, str):
            delta = {"content": delta}
        if isinstance(delta, dict) and any(delta[name] for name in delta if name != "role"):
            return delta
        if isinstance(message, dict):
            self._by_message = self._by_message or not self._draft.begun
            if not self._draft.begun:
                return message
            return self._missing(message, ends=choice.get("finish_reason") is not None)
        for name, value in (("delta", delta), ("message", message)):
            if not isinstance(value, dict):
                self._note(f"choices[0].{name}", value)
        return {"content": choice["text"]} if "text" in choice else {}

    def _missing(self, message: dict[str, Any], *, ends: bool) -> dict[str, Any]:
        """Return what a message adds to what was said before it.

        It holds all of the answer so far, or, if the answer comes in messages, a piece of it.
        `ends` is whether it is the last one.
        """
        missing = {}
        for name, value in message.items():
            kind = _SAID_IN.get(name)
            if kind is None or not self._draft.has(kind):
                missing[name] = value
            elif name == "tool_calls" and not self._by_message:
                self._calls.complete(value)
            elif rest := self._rest(kind, value, ends=ends):
                missing[name] = rest
        return missing

    def _rest(self, kind: type[Text | Reasoning | Call], value: Any, *, ends: bool) -> Any:
        """Return what a member of a message adds; empty or None if nothing."""
        rest = self._draft.rest(kind, value) if isinstance(value, str) else None
        if rest is None or not self._by_message:
            return value if self._by_message else rest
        self._grows = self._grows or bool(rest)
        # The same again is a repetition where messages grow, and at the end; else a piece.
        return rest if self._grows or ends else value

    def _delta(self, delta: dict[str, Any]) -> Pieces:
        reasoning = self._reasoning(delta)
        text = ""
        content = delta.get("content")
        if content is not None and content != "":
            if type(content) is str:
                text = self._draft.text(content)
            else:
                text, thought = self._content(content)
                reasoning = thought if reasoning is None else reasoning + (thought or "")
        if refusal := delta.get("refusal"):
            self._refused = True
            text += self._draft.text(content_of(refusal).text)
        if calls := delta.get("tool_calls"):
            self._calls.take(calls)
        if call := delta.get("function_call"):
            self._calls.take_legacy(call)
        if not _KNOWN.issuperset(delta):
            text += self._unknown(delta)
        return text, reasoning

    def _content(self, told: Any) -> Pieces:
        """Take content that is not a text; return what readers get of text and reasoning."""
        content = content_of(told)
        reasoning = content.reasoning
        if reasoning is not None:
            reasoning = self._draft.reasoning(reasoning, _IN_CONTENT)
        self._refused = self._refused or content.refused
        self._note("choices[0].delta.content", content.odd)
        return self._draft.text(content.text), reasoning

    def _reasoning(self, delta: dict[str, Any]) -> str | None:
        shown = self._details.take(delta[DETAILS]) if delta.get(DETAILS) else None
        for name in REASONING_FIELDS:
            if told := delta.get(name):
                piece = told if type(told) is str else reasoning_of(told)
                return self._draft.reasoning(piece, _STATES[name])
        return self._draft.reasoning(shown, _STATES["reasoning"]) if shown else shown

    def _unknown(self, delta: dict[str, Any]) -> str:
        """Take the members that we do not know; return the text of one that stands for content.

        The others are kept: some servers want them back with the message.
        """
        unknown = {name: delta[name] for name in delta.keys() - _KNOWN}
        if call := unknown.pop("tool_call", None):
            self._calls.take(call)
        text = unknown.pop("text", None) if "content" not in delta else None
        self._draft.merge(self._draft.state, unknown)
        return self._draft.text(content_of(text).text) if text else ""

    def _finish(self, reason: FinishReason.ValueType) -> None:
        """Take a finish reason. A gateway that adds an end of its own calls it "stop"."""
        draft = self._draft
        if not (draft.whole and draft.finish in VOIDING and reason not in VOIDING):
            draft.finish = reason

    def _end_without_reason(self) -> None:
        """Take `[DONE]` for the end of an answer that is whole, though no finish reason came."""
        said = self._draft.has(Text) or self._calls.are_any() or self._odd
        if self._draft.finish is None and said and self._calls.are_whole():
            self._draft.finish = FinishReason.FINISH_REASON_STOP

    def _count(self) -> None:
        """Take the usage that came with the text so far."""
        if self._counted:
            self._draft.usage = usage_told({"usage": self._counted}, {}) or self._draft.usage
            self._counted = None

    def _settle(self) -> None:
        """Look at the answer as a whole, once nothing follows."""
        self._count()
        self._calls.settle()
        draft = self._draft
        stopped = draft.finish == FinishReason.FINISH_REASON_STOP
        if self._refused and stopped and not draft.calls:
            draft.finish = FinishReason.FINISH_REASON_REFUSAL
        if draft.calls or any(draft.has(kind) for kind in (Text, Reasoning)):
            return
        if self._odd:
            raise self._failures.malformed(
                f"it contains no text and no call, and {self._odd}", retryable=False
            )
        if draft.finish == FinishReason.FINISH_REASON_TOOL_CALLS:
            raise self._failures.malformed("it ends with a tool call but contains none")

    def _note(self, field: str, value: object) -> None:
        """Remember the first field that was not understood. None stands for nothing."""
        if value is not None and not self._odd:
            self._odd = f"{field} is {kind_of(value)}, which cannot be read"
