"""Chat completions: the chunks of an answer, or the whole of it, as every server sends them.

What is unknown is skipped, and what can be taken is taken. An odd value fails the answer only
if nothing else was said: then the message names the field.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import orjson

from polos.v1.event_pb2 import FinishReason
from polos_service.models.draft import NOTHING, Delta, Draft
from polos_service.models.failures import Failures
from polos_service.models.lenient import DONE, values
from polos_service.models.messages import Call, Reasoning, Text
from polos_service.models.openai.chat_calls import Calls
from polos_service.models.openai.chat_content import REASONING_FIELDS, content_of, reasoning_of
from polos_service.models.openai.chat_words import (
    CUT,
    FAILED,
    FINISH_REASONS,
    error_of,
    usage_told,
    word_of,
)
from polos_service.models.openai.odd import held
from polos_service.models.openai.reasoning_details import FIELD as DETAILS
from polos_service.models.openai.reasoning_details import ReasoningDetails

_READ = frozenset(
    {"role", "content", "refusal", "tool_calls", "function_call", DETAILS, *REASONING_FIELDS}
)
_FOR_READERS = frozenset(
    "annotations citations search_results images audio logprobs token_ids name index "
    "finish_reason stop_reason usage padding obfuscation".split()
)
"""Members of a delta that tell something about the answer, and do not go back."""

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
        self._picked = False
        self._by_delta = False
        self._refused = False
        self._odd = ""
        draft.before_answer.append(self._settle)

    def take(self, data: bytes) -> Delta:
        """Take the data of an event.

        Raises:
            StepError: it reports an error, a call or a text in it cannot be understood, or it
                exceeds a bound.

        """
        try:
            chunk = orjson.loads(data)
        except ValueError:
            return self._unusual(data)
        try:
            (choice,) = chunk["choices"]
            delta = choice["delta"]
            text = delta.get("content")
            plain = (
                len(delta) == 1
                and type(text) is str
                and choice.get("finish_reason") is None
                and choice.get("index", 0) == self._index
                and not (chunk.get("usage") or chunk.get("error") or choice.get("error"))
            )
        except (LookupError, TypeError, ValueError, AttributeError):
            plain = False
        if plain:
            return Delta(self._draft.text(text))
        return self._value(chunk)

    def _unusual(self, data: bytes) -> Delta:
        """Take data that is not plain JSON."""
        told = data.strip()
        if told == b"[DONE]":
            return self._value(DONE)
        try:
            found = values(told)
        except ValueError:
            if told.startswith((b"{", b"[")):
                what = f"an event of {len(told)} bytes is not valid JSON"
                raise self._failures.malformed(what) from None
            self._note("the data of an event", told.decode(errors="replace"))
            return NOTHING
        return self._all(found)

    def _all(self, found: Sequence[Any]) -> Delta:
        deltas = [self._value(one) for one in found]
        thoughts = [delta.reasoning for delta in deltas if delta.reasoning is not None]
        text = "".join(delta.text for delta in deltas)
        return Delta(text, "".join(thoughts) if thoughts else None)

    def _value(self, value: Any) -> Delta:
        if isinstance(value, dict):
            return self._chunk(value)
        if isinstance(value, list):
            return self._all([one for one in value if isinstance(one, dict)])
        if value == DONE:
            self.over = True
            self._end_without_reason()
        return NOTHING

    def _chunk(self, chunk: dict[str, Any]) -> Delta:
        if (error := error_of(chunk)) is not None:
            raise self._failures.told(error)
        choice = self._pick(chunk.get("choices"))
        if error := choice.get("error"):
            raise self._failures.told(error)
        if (usage := usage_told(chunk, choice)) is not None:
            self._draft.usage = usage
        delta = self._delta(self._said(choice)) if choice else NOTHING
        if word := word_of(choice.get("finish_reason")):
            self._finish(word)
        elif chunk.get("object") == "chat.completion":
            self._end_without_reason()
        return delta

    def _pick(self, choices: Any) -> dict[str, Any]:
        """Return the choice that is read, the same in every chunk; empty if it is not there."""
        if isinstance(choices, dict):
            choices = [choices]
        if not isinstance(choices, list):
            self._note("choices", choices)
            return {}
        entries = [one for one in choices if isinstance(one, dict)]
        if choices and not entries:
            self._note("choices[0]", choices[0])
        found = next((one for one in entries if self._is_ours(one.get("index"))), None)
        if found is None and entries and not (self._picked or self._draft.begun):
            found, self._index = entries[0], entries[0].get("index")
        self._picked = self._picked or found is not None
        return found or {}

    def _is_ours(self, index: object) -> bool:
        return index is None or index == self._index or str(index) == str(self._index)

    def _said(self, choice: dict[str, Any]) -> dict[str, Any]:
        """Return the delta of a choice, or what stands in its place."""
        delta, message = choice.get("delta"), choice.get("message")
        if isinstance(delta, str):
            delta = {"content": delta}
        if isinstance(delta, dict) and any(delta.get(name) for name in delta if name != "role"):
            self._by_delta = True
            return delta
        if isinstance(message, dict):
            return self._missing(message) if self._by_delta else message
        for name, value in (("delta", delta), ("message", message)):
            if not isinstance(value, dict):
                self._note(f"choices[0].{name}", value)
        return {"content": choice["text"]} if "text" in choice else {}

    def _missing(self, message: dict[str, Any]) -> dict[str, Any]:
        """Return what of a whole message the deltas before it did not say."""
        said = {
            Text: {"content", "refusal"},
            Reasoning: {DETAILS, *REASONING_FIELDS},
            Call: {"tool_calls", "function_call"},
        }
        told = {name for kind, names in said.items() if self._draft.has(kind) for name in names}
        return {name: value for name, value in message.items() if name not in told}

    def _delta(self, delta: dict[str, Any]) -> Delta:
        reasoning = self._reasoning(delta)
        text = ""
        if (told := delta.get("content")) is not None:
            content = content_of(told)
            text = self._draft.text(content.text)
            if content.reasoning is not None:
                reasoning = (reasoning or "") + self._think(content.reasoning, {"part": "thinking"})
            self._refused = self._refused or content.refused
            self._note("choices[0].delta.content", content.odd)
        if (told := delta.get("refusal")) is not None:
            self._refused = self._refused or bool(told)
            text += self._draft.text(content_of(told).text)
        if told := delta.get("tool_calls"):
            self._calls.take(told)
        if told := delta.get("function_call"):
            self._calls.take_legacy(told)
        if not delta.keys() <= _KNOWN:
            self._keep(delta)
        return Delta(text, reasoning)

    def _reasoning(self, delta: dict[str, Any]) -> str | None:
        name = next((name for name in REASONING_FIELDS if delta.get(name)), None)
        shown = self._details.take(delta[DETAILS]) if delta.get(DETAILS) else None
        if name is not None:
            return self._think(reasoning_of(delta[name]), {"field": name})
        return self._think(shown, {"field": "reasoning"}) if shown else shown

    def _think(self, piece: str, state: dict[str, str]) -> str:
        piece = self._draft.reasoning(piece)
        for name, value in state.items():
            self._draft.keep(name, value)
        return piece

    def _keep(self, delta: dict[str, Any]) -> None:
        """Keep the members that we do not know: some servers want them back with the message."""
        unknown = {name: delta[name] for name in delta.keys() - _KNOWN}
        self._draft.merge(self._draft.state, unknown)

    def _finish(self, word: str) -> None:
        if word in FAILED:
            raise self._failures.told({"message": f"finish_reason is {word!r}"})
        if word in CUT:
            raise self._failures.cut_short(f"the server gave it up ({word})")
        reason = FINISH_REASONS.get(word, FinishReason.FINISH_REASON_UNSPECIFIED)
        self._draft.finish = reason

    def _end_without_reason(self) -> None:
        """Take `[DONE]` for the end of an answer that is whole, though no finish reason came."""
        said = self._draft.has(Text) or self._draft.calls or self._odd
        if self._draft.finish is None and said and self._calls.are_whole():
            self._draft.finish = FinishReason.FINISH_REASON_STOP

    def _settle(self) -> None:
        """Look at the answer as a whole, once nothing follows."""
        self._calls.settle()
        draft = self._draft
        stopped = draft.finish == FinishReason.FINISH_REASON_STOP
        if self._refused and stopped and not draft.calls:
            draft.finish = FinishReason.FINISH_REASON_REFUSAL
        if draft.calls or any(draft.has(kind) for kind in (Text, Reasoning)):
            return
        if self._odd:
            raise self._failures.malformed(f"it says nothing, and {self._odd}", retryable=False)
        if draft.finish == FinishReason.FINISH_REASON_TOOL_CALLS:
            raise self._failures.malformed("it ends in a tool call, and has none")

    def _note(self, field: str, value: object) -> None:
        """Remember the first field that was not understood. None stands for nothing."""
        if value is not None and not self._odd:
            self._odd = f"{field} is {held(value)}, which cannot be read"
