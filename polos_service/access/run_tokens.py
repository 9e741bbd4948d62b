"""Run tokens as text: what they say, and an HMAC-SHA256 of it. Pure functions.

A token is `polosrun_KEYID_CLAIMS_MAC`: the id of the signing key, JSON as unpadded base64url, and
the MAC of everything before it in hexadecimal.
"""

from __future__ import annotations

import base64
import hashlib
import hmac
import json
import re

from polos_client.errors import Unauthenticated
from polos_service.access.credentials import RUN_TOKEN_PREFIX
from polos_service.access.signing import RunToken, SigningKey

LENGTH_LIMIT = 4096
"""Characters of a token at most."""

WRITTEN = re.compile(rf"({RUN_TOKEN_PREFIX}([0-9a-f]+)_([A-Za-z0-9_-]+))_([0-9a-f]{{64}})")
"""A token: what is signed, with key id and claims in it, and the MAC."""


def sign(token: RunToken, key: SigningKey) -> str:
    """Return the token as text."""
    claims = [token.project, token.run_id, token.credential, token.expires]
    encoded = base64.urlsafe_b64encode(json.dumps(claims).encode()).decode().rstrip("=")
    signed = f"{RUN_TOKEN_PREFIX}{key.id}_{encoded}"
    return f"{signed}_{mac(signed, key)}"


def verify(text: str, key: SigningKey, now: float) -> RunToken:
    """Return what a token says.

    Args:
        text: the token.
        key: the key that tokens are signed with.
        now: seconds since the epoch.

    Raises:
        Unauthenticated: it is not a token (`malformed`), the key has not signed it (`unknown`), or
            it has expired.

    """
    found = WRITTEN.fullmatch(text) if len(text) <= LENGTH_LIMIT else None
    if found is None:
        raise refusal("malformed", "is not written like one. Copy the whole token")
    signed, key_id, encoded, given = found.groups()
    if key.id != key_id or not hmac.compare_digest(mac(signed, key), given):
        raise unknown()
    project, run_id, credential, expires = json.loads(
        base64.urlsafe_b64decode(encoded + "=" * (-len(encoded) % 4))
    )
    if expires <= now:
        raise refusal("expired", "has expired. Ask for a new one")
    return RunToken(project=project, run_id=run_id, credential=credential, expires=expires)


def mac(signed: str, key: SigningKey) -> str:
    """Return the MAC of a text."""
    return hmac.new(key.secret, signed.encode(), hashlib.sha256).hexdigest()


def unknown() -> Unauthenticated:
    """Return the error for a token with another signature than ours."""
    return refusal("unknown", "is not signed by this service, or all tokens were revoked")


def refusal(cause: str, what: str) -> Unauthenticated:
    """Return the error for a token that is not good; it repeats nothing of it."""
    return Unauthenticated(f"The run token {what}.", cause=cause)
