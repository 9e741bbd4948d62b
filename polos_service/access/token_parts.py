"""The parts of a JWT, read strictly: RFC 7515, section 7.1, and RFC 7519, section 7.2.

Nothing here is verified yet. What a token says of where its key is (`jku`, `x5u`, `jwk`, `x5c`) is
not looked at: keys are those of the issuer.
"""

from __future__ import annotations

import json
from base64 import urlsafe_b64decode, urlsafe_b64encode
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NoReturn

from polos_client.errors import Unauthenticated

TOKEN_LIMIT = 8 * 1024
"""Characters of a token at most: as much as the metadata of a call."""

KID_LIMIT = 256
"""Characters of a key's id at most."""

TYPES = ("", "jwt", "at+jwt", "application/at+jwt")
"""What a token may say that it is, in lower case (RFC 9068, section 4): one of another type, for
example of a logout, is for something else."""

MAX_TIME = 253_402_300_799
"""The last second of the year 9999, since the epoch."""


@dataclass(frozen=True, slots=True)
class Parts:
    """A token, taken apart.

    Attributes:
        kid: the id of the key that it says it is signed with; empty if it names none.
        algorithm: the algorithm that it says it is signed with.
        claims: what it says.
        signed: what the signature is of.
        signature: the signature.

    """

    kid: str
    algorithm: str
    claims: Mapping[str, Any]
    signed: bytes
    signature: bytes


def taken_apart(token: str) -> Parts:
    """Return the parts of a token.

    Raises:
        Unauthenticated: it is not a signed JWT, is too long, or has a header that must be
            understood and is not.

    """
    segments = token.split(".") if len(token) <= TOKEN_LIMIT else ()
    if len(segments) != 3 or not token.isascii():  # noqa: PLR2004 - header, claims, signature
        raise malformed(f"is not a signed JWT of at most {TOKEN_LIMIT} characters")
    header = _read(segments[0], "header fields")
    kid, algorithm, kind = (header.get(name, "") for name in ("kid", "alg", "typ"))
    named = isinstance(kid, str) and kid.isprintable() and len(kid) <= KID_LIMIT
    if not named or not isinstance(algorithm, str):
        raise malformed("has a header whose kid or alg is not a plain string")
    if not isinstance(kind, str) or kind.lower() not in TYPES:
        raise malformed("is not an access token: its header has another typ than JWT or at+jwt")
    if "crit" in header:
        raise malformed("has a header with crit, which the service does not understand")
    claims = _read(segments[1], "claims")
    signed = token.rpartition(".")[0].encode()
    return Parts(kid, algorithm, claims, signed, _decoded(segments[2], "signature"))


def claim(claims: Mapping[str, Any], path: str) -> Any:
    """Return the claim of this name, or else what the dotted path leads to; None if nothing."""
    if path in claims:
        return claims[path]
    found: Any = claims
    for name in path.split("."):
        found = found.get(name) if isinstance(found, dict) else None
    return found


def time_of(claims: Mapping[str, Any], name: str) -> float | None:
    """Return a time in seconds since the epoch; None if the token has no such claim.

    Raises:
        Unauthenticated: it is not a number, or beyond the year 9999.

    """
    value = claims.get(name)
    if value is None:
        return None
    if type(value) not in (int, float) or not 0 <= value <= MAX_TIME:
        raise malformed(f"has an {name} that is not a number of seconds since the epoch")
    return float(value)


def texts_of(value: Any) -> Sequence[str]:
    """Return the strings of a claim that is one string, or a list of them; else nothing."""
    values = value if isinstance(value, list) else [value]
    return values if all(isinstance(one, str) for one in values) else ()


def malformed(what: str) -> Unauthenticated:
    """Return the error for a token that cannot be read; nothing of it is repeated."""
    return Unauthenticated(f"The token {what}. Get a new token.", cause="malformed")


def _read(segment: str, part: str) -> Mapping[str, Any]:
    try:
        value = json.loads(
            _decoded(segment, part), object_pairs_hook=_unique, parse_constant=_no_number
        )
    except (ValueError, RecursionError):
        value = None
    if not isinstance(value, dict):
        raise malformed(f"has {part} that are not a JSON object without repeated names")
    return value


def _unique(pairs: Sequence[tuple[str, Any]]) -> dict[str, Any]:
    """Return an object; a name that is repeated could mean one thing here, another elsewhere."""
    found = dict(pairs)
    if len(found) != len(pairs):
        raise ValueError
    return found


def _no_number(name: str) -> NoReturn:
    """Refuse `NaN` and `Infinity`, which JSON does not have."""
    raise ValueError(name)


def _decoded(segment: str, part: str) -> bytes:
    """Return what base64url without padding stands for, which has one spelling only."""
    try:
        data = urlsafe_b64decode(segment + "=" * (-len(segment) % 4))
    except ValueError:
        data = b""
    if not data or urlsafe_b64encode(data).rstrip(b"=").decode() != segment:
        raise malformed(f"has {part} that are not base64url without padding")
    return data
