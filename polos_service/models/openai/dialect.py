"""How servers differ in the chat completions that they take."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Literal

OPENAI_IDS = re.compile(".{1,40}", re.DOTALL)
"""The ids of calls that OpenAI itself takes."""

MISTRAL_IDS = re.compile("[a-zA-Z0-9]{9}")
"""The ids of calls that Mistral takes."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Dialect:
    """What a server expects in a request.

    Attributes:
        bound: the name of the bound on the output. Some servers know only one of the two.
        stream_options: whether to ask for the usage; servers without the parameter refuse it.
        reasoning: the member of a message in which earlier reasoning goes back, unless its state
            names another; None where it does not: strict servers refuse members that they do
            not know.
        no_text: the content of a message that only calls tools.
        schema: whether the server takes the schema of an answer. One that does not is told it in
            words.
        schema_with_tools: whether it takes one together with tools: some servers enforce the
            schema from the first token, so that no tool is ever called.
        call_ids: the ids of calls that the server takes; None: all. A hash takes the place of
            any other, in the call and in its result.

    """

    bound: Literal["max_tokens", "max_completion_tokens"] = "max_tokens"
    stream_options: bool = True
    reasoning: Literal["reasoning", "reasoning_content"] | None = "reasoning_content"
    no_text: Literal[""] | None = ""
    schema: bool = True
    schema_with_tools: bool = False
    call_ids: re.Pattern[str] | None = None


PLAIN = Dialect()
"""What most servers take."""
