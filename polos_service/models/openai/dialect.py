"""How servers differ in the chat completions that they take."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal


@dataclass(frozen=True, kw_only=True, slots=True)
class Dialect:
    """What a server expects in a request.

    Attributes:
        bound: the name of the bound on the output. Some servers know only one of the two.
        stream_options: whether to ask for the usage; servers without the parameter refuse it.
        reasoning: the member of a message in which earlier reasoning goes back; None where it
            does not: strict servers refuse members that they do not know.
        no_text: the content of a message that only calls tools.

    """

    bound: Literal["max_tokens", "max_completion_tokens"] = "max_tokens"
    stream_options: bool = True
    reasoning: Literal["reasoning", "reasoning_content"] | None = "reasoning_content"
    no_text: Literal[""] | None = ""


PLAIN = Dialect()
"""What most servers take."""
