"""An operator's own prices, from a file: for models that no public list knows, local ones too."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from decimal import ROUND_HALF_EVEN, Decimal
from pathlib import Path
from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from polos.v1.event_pb2 import Cost, Usage

MAX_BYTES = 4 * 1024 * 1024
"""Bytes of a price file: some twenty thousand entries."""

Price = Annotated[Decimal, Field(ge=0, le=1_000_000, allow_inf_nan=False)]
"""US dollars for a million tokens; 0 is free."""


WORDS = {
    "missing": "is missing",
    "extra_forbidden": "is unknown; an entry has model, provider, base_url, input, output, "
    "cached_input, cache_write",
    "model_type": 'is not an object, as {"model": "m", "input": 0.1, "output": 0.4}',
    # The value may hold a password: it is not repeated.
    "string_pattern_mismatch": "does not start with http:// or https://",
}
"""What is wrong with a member, by the type of pydantic's error; others are told in its words."""


class PricesInvalidError(ValueError):
    """A price file cannot be used; the message names the entry."""


class Entry(BaseModel):
    """What a model costs.

    Attributes:
        model: the model's name as the agent has it; `*` is every model.
        provider: the provider that it is the price of; None: any.
        base_url: the address that it is the price of, and all below it; None: any.
        input: for input tokens.
        output: for output tokens, reasoning included.
        cached_input: for input tokens read from a cache; None: as `input`.
        cache_write: for input tokens written to a cache; None: as `input`.

    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    model: str = Field(min_length=1)
    provider: str | None = Field(default=None, min_length=1)
    base_url: str | None = Field(default=None, pattern="^https?://.")
    input: Price
    output: Price
    cached_input: Price | None = None
    cache_write: Price | None = None

    @property
    def scope(self) -> tuple[bool, str, str, str]:
        """What it is the price of; the most exact sorts last."""
        address = (self.base_url or "").rstrip("/")
        return self.model != "*", address, self.provider or "", self.model

    def fits(self, provider: str, base_url: str) -> bool:
        """Return whether it is the price at this provider and address."""
        address = (self.base_url or base_url).rstrip("/")
        return self.provider in (None, provider) and f"{base_url}/".startswith(f"{address}/")

    def cost(self, usage: Usage) -> Cost | None:
        """Return what the tokens cost; None if the counts contradict each other."""
        read, written = usage.cache_read_input_tokens, usage.cache_creation_input_tokens
        plain = usage.input_tokens - read - written
        if plain < 0:
            return None
        cached = self.input if self.cached_input is None else self.cached_input
        write = self.input if self.cache_write is None else self.cache_write
        # Dollars for a million tokens are millionths of a dollar for one.
        micros = plain * self.input + read * cached + written * write
        micros += usage.output_tokens * self.output
        return Cost(usd_micros=int(micros.quantize(Decimal(1), ROUND_HALF_EVEN)))


class Prices:
    """The entries of a price file; none by default."""

    def __init__(self, entries: Iterable[Entry] = ()) -> None:
        self._by_model: dict[str, list[Entry]] = {}
        for entry in sorted(entries, key=lambda one: one.scope, reverse=True):
            self._by_model.setdefault(entry.model, []).append(entry)

    @classmethod
    def load(cls, path: Path) -> Prices:
        """Read a file: a JSON list of entries.

        Raises:
            PricesInvalidError: the file cannot be read, or an entry cannot be used.

        """
        entries: dict[tuple[bool, str, str, str], int] = {}
        listed = [_entry(number, one) for number, one in enumerate(_listed(path), 1)]
        for number, entry in enumerate(listed, 1):
            other = entries.setdefault(entry.scope, number)
            if other != number:
                raise PricesInvalidError(
                    f"entry {number} ({entry.model}) is for the same calls as entry {other}"
                )
        return cls(listed)

    def cost(self, usage: Usage, model: str, provider: str, base_url: str) -> Cost | None:
        """Return what a call cost by the most exact entry; None if there is none for it."""
        for name in (model, "*"):
            for entry in self._by_model.get(name, ()):
                if entry.fits(provider, base_url):
                    return entry.cost(usage)
        return None


def _listed(path: Path) -> list[Any]:
    try:
        with path.open("rb") as file:
            data = file.read(MAX_BYTES + 1)
    except OSError as error:
        raise PricesInvalidError(f"{path} cannot be read: {error.strerror}") from None
    if len(data) > MAX_BYTES:
        raise PricesInvalidError(f"{path} exceeds {MAX_BYTES} bytes")
    try:
        listed = json.loads(data, parse_float=Decimal)
    except (ValueError, RecursionError) as error:
        raise PricesInvalidError(f"{path} is not valid JSON: {error}") from None
    if not isinstance(listed, list):
        raise PricesInvalidError(
            f'{path} is not a list of entries, as [{{"model": "m", "input": 0.1, "output": 0.4}}]'
        )
    return listed


def _entry(number: int, told: Any) -> Entry:
    try:
        return Entry.model_validate(told)
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        model = told.get("model") if isinstance(told, Mapping) else None
        place = f"entry {number}" + (f" ({model:.80})" if isinstance(model, str) else "")
        field = first["loc"][0] if first["loc"] else ""
        if first["type"] in WORDS:
            what = WORDS[first["type"]]
        else:
            what = f"is {first['input']!r:.80}; {first['msg'].replace('Input', 'it', 1)}"
        raise PricesInvalidError(f"{place}: {field} {what}".replace(":  ", ": ")) from None
