"""Make a provider's own message fit to be shown: short, and without what looks like a key."""

from __future__ import annotations

import re
from collections.abc import Iterable

MAX_LENGTH = 500
"""Characters of a provider's message that are shown."""

_HIDDEN = "[hidden]"
_KEY_LIKE = re.compile(
    r"""
      \b(?:bearer|basic)\s+\S+                                        # an Authorization header
    | (?<=//)[^/\s@]+@                                                # user and password in a URL
    | \S*\*{2,}\S*                                                    # what they masked themselves
    | \b(?:sk|pk|rk|gsk|xai|hf|nvapi|pplx|csk|fw|tgp|r8)[-_][\w.-]{6,}  # the usual prefixes
    | \b[\w-]{32,}                                                    # any other long token
    """,
    re.IGNORECASE | re.VERBOSE,
)


def redact(message: str, secrets: Iterable[str] = ()) -> str:
    """Return `message` on one line, at most MAX_LENGTH characters, with keys hidden.

    Args:
        message: what the provider said.
        secrets: the keys in use; hidden whatever they look like.

    """
    for secret in secrets:
        message = message.replace(secret, _HIDDEN)
    message = message[: 4 * MAX_LENGTH]  # before the pattern, whose time grows with the square
    line = " ".join(_KEY_LIKE.sub(_HIDDEN, message).split())
    return line if len(line) <= MAX_LENGTH else line[: MAX_LENGTH - 1] + "…"
