"""Who is calling, by a call's metadata."""

from __future__ import annotations

from collections.abc import Iterable

from polos_service.caller import Caller

Metadata = Iterable[tuple[str, str | bytes]]
"""Keys, in lower case, and values."""

ANONYMOUS = Caller(project="default", principal="anonymous", scopes=frozenset({"*"}))
"""The caller of every call as long as the service has no credentials configured."""


def caller_of(_metadata: Metadata) -> Caller:
    """Return who makes a call with this metadata."""
    return ANONYMOUS
