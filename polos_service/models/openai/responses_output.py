"""The Responses API: the items of an answer while they grow.

What was streamed is never said again. What was not streamed is taken from the events that
repeat it: the end of a text, of an item, of the response.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from heapq import nlargest
from io import StringIO
from typing import Any

import orjson

from polos_service.models.arguments import parsed, unwrapped
from polos_service.models.draft import NOTHING, Delta, Draft, Growing, joined
from polos_service.models.failures import Failures
from polos_service.models.halves import whole
from polos_service.models.messages import Reasoning, Text
from polos_service.models.openai.responses_items import (
    CALL,
    MESSAGE,
    REASONING,
    is_item,
    joint,
    kept,
    refuses,
    texts,
    without,
)

MAX_ITEMS = 1024
"""Output items of one answer."""

MAX_REPEATED = 4
"""Texts that are cut out of one event that repeats them."""

REPEATED_CHARACTERS = 16 * 1024
"""Characters of a text that is worth to be cut out."""

Place = tuple[str, Any]
"""Which of the texts of an item: the member that holds it, and its index there."""


@dataclass(slots=True, eq=False)
class Item:
    """An output item, growing.

    Attributes:
        type: in the API's words.
        parts: what it is in the answer; the last one grows.
        index: its position in the output; None if the provider does not tell.
        id: in the provider's words; some servers change it from event to event.
        order: the number of the part that grows, of all parts.
        place: which of its texts grows; None before the first.
        start: where in the last part that text begins.
        closed: whether the provider sent the whole item.

    """

    type: str
    parts: list[Growing]
    index: int | None
    id: str
    order: int
    place: Place | None = None
    start: int = 0
    closed: bool = False

    @property
    def content(self) -> StringIO:
        """The text that grows."""
        return self.parts[-1].content

    @property
    def length(self) -> int:
        """How many characters it has."""
        return self.content.tell()

    def read(self, start: int) -> str:
        """Return it from that character on."""
        if start <= self.length // 2:
            return self.content.getvalue()[start:]
        # The time that this takes depends on what is read, not on what was said before.
        self.content.seek(start)
        return self.content.read()


class UnsaidError(LookupError):
    """What an event is said to repeat was not streamed: it only looks like another text."""


class Items:
    """The output of one response.

    Attributes:
        refused: whether any of it is a refusal.

    """

    def __init__(self, draft: Draft, failures: Failures) -> None:
        self.refused = False
        self._draft = draft
        self._failures = failures
        self._items: list[Item] = []
        self._by_index: dict[int, Item] = {}
        self._by_id: dict[str, Item] = {}
        self._parts = 0
        self._newest: dict[str, Item] = {}  # by type, the item that spoke last

    def begin(self, item_type: str, index: object, item_id: object) -> Item:
        """Begin an item.

        Raises:
            StepError: there are too many.

        """
        if len(self._items) == MAX_ITEMS:
            raise self._failures.too_large(f"{MAX_ITEMS} output items")
        part = self._begin_part(item_type)
        known = self._draft.count(item_id) if isinstance(item_id, str) else ""
        place = index if isinstance(index, int) else None
        item = Item(item_type, [part], place, known, self._parts)
        self._items.append(item)
        if place is not None:
            self._by_index[place] = item
        if known:
            self._by_id[known] = item
        return item

    def find(self, item_type: str, index: object, item_id: object) -> Item:
        """Return the item that an event is about; begin one if there is none.

        The index is the best sign, but some servers tell none, or 0 for all items; ids are
        missing or change from event to event at others.
        """
        known = item_id if isinstance(item_id, str) else ""
        at = self._by_index.get(index) if isinstance(index, int) else None
        last = self._items[-1] if self._items and not isinstance(index, int) else None
        first = at if at is not None and at.id == known else None
        for item in (first, self._by_id.get(known), at, last):
            if item is None or item.type != item_type:
                continue
            if not item.closed or (known and item.id == known):
                return item
        return self.begin(item_type, index, item_id)

    def say(self, item: Item, piece: str, place: Place | None) -> Delta:
        """Let an item say more, in the text at that place; return what readers get of it."""
        newest = self._newest.get(item.type, item)
        if newest.order > item.order:
            # Readers have it in the order in which it came: so has the answer.
            item.parts[len(item.parts) if item.length else -1 :] = [self._begin_part(item.type)]
            item.start, item.order = 0, self._parts
        elif piece and item.place != place and item.length:
            piece = joint(item.type) + piece
            item.start = item.length + len(joint(item.type))
        if piece:
            item.place = place
            self._newest[item.type] = item
        self._draft.resume(item.parts[-1])
        if item.type == REASONING:
            return Delta(reasoning=self._draft.reasoning(piece))
        return Delta(self._draft.text(piece))

    def end_text(self, item: Item, text: str | int, place: Place) -> Delta:
        """Take the end of a text, which repeats it; return what of it was not said yet.

        Raises:
            UnsaidError: it is a number, and nothing was streamed.

        """
        if isinstance(text, int):
            _check_said(item)
            return NOTHING
        text = whole(text)
        if item.length >= len(text) and item.read(item.length - len(text)) == text:
            return NOTHING
        if item.place not in (None, place):
            return self.say(item, text, place)
        known = item.length - item.start
        if known <= len(text) and text.startswith(item.read(item.start)):
            return self.say(item, text[known:], place)
        return NOTHING

    def end(self, item: Item, told: Mapping[str, Any]) -> Delta:
        """Take a whole item: what was not said of it, and what is to go back.

        Raises:
            UnsaidError: there is a number in place of a text, and nothing was streamed.

        """
        if any(isinstance(one, int) for one in (told.get("arguments"), *texts(told))):
            _check_said(item)
        item.closed = True
        delta = NOTHING
        if isinstance(told.get("content"), str):
            told = {**told, "content": [{"type": "output_text", "text": told["content"]}]}
        if item.type == CALL:
            self.describe(item, told)
        elif item.type in (MESSAGE, REASONING):
            self.refused |= refuses(told)
            delta = self._rest(item, told)
        if len(item.parts) == 1:  # an item in pieces does not go back as a whole
            self._draft.resume(item.parts[0])
            self._draft.keep("item", kept(told, item.content))
        return delta

    def describe(self, item: Item, told: Mapping[str, Any]) -> None:
        """Take what is told of a call: its id, its name, all of its arguments."""
        call = item.parts[0]
        call.id = self._draft.count(told.get("call_id") or "") or call.id
        call.name = self._draft.count(told.get("name") or "") or call.name
        arguments = told.get("arguments")
        if isinstance(arguments, dict):
            arguments = orjson.dumps(arguments).decode()
        if isinstance(arguments, str) and arguments and arguments != call.content.getvalue():
            call.content = StringIO()
            call.content.write(self._draft.count(arguments))

    def end_all(self, output: object) -> Delta:
        """Take the whole output; return what of it was not said yet.

        Raises:
            TypeError: it cannot be read, and nothing else was told.

        """
        told = [one for one in output if is_item(one)] if isinstance(output, list) else []
        if output and not told and not self._items:
            raise TypeError
        closed = sum(item.closed for item in self._items)
        if closed == len(self._items) and closed >= len(told):
            return NOTHING
        same, deltas = self._same(told), []
        for index, one in enumerate(told):
            item = same.get(index) or self.begin(one["type"], index, one.get("id"))
            item.index = index
            if not item.closed:
                deltas.append(self.end(item, one))
        return joined(deltas)

    def end_calls(self) -> None:
        """Take the arguments of calls for what they mean, once nothing follows.

        Raises:
            StepError: a call was begun and not ended: the response was cut further up.

        """
        for item in self._items:
            if item.type != CALL:
                continue
            told = item.content.getvalue()
            if not item.closed and parsed(told) is None:
                raise self._failures.cut_short("a tool call is incomplete")
            if (meant := unwrapped(told)) != told:
                item.parts[0].content = StringIO()
                item.content.write(meant)

    def arrange(self) -> None:
        """Put the parts into the order of the output, if what was said keeps its own order."""
        indexes = {item.index for item in self._items if item.index is not None}
        if len(indexes) != len(self._items) or any(len(item.parts) > 1 for item in self._items):
            return
        ordered = sorted(self._items, key=lambda item: item.index or 0)
        begun = sorted(self._items, key=lambda item: item.order)
        for kind in (MESSAGE, REASONING):
            before, after = (
                [item for item in order if item.type == kind and item.length]
                for order in (begun, ordered)
            )
            if before != after:
                return
        self._draft.arrange([item.parts[0] for item in ordered])

    def spared(self, data: bytes) -> bytes:
        """Return a large event without the texts in it that were streamed."""
        streamed = [item for item in self._items if len(item.parts) == 1 and item.start == 0]
        largest = nlargest(MAX_REPEATED, streamed, key=lambda item: item.length)
        for item in streamed:
            if item in largest and item.length >= REPEATED_CHARACTERS:
                data = without(data, item.content.getvalue())
        return data

    def _begin_part(self, item_type: str) -> Growing:
        self._parts += 1
        if item_type == CALL:
            return self._draft.call()
        # What is not known has its place as well: a text without words.
        return self._draft.begin(Reasoning if item_type == REASONING else Text)

    def _rest(self, item: Item, told: Mapping[str, Any]) -> Delta:
        """Say what was not said of an item."""
        known = [whole(one) for one in texts(told) if isinstance(one, str)]
        if not known:
            return NOTHING
        said = "".join([part.content.getvalue() for part in item.parts])
        full = joint(item.type).join(known)
        if len(full) > len(said) and full.startswith(said):
            return self.say(item, full[len(said) :], item.place)
        return NOTHING

    def _same(self, output: Sequence[Mapping[str, Any]]) -> dict[int, Item]:
        """Return the items that are known, by index in the output.

        Those of an id are the same, or of an index, or else the first of a type.
        """
        found: dict[int, Item] = {}
        left = dict.fromkeys(self._items)
        for way in (
            lambda _, told: self._by_id.get(str(told.get("id"))),
            lambda index, _: self._by_index.get(index),
            lambda _, told: next((item for item in left if item.type == told["type"]), None),
        ):
            for index, told in enumerate(output):
                item = None if index in found else way(index, told)
                if item in left and item.type == told["type"]:
                    found[index] = item
                    del left[item]
        return found


def _check_said(item: Item) -> None:
    if not item.length:
        raise UnsaidError
