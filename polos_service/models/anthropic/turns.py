"""The Messages API: a conversation in the turns that it wants.

User and assistant take turns, beginning with the user. The results of an assistant's calls
stand first in the turn that follows: one for each call, and none without. System prompts stand
outside the turns.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

from polos_service.models.anthropic.blocks import (
    Block,
    call_block,
    reasoning_block,
    result_block,
    said_block,
    text_block,
    word,
)
from polos_service.models.messages import Call, Media, Message, Part, Reasoning, Result, Text

OPENING = "(The conversation begins.)"
"""What the user says where a conversation has no words of one before the assistant speaks."""

UNANSWERED = "There is no result: the tool was not called."
"""The result of a call that the conversation has none of."""


def system_of(messages: Iterable[Message], provider: str) -> list[Block]:
    """Return the system prompts, wherever they stand: older models take none among the turns."""
    prompts = (one for message in messages if _is_system(message) for one in message.parts)
    blocks = (text_block(part, provider) for part in prompts if isinstance(part, Text))
    return [block for block in blocks if block is not None]


def turns_of(messages: Iterable[Message], provider: str) -> list[dict[str, Any]]:
    """Return the conversation as the API takes it, without its system prompts.

    Raises:
        StepError: it has a file of a kind that the API does not take.

    """
    made: list[dict[str, Any]] = []
    ids = _Ids()
    for turn in _alternating(messages, provider):
        if turn.role == "assistant":
            content = list(_answer(turn.parts, ids, provider))
        else:
            content = list(_reply(turn.parts, ids, provider))
        made.append({"role": turn.role, "content": content})
    if not made or made[0]["role"] == "assistant":
        made.insert(0, {"role": "user", "content": [{"type": "text", "text": OPENING}]})
    if ids.waiting:
        made.append({"role": "user", "content": list(_reply((), ids, provider))})
    last = made[-1]
    if last["role"] == "assistant" and last["content"][-1]["type"] == "text":
        last["content"][-1]["text"] = last["content"][-1]["text"].rstrip()
    return made


@dataclass
class _Turn:
    role: Literal["user", "assistant"]
    parts: list[Part] = field(default_factory=list)


def _alternating(messages: Iterable[Message], provider: str) -> list[_Turn]:
    """Return what is said, without what cannot be sent; neighbours of one role are one turn."""
    turns: list[_Turn] = []
    for message in messages:
        role: Literal["user", "assistant"] = "assistant" if message.role == "assistant" else "user"
        parts = [] if _is_system(message) else _sendable(message.parts, role, provider)
        if not parts:
            continue
        if not turns or turns[-1].role != role:
            turns.append(_Turn(role))
        turns[-1].parts += parts
    return turns


def _sendable(parts: Sequence[Part], role: str, provider: str) -> list[Part]:
    """Return the parts that make a block; an answer may not end with its reasoning."""
    kept: list[Part] = []
    for part in parts:
        match part:
            case Text():
                sent = text_block(part, provider) is not None
            case Reasoning():
                sent = role == "assistant" and reasoning_block(part, provider) is not None
            case Call():
                sent = role == "assistant"
            case Result():
                sent = role == "user"
            case Media():
                sent = True
        if sent:
            kept.append(part)
    while kept and isinstance(kept[-1], Reasoning) and _thinks(kept[-1], provider):
        kept.pop()
    return kept


def _thinks(part: Reasoning, provider: str) -> bool:
    block = reasoning_block(part, provider)
    return block is not None and block["type"] in ("thinking", "redacted_thinking")


class _Ids:
    """The ids of calls: the API takes no other characters than `word` leaves, and none twice.

    Attributes:
        waiting: the ids of the calls without a result, by what the conversation calls them.

    """

    def __init__(self) -> None:
        self.waiting: dict[str, list[str]] = {}
        self._used: dict[str, int] = {}

    def begin(self, call_id: str) -> str:
        """Return the id of a call, which waits for its result from now on."""
        sent = base = word(call_id)
        while sent in self._used:
            self._used[base] += 1
            sent = f"{base}_{self._used[base]}"
        self._used[sent] = 1
        self.waiting.setdefault(call_id, []).append(sent)
        return sent

    def end(self, call_id: str) -> str | None:
        """Return the id of a call that has its result now; None if no call waits for one."""
        waiting = self.waiting.get(call_id)
        if not waiting:
            return None
        if len(waiting) == 1:
            del self.waiting[call_id]
        return waiting.pop(0)


def _answer(parts: Iterable[Part], ids: _Ids, provider: str) -> Iterator[Block]:
    """Yield the blocks of an assistant's turn."""
    for part in parts:
        match part:
            case Call():
                yield call_block(part, ids.begin(part.id), provider)
            case Reasoning():
                yield reasoning_block(part, provider) or {}
            case Media():
                # The API takes media from users and tools only.
                yield {"type": "text", "text": f"(The assistant showed: {part.type}.)"}
            case Text():
                yield text_block(part, provider) or {}


def _reply(parts: Sequence[Part], ids: _Ids, provider: str) -> Iterator[Block]:
    """Yield the blocks of the turn after an assistant's: the results of its calls, then the rest.

    A result that no call waits for is told in words.
    """
    rest: list[Text | Media] = []
    for part in parts:
        if isinstance(part, Result):
            call_id = ids.end(part.call_id)
            if call_id is not None:
                yield result_block(part, call_id, provider)
            else:
                rest += [Text(text="The result of a tool call:"), *part.content]
        elif isinstance(part, Text | Media):
            rest.append(part)
    for call_id in [one for ids_of_call in ids.waiting.values() for one in ids_of_call]:
        missing = Result(call_id=call_id, content=(Text(text=UNANSWERED),), failed=True)
        yield result_block(missing, call_id, provider)
    ids.waiting.clear()
    for said in rest:
        if block := said_block(said, provider):
            yield block


def _is_system(message: Message) -> bool:
    return message.role in ("system", "developer")
