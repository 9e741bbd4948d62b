"""What the mock provider is asked for, in the words of a prompt that every server passes on."""

from __future__ import annotations

import re
from dataclasses import dataclass

PROMPT = re.compile(rb"tokens=(\d+) rate=(\d+) hold=(\w*)")


@dataclass(frozen=True, slots=True)
class Prompt:
    """An answer to ask for.

    Attributes:
        tokens: how many.
        rate: tokens a second; 0 is as fast as the connection takes them.
        hold: the answer begins when this name is released; empty: at once.

    """

    tokens: int
    rate: int = 0
    hold: str = ""

    def __str__(self) -> str:
        return f"tokens={self.tokens} rate={self.rate} hold={self.hold}"

    @classmethod
    def found_in(cls, body: bytes) -> Prompt:
        """Return the prompt that stands in a request."""
        found = PROMPT.search(body)
        if found is None:
            raise ValueError("the request holds no prompt of the benchmarks")
        tokens, rate, hold = found.groups()
        return cls(int(tokens), int(rate), hold.decode())
