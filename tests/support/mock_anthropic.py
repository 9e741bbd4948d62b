"""A provider of the Messages API over real HTTP that answers what a test wants.

    async with MockAnthropic() as provider:
        provider.reply(say("Hello", " world"))
        provider.reply(think("Hm", signature="s"), call("add", {"a": 1}))
        ...
        assert provider.requests[0].body["model"] == "mock"

It is the provider of `tests.support.mock_provider` with another API, and takes the bad parts of
an answer as well: `raw`, `hold`, `cut`, `hang_up`, `reset`, `status`.
"""

from __future__ import annotations

import itertools
import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Self

from tests.support.mock_answers import EndOfBody, Part
from tests.support.mock_provider import MockProvider


@dataclass(frozen=True)
class Block:
    """A content block: its beginning, and the deltas that follow."""

    begin: Mapping[str, Any]
    deltas: Sequence[Mapping[str, Any]] = ()

    def part(self, index: int) -> Part:
        """Return it as a part of an answer."""
        return Part(tuple(self._events(index)), calls=self.begin.get("type") == "tool_use")

    def _events(self, index: int) -> Iterator[bytes]:
        yield event("content_block_start", index=index, content_block=self.begin)
        for delta in self.deltas:
            yield event("content_block_delta", index=index, delta=delta)
        yield event("content_block_stop", index=index)


class MockAnthropic(MockProvider):
    """The server; an async context manager."""

    async def __aenter__(self) -> Self:
        await super().__aenter__()
        self.url = self.url.removesuffix("/v1")
        return self

    def reply(self, *parts: Part | Block, newline: bytes = b"\n", size: int | None = None) -> None:
        """Answer the next request that has no reply yet.

        Args:
            parts: what happens, in order. Blocks are numbered from 0.
            newline: how lines end.
            size: bytes of each write; None: an event a write.

        """
        super().reply(*answer(*parts), newline=newline, size=size)


def answer(*parts: Part | Block) -> list[Part]:
    """Return the parts of an answer; one without an ending of its own ends properly."""
    number = itertools.count()
    made = [one.part(next(number)) if isinstance(one, Block) else one for one in parts]
    if any(part.ends for part in made):
        return made
    return [*made, finish("tool_use" if any(part.calls for part in made) else "end_turn")]


def event(kind: str, **fields: Any) -> bytes:
    """Return one event; what is not ASCII stays as it is."""
    data = json.dumps({"type": kind, **fields}, ensure_ascii=False)
    return f"event: {kind}\ndata: {data}\n\n".encode()


def start(**usage: Any) -> Part:
    """The message begins."""
    told: dict[str, Any] = {
        "id": "msg_1",
        "type": "message",
        "role": "assistant",
        "model": "mock",
        "content": [],
        "stop_reason": None,
        "stop_sequence": None,
        "usage": {"input_tokens": 7, "output_tokens": 1, **usage},
    }
    return Part((event("message_start", message=told),))


def say(*texts: str) -> Block:
    """The model says each text in a delta of its own."""
    deltas = [{"type": "text_delta", "text": text} for text in texts]
    return Block({"type": "text", "text": ""}, deltas)


def think(*texts: str, signature: str = "signed") -> Block:
    """The model thinks each text in a delta of its own, and signs them."""
    deltas = [{"type": "thinking_delta", "thinking": text} for text in texts]
    signed = {"type": "signature_delta", "signature": signature}
    return Block({"type": "thinking", "thinking": "", "signature": ""}, [*deltas, signed])


def call(name: str, arguments: Any, *, call_id: str = "toolu_a", pieces: int = 3) -> Block:
    """The model calls a tool, its arguments in several pieces, of which the first is empty."""
    text = arguments if isinstance(arguments, str) else json.dumps(arguments)
    size = max(1, -(-len(text) // pieces))
    cuts = ["", *(text[start : start + size] for start in range(0, len(text), size))]
    deltas = [{"type": "input_json_delta", "partial_json": cut} for cut in cuts]
    return Block({"type": "tool_use", "id": call_id, "name": name, "input": {}}, deltas)


def finish(reason: str | None = "end_turn", **usage: Any) -> Part:
    """The message ends properly."""
    told = {"output_tokens": 3, **usage}
    delta = {"stop_reason": reason, "stop_sequence": None}
    actions = (event("message_delta", delta=delta, usage=told), event("message_stop"), EndOfBody())
    return Part(actions, ends=True)


def kept(**block: Any) -> dict[str, Any]:
    """Return the state of a part with what the provider sent of its block."""
    return {"anthropic": {"block": block}}
