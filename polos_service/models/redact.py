"""Make what a provider says fit to be shown: short, printable, without a key in any simple form.

A secret that stands there as it is, or a piece of it, is hidden where it stands. One that stands
there in another form (escaped, encoded, in other case, with something in between) hides the whole
text: nobody can tell which part of it is safe.
"""

from __future__ import annotations

import html
import re
import unicodedata
from base64 import b64encode
from collections.abc import Iterable, Iterator
from urllib.parse import unquote

MAX_LENGTH = 500
"""Characters of a provider's message that are shown."""

MAX_SEARCHED = 8192
"""Characters of a provider's message that are searched, and more for a long secret."""

MAX_EXPANSION = 16
"""Characters at most that one character of a secret takes in another form: percent, twice."""

MAX_WORD = 200
"""Characters of a request id that are shown."""

MIN_SECRET = 6
"""Characters of the shortest secret that is searched for inside words and in other forms."""

MIN_PIECE = 8
"""Characters of a secret in a row that are hidden wherever they stand: some quote its start."""

MAX_ESCAPES = 3
"""How many escapes, one inside the other, are undone."""

_HIDDEN = "[hidden]"
_KEY_LIKE = re.compile(
    r"""
      \b(?:bearer|basic)\s+\S+                                        # an Authorization header
    | (?<=//)[^/\s@]+@                                                # user and password in a URL
    | \S*\*{2,}\S*                                                    # what they masked themselves
    | \b(?:sk|pk|rk|gsk|xai|hf|nvapi|pplx|csk|fw|tgp|r8)[-_][\w.-]{6,}  # the usual prefixes
    | \b[\w+/=-]{64,}                                                 # base64: signed reasoning
    | \b[\w-]{32,}                                                    # any other long token
    """,
    re.IGNORECASE | re.VERBOSE,
)
_ESCAPE = re.compile(r"\\(?:u([0-9a-f]{4})|x([0-9a-f]{2})|[abfnrtv])", re.IGNORECASE)
_BETWEEN = re.compile(r"[\W_]+")


def redact(message: str, secrets: Iterable[str] = ()) -> str:
    """Return `message` on one line, at most MAX_LENGTH characters, with keys hidden.

    Args:
        message: what the provider said.
        secrets: the keys in use; hidden whatever they look like.

    """
    secrets = [secret for secret in secrets if secret]
    # What is shown is far shorter, so a secret that is cut here does not begin in it.
    message = message[: MAX_SEARCHED + MAX_EXPANSION * max(map(len, secrets), default=0)]
    if tells(_without(message, secrets, ""), secrets):
        return _HIDDEN
    message = _without(message, secrets, _HIDDEN)
    message = message[: 4 * MAX_LENGTH]  # before the pattern, whose time grows with the square
    message = "".join(char if char.isprintable() else " " for char in message)
    line = " ".join(_KEY_LIKE.sub(_HIDDEN, message).split())
    return line if len(line) <= MAX_LENGTH else line[: MAX_LENGTH - 1] + "…"


def word(text: str, secrets: Iterable[str] = ()) -> str:
    """Return a word of a provider's, a request id say, at most MAX_WORD characters.

    It is empty where it is too long to be searched, tells a secret, or cannot be printed.
    """
    secrets = [secret for secret in secrets if secret]
    printable = text.isascii() and text.isprintable()
    if not printable or len(text) > MAX_SEARCHED or tells(text, secrets):
        return ""
    return "" if _without(text, secrets, "") != text else text[:MAX_WORD]


def tells(text: str, secrets: Iterable[str]) -> bool:
    """Return whether one of the secrets stands in `text`, in any simple form.

    Undone are URL, HTML and JSON escapes, case, and whatever is neither letter nor digit. Known
    are hexadecimal and both kinds of base64. Secrets below MIN_SECRET letters and digits are
    not searched for: they stand in ordinary words.
    """
    forms = {form for secret in secrets for form in _forms(secret)}
    return any(form in view for view in _views(text) for form in forms)


def _without(text: str, secrets: Iterable[str], instead: str) -> str:
    """Replace the secrets and pieces of secrets in `text`; a short secret only as a word."""
    for secret in secrets:
        pattern = re.escape(secret)
        if len(secret) < MIN_SECRET:
            pattern = rf"(?<!\w){pattern}(?!\w)"
        text = re.sub(pattern, lambda _: instead, text)
        text = _without_pieces(text, secret, instead)
    return text


def _without_pieces(text: str, secret: str, instead: str) -> str:
    """Replace every run of MIN_PIECE or more characters that stands in the secret as well."""
    starts = range(len(secret) - MIN_PIECE + 1)
    pieces = {secret[start : start + MIN_PIECE] for start in starts}
    kept: list[str] = []
    done = 0
    for start in range(len(text) - MIN_PIECE + 1) if pieces else ():
        if text[start : start + MIN_PIECE] in pieces:
            if start > done or not kept:
                kept += [text[done:start], instead]
            done = start + MIN_PIECE
    return "".join([*kept, text[done:]])


def _forms(secret: str) -> Iterator[str]:
    """Yield what a secret looks like in a squeezed text."""
    data = secret.encode(errors="replace")
    if len(_squeezed(secret)) < MIN_SECRET:
        return
    yield _squeezed(secret)
    yield data.hex()
    for before in range(3):
        # Of base64, only what is the same whatever stands before and after the secret.
        encoded = b64encode(bytes(before) + data).decode()
        first, last = -(-8 * before // 6), 8 * (before + len(data)) // 6
        inner = _squeezed(encoded[first:last])
        if len(inner) >= MIN_SECRET:
            yield inner


def _views(text: str) -> Iterator[str]:
    """Yield the text squeezed, as it is and after each escape that can be undone in it."""
    yield _squeezed(text)
    for _ in range(MAX_ESCAPES):
        before = text
        for undone in (_unescaped, html.unescape, unquote):
            if (plain := undone(text)) != text:
                text = plain
                yield _squeezed(text)
        if text == before:
            return


def _unescaped(text: str) -> str:
    """Undo the escapes of JSON; what is not to be seen becomes a space."""
    return _ESCAPE.sub(
        lambda found: chr(int(code, 16)) if (code := found[1] or found[2]) else " ", text
    )


def _squeezed(text: str) -> str:
    """Return letters and digits alone, in lower case."""
    return _BETWEEN.sub("", unicodedata.normalize("NFKC", text)).casefold()
