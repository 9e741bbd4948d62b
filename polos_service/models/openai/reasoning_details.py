"""Reasoning that OpenRouter wants back: entries whose fragments are put together.

See https://openrouter.ai/docs/use-cases/reasoning-tokens: the entries have to go back unchanged
and in order; while an answer streams, each chunk has fragments of them.
"""

from __future__ import annotations

from typing import Any

from polos_service.models.draft import Draft

FIELD = "reasoning_details"
"""The member of a delta, and of the message that goes back."""

_SHOWN = ("text", "summary")


class ReasoningDetails:
    """Puts the entries together in the state of the message."""

    def __init__(self, draft: Draft) -> None:
        self._draft = draft
        self._entries: list[dict[str, Any]] = []
        self._by_place: dict[object, dict[str, Any]] = {}

    def take(self, told: Any) -> str | None:
        """Keep fragments of entries; return what they show, None if there are none."""
        fragments = [
            one
            for one in (told if isinstance(told, list) else [told])
            if isinstance(one, dict) and one
        ]
        for fragment in fragments:
            entry = self._entry(fragment)
            same = ("index", "type", "id", "format")
            told = {
                name: value
                for name, value in fragment.items()
                if not (name in same and name in entry)
            }
            self._draft.merge(entry, told)
        if not fragments:
            return None
        shown = (fragment.get(name) for fragment in fragments for name in _SHOWN)
        return "".join(words for words in shown if isinstance(words, str))

    def _entry(self, fragment: dict[str, Any]) -> dict[str, Any]:
        """Return the entry of a fragment: of the same type and index, with no other id.

        Without an index it is the last one of that type if its words go on.
        """
        kind, index, name = (fragment.get(one) for one in ("type", "index", "id"))
        place = (str(kind), str(index))
        entry = self._by_place.get(place)
        goes_on = index is not None or any(isinstance(fragment.get(one), str) for one in _SHOWN)
        if entry is None or not goes_on or (name and entry.get("id") not in (None, name)):
            self._by_place[place] = entry = {}
            self._entries.append(entry)
            self._draft.state[FIELD] = self._entries
        return entry
