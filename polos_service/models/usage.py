"""The tokens that a model call took, as its provider counts them."""

from __future__ import annotations

from polos.v1.event_pb2 import Usage

MAX_INT32 = 2**31 - 1
"""The largest number of tokens that an event can hold."""


def usage_of(
    read: object,
    written: object,
    *,
    cached: object = None,
    cache_written: object = None,
    reasoning: object = None,
) -> Usage | None:
    """Return the tokens; None if they are not numbers that make sense: unknown is not 0.

    Args:
        read: input tokens, cached ones included.
        written: output tokens, reasoning included.
        cached: of the input, those read from the cache.
        cache_written: of the input, those written to the cache.
        reasoning: of the output, those of reasoning.

    """
    tokens_in, tokens_out = _tokens(read), _tokens(written)
    if tokens_in is None or tokens_out is None or tokens_in + tokens_out > MAX_INT32:
        return None
    return Usage(
        input_tokens=tokens_in,
        output_tokens=tokens_out,
        total_tokens=tokens_in + tokens_out,
        cache_read_input_tokens=_tokens(cached),
        cache_creation_input_tokens=_tokens(cache_written),
        reasoning_tokens=_tokens(reasoning),
    )


def _tokens(count: object) -> int | None:
    if isinstance(count, float) and count.is_integer():
        count = int(count)
    if not isinstance(count, int) or isinstance(count, bool):
        return None
    return count if 0 <= count <= MAX_INT32 else None
