"""Tails without a server."""

from __future__ import annotations

from polos_service.reading.tail import Tail


async def response(tail: Tail) -> bytes:
    """Return the next response of a tail that has not ended."""
    found = await tail.next()
    assert found is not None, "the tail has ended"
    return found


async def rest(tail: Tail) -> list[bytes]:
    """Return all responses that are left, until the end of the log."""
    found = []
    while (one := await tail.next()) is not None:
        found.append(one)
    return found
