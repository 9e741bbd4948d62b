"""The Messages API: the content blocks of an answer, growing."""

from __future__ import annotations

from collections.abc import Mapping
from io import StringIO
from typing import Any

import orjson

from polos_service.models.anthropic.blocks import BLOCK
from polos_service.models.arguments import Arguments, parsed
from polos_service.models.draft import Draft
from polos_service.models.lenient import writable
from polos_service.models.messages import Call, Reasoning, Text

_PLACED: Mapping[type[Text | Reasoning | Call], tuple[str, ...]] = {
    Text: ("type", "text"),
    Reasoning: ("thinking",),
    Call: ("type", "id", "name", "input"),
}
"""The members of a block that have a place in the part that it becomes. All others are state
of the part, and go back as they came."""

_KINDS: Mapping[object, type[Text | Reasoning | Call]] = {
    "text": Text,
    "thinking": Reasoning,
    "tool_use": Call,
}
"""What a block becomes. One of another kind is understood by the provider only: it becomes a
part of reasoning whose state is the whole block."""


class GrowingBlock:
    """A content block that grows.

    Attributes:
        part: the part of the answer that it becomes.
        opaque: whether only the provider understands it.

    """

    def __init__(self, draft: Draft, told: Mapping[str, Any]) -> None:
        """Begin a block, without the text that stands in it already.

        Raises:
            StepError: a bound is exceeded.

        """
        kind = _KINDS.get(told.get("type"))
        self._draft = draft
        self.opaque = kind is None
        self.part = draft.call() if kind is Call else draft.begin(kind or Reasoning)
        placed = _PLACED[kind] if kind else ()
        self.keep(
            {
                name: value
                for name, value in told.items()
                if name not in placed and (value is not None or self.opaque)
            }
        )
        self._given = told.get("input")
        self._content = self.part.content if kind is Call else StringIO()
        self._arguments = Arguments(self._content, draft.count)
        if kind is Call:
            self.part.id = draft.count(str(told.get("id") or ""))
            self.part.name = draft.count(str(told.get("name") or ""))

    def add_arguments(self, fragment: object) -> None:
        """Add to the arguments of a call; some servers send the value, not its JSON text."""
        self._arguments.add(fragment if isinstance(fragment, str) else _json(fragment))

    def grow(self, delta: Mapping[str, Any]) -> None:
        """Add to a block that only the provider understands: texts and lists are continued."""
        if (fragment := delta.get("partial_json")) is not None:
            self.add_arguments(fragment)
        self.keep({one: delta[one] for one in delta if one not in ("type", "partial_json")})

    def keep(self, told: Mapping[str, Any]) -> None:
        """Add to what goes back to the provider: texts and lists are continued."""
        if told:
            self._draft.merge(self.part.state, {BLOCK: told})

    def sign(self, signature: object) -> None:
        """Keep the signature of a block of reasoning; it comes as a whole."""
        self.part.state.get(BLOCK, {}).pop("signature", None)
        self.keep({"signature": signature})

    def is_whole(self) -> bool:
        """Return whether the arguments are complete, as far as can be told."""
        return self._arguments.is_whole()

    def settle(self) -> None:
        """Put the arguments in their place, once nothing follows.

        Those of the block's beginning count if no fragments came. A block of the provider's
        own whose arguments are cut is left out: the provider would refuse it.
        """
        if self.part.kind is Call:
            if self._given and not self._arguments.begun:
                self.add_arguments(self._given)
            for further in self._arguments.end():
                call = self._draft.call()
                call.name = self.part.name
                call.content.write(further)
        elif self.opaque and self._arguments.begun:
            self._arguments.end()
            arguments = parsed(self._content.getvalue())
            block = self.part.state.pop(BLOCK, {})
            if arguments is not None:
                self.part.state[BLOCK] = {**block, "input": arguments}


def _json(value: object) -> str:
    return orjson.dumps(writable(value)).decode()
