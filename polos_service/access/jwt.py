"""The JWTs of an issuer: whose they are, and what they permit."""

from __future__ import annotations

import hashlib
import time
from collections.abc import Callable, Mapping
from typing import Any
from urllib.parse import quote, unquote

from jwt.algorithms import Algorithm, get_default_algorithms

from polos_client.errors import Unauthenticated
from polos_client.wire import NAME_LIMIT
from polos_service.access.issuer_keys import IssuerKeys
from polos_service.access.key_set import Keys, PublicKey
from polos_service.access.token_parts import (
    Parts,
    claim,
    malformed,
    taken_apart,
    texts_of,
    time_of,
)
from polos_service.access_settings import AccessSettings
from polos_service.caller import EVERYTHING, SCOPES, Caller

MAX_VERIFIED = 10_000
"""Tokens at most that are remembered as verified: about 1 KB each."""

CREDENTIAL = "jwt:"
"""How the `credential` of a caller with a JWT begins; the id of its key, quoted as in URLs, and
its subject follow."""

GRANTED = frozenset(SCOPES) - {EVERYTHING}
"""The scopes that a claim can name by itself; everything takes an entry in POLOS_JWT_SCOPES."""


class Jwts:
    """Verifies tokens. One that was verified is remembered until it ends, or the keys change.

    Attributes:
        keys: the keys of the issuer.

    """

    def __init__(
        self, settings: AccessSettings, keys: IssuerKeys, now: Callable[[], float] = time.time
    ) -> None:
        """Verify the tokens of the issuer in the settings.

        Args:
            settings: with an issuer.
            keys: its keys.
            now: the time in seconds since the epoch.

        """
        self._settings = settings
        self.keys = keys
        self._now = now
        self._audiences = frozenset(settings.jwt_audiences)
        known: Mapping[str, Algorithm] = get_default_algorithms()
        self._algorithms = {str(name): known[name] for name in settings.jwt_algorithms}
        self._verified: dict[bytes, Caller] = {}
        self._verified_with: Keys = {}

    async def caller(self, token: str) -> Caller:
        """Return who has the token.

        The signature is checked last: it costs most.

        Raises:
            StoreUnavailable: the issuer's keys have not been fetched yet.
            Unauthenticated: the token is not good.

        """
        if self._verified_with is not self.keys.current:
            self._verified, self._verified_with = {}, self.keys.current
        digest = hashlib.sha256(token.encode(errors="replace")).digest()
        caller = self._verified.get(digest)
        if caller is not None:
            self._check_expiry(caller.expires)
            return caller
        parts = taken_apart(token)
        caller = self._described(parts)
        await self._check_signature(parts)
        if self._verified_with is self.keys.current:
            while len(self._verified) >= MAX_VERIFIED:
                del self._verified[next(iter(self._verified))]
            self._verified[digest] = caller
        return caller

    def withdrawn(self, credential: str) -> bool:
        """Return whether this is the `credential` of a token whose key the issuer has withdrawn."""
        if not credential.startswith(CREDENTIAL) or not self.keys.current:
            return False
        kid = unquote(credential.split(":")[1])
        return not any((kid, algorithm) in self.keys.current for algorithm in self._algorithms)

    def _described(self, parts: Parts) -> Caller:
        """Return whom the token describes, checked in all but the signature."""
        claims = parts.claims
        if parts.algorithm not in self._algorithms:
            raise malformed("is not signed with one of POLOS_JWT_ALGORITHMS")
        if claims.get("iss") != self._settings.jwt_issuer:
            raise Unauthenticated(
                "The token is of another issuer than the service trusts.", cause="issuer"
            )
        if self._audiences.isdisjoint(texts_of(claims.get("aud"))):
            raise Unauthenticated(
                "The token is for another audience than this service. Get one with its audience.",
                cause="audience",
            )
        expires = self._checked_times(claims)
        principal = _name(claims, "sub")
        return Caller(
            project=self._project(claims),
            principal=principal,
            scopes=self._scopes(claims),
            credential=f"{CREDENTIAL}{quote(parts.kid, safe='')}:{principal}",
            expires=expires,
        )

    def _checked_times(self, claims: Mapping[str, Any]) -> float:
        """Return when the token ends, leeway included."""
        expires = time_of(claims, "exp")
        if expires is None:
            raise _without("exp")
        leeway = self._settings.jwt_leeway
        self._check_expiry(expires + leeway)
        latest = self._now() + leeway
        if any((time_of(claims, name) or 0) > latest for name in ("nbf", "iat")):
            raise Unauthenticated(
                "The token is not valid yet. Check the clocks of the issuer and of the service.",
                cause="not_yet",
            )
        return expires + leeway

    def _check_expiry(self, expires: float | None) -> None:
        if expires is not None and expires <= self._now():
            raise Unauthenticated("The token has expired. Get a new token.", cause="expired")

    async def _check_signature(self, parts: Parts) -> None:
        key = await self.keys.find(parts.kid, parts.algorithm)
        if not self._signed(parts, key):
            raise Unauthenticated(
                "The signature of the token is not the issuer's. Get a new token.",
                cause="unknown",
            )

    def _signed(self, parts: Parts, key: PublicKey) -> bool:
        algorithm = self._algorithms[parts.algorithm]
        return algorithm.verify(parts.signed, algorithm.prepare_key(key), parts.signature)

    def _project(self, claims: Mapping[str, Any]) -> str:
        settings = self._settings
        if settings.jwt_project is not None:
            return settings.jwt_project
        return _name(claims, settings.jwt_project_claim)

    def _scopes(self, claims: Mapping[str, Any]) -> frozenset[str]:
        """Return the scopes; words of the claim that mean nothing here are left out."""
        said = texts_of(claim(claims, self._settings.jwt_scopes_claim))
        words = {word for text in said for word in text.split()}
        mapped = self._settings.jwt_scopes
        if mapped:
            return frozenset(scope for word in words for scope in mapped.get(word, ()))
        return GRANTED & words


def _name(claims: Mapping[str, Any], path: str) -> str:
    value = claim(claims, path)
    if not (isinstance(value, str) and value.strip() and value.isprintable()):
        raise _without(path)
    if len(value) > NAME_LIMIT:
        raise _without(path)
    return value


def _without(path: str) -> Unauthenticated:
    return Unauthenticated(
        f"The token has no claim {path} that can be used: see the service's POLOS_JWT settings.",
        cause="claims",
    )
