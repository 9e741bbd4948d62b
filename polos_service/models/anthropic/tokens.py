"""The Messages API: the tokens that an answer took."""

from __future__ import annotations

from collections.abc import Mapping

from polos.v1.event_pb2 import Usage
from polos_service.models.usage import usage_of


class Tokens:
    """The tokens so far. They only grow; some servers tell 0 where they tell nothing."""

    def __init__(self) -> None:
        self._told: dict[str, int] = {}

    def add(self, told: object) -> Usage | None:
        """Take a usage of the API; return the tokens, None as long as they are not known.

        The provider counts what it read from its cache, and wrote to it, apart from the input.
        """
        self._note(told)
        read = self._told.get("input_tokens")
        cached = self._told.get("cache_read_input_tokens")
        written = self._told.get("cache_creation_input_tokens")
        return usage_of(
            None if read is None else read + (cached or 0) + (written or 0),
            self._told.get("output_tokens"),
            cached=cached,
            cache_written=written,
            reasoning=self._told.get("thinking_tokens"),
        )

    def _note(self, told: object) -> None:
        if not isinstance(told, Mapping):
            return
        for name, count in told.items():
            if type(count) is int:
                self._told[name] = max(count, self._told.get(name, 0))
        self._note(told.get("output_tokens_details"))
