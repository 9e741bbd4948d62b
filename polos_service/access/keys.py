"""An API key: how it is written, and what is kept of it."""

from __future__ import annotations

import hashlib
import hmac
import json
import re
import secrets
from dataclasses import dataclass
from functools import cached_property

from polos_client.errors import Unauthenticated
from polos_service.access.credentials import KEY_PREFIX

SECRET_BYTES = 32
"""Random bytes of a key's secret."""

ID_DIGITS = 16
"""Hexadecimal digits of a key's id."""

WRITTEN = re.compile(rf"{KEY_PREFIX}([a-z0-9]{{1,32}})_([A-Za-z0-9_-]{{32,128}})")
"""A key in full: its id and its secret."""

ENTRY = "key."
"""How the name of a key's entry in the store begins; the id follows."""


@dataclass(frozen=True)
class KeyText:
    """A key in full, which is shown once and not kept."""

    id: str
    secret: str

    @cached_property
    def hash(self) -> bytes:
        """What is kept of the secret. It is random, so that a plain hash cannot be reversed."""
        return hashlib.sha256(self.secret.encode()).digest()

    def __repr__(self) -> str:
        return f"KeyText({self.id!r})"

    def full(self) -> str:
        """Return the key as callers send it."""
        return f"{KEY_PREFIX}{self.id}_{self.secret}"


@dataclass(frozen=True, kw_only=True, slots=True)
class Key:
    """What is kept of a key. Times are seconds since the epoch.

    Attributes:
        id: the part of the key that is not secret.
        name: what it is for, chosen by whoever created it.
        project: whose runs it is for.
        scopes: what it permits.
        hash: SHA-256 of the secret.
        created: when it was created.
        expires: when it ends; None if it does not.
        revoked: when it was revoked; None if it was not.
        digest: hash of the request that created it, to tell a repeated request from a reused
            request id; empty if the request had no id.

    """

    id: str
    name: str
    project: str
    scopes: frozenset[str]
    hash: bytes
    created: float
    expires: float | None = None
    revoked: float | None = None
    digest: bytes = b""

    def opens(self, text: KeyText) -> bool:
        """Return whether this is the key; the time does not depend on the secret."""
        return hmac.compare_digest(self.hash, text.hash)

    def ended(self, now: float) -> str | None:
        """Return why the key is no longer good; None if it is."""
        if self.revoked is not None:
            return "revoked"
        return "expired" if self.expires is not None and self.expires <= now else None


def new_text(key_id: str = "") -> KeyText:
    """Return a new key."""
    return KeyText(key_id or secrets.token_hex(ID_DIGITS // 2), secrets.token_hex(SECRET_BYTES))


def parse(token: str) -> KeyText:
    """Return the parts of a key.

    Raises:
        Unauthenticated: it is not written like a key.

    """
    found = WRITTEN.fullmatch(token)
    if found is None:
        raise Unauthenticated(
            "The API key does not have the form polos_ID_SECRET. Copy the whole key.",
            cause="malformed",
        )
    return KeyText(found[1], found[2])


def encode(key: Key) -> bytes:
    """Return a key as its entry has it."""
    value = {
        "id": key.id,
        "name": key.name,
        "project": key.project,
        "scopes": sorted(key.scopes),
        "hash": key.hash.hex(),
        "created": key.created,
        "expires": key.expires,
        "revoked": key.revoked,
        "digest": key.digest.hex(),
    }
    return json.dumps(value).encode()


def decode(value: bytes) -> Key:
    """Return the key of an entry; members that a later version adds are left out.

    Raises:
        ValueError, TypeError, KeyError: it is not a key.

    """
    found = json.loads(value)
    return Key(
        id=found["id"],
        name=found["name"],
        project=found["project"],
        scopes=frozenset(found["scopes"]),
        hash=bytes.fromhex(found["hash"]),
        created=found["created"],
        expires=found["expires"],
        revoked=found["revoked"],
        digest=bytes.fromhex(found["digest"]),
    )
