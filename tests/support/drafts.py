"""What a draft of an answer may be."""

from __future__ import annotations

from typing import Any


def precedes(early: Any, late: Any) -> bool:
    """Return whether a value may be a draft of another: only its end is missing."""
    if isinstance(late, dict) and isinstance(early, dict):
        return all(name in late and precedes(early[name], late[name]) for name in early)
    if isinstance(late, list) and isinstance(early, list):
        pairs = zip(early, late, strict=False)
        return len(early) <= len(late) and all(precedes(one, other) for one, other in pairs)
    if isinstance(late, str) and isinstance(early, str):
        return late.startswith(early)
    return bool(early == late) and type(early) is type(late)
