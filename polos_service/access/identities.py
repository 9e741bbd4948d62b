"""Finds who makes a call."""

from __future__ import annotations

from polos_client.errors import Unauthenticated
from polos_service.access.credentials import (
    KEY_PREFIX,
    RUN_TOKEN_PREFIX,
    Metadata,
    Peer,
    PeerVerifier,
    Verifier,
)
from polos_service.access.keyring import KeyRing
from polos_service.caller import ANONYMOUS, Caller

HEADER = "authorization"
"""The metadata key of a call's credentials; the value is `Bearer TOKEN`."""


class Identities:
    """Finds the caller of every call.

    Access is off while there is no way to have credentials: no API key, not even a revoked one, no
    issuer, and no client certificates that name callers. Everybody is ANONYMOUS then.
    """

    def __init__(
        self,
        keys: KeyRing,
        *,
        off: bool = False,
        run_tokens: Verifier | None = None,
        jwts: Verifier | None = None,
        certificates: PeerVerifier | None = None,
    ) -> None:
        """Find callers by these kinds of credentials.

        Args:
            keys: the API keys.
            off: everybody is ANONYMOUS, whatever credentials there are.
            run_tokens: verifies run tokens; None if there are none.
            jwts: verifies the JWTs of an issuer; None if the service trusts no issuer.
            certificates: finds callers by client certificates; None if certificates name nobody.

        """
        self._off = off
        self._keys = keys
        self._run_tokens = run_tokens
        self._jwts = jwts
        self._certificates = certificates

    @property
    def on(self) -> bool:
        """Whether calls need credentials."""
        ways = (self._jwts, self._certificates)
        return not self._off and (self._keys.known or any(way is not None for way in ways))

    async def of(self, metadata: Metadata, peer: Peer) -> Caller:
        """Return who makes a call.

        A bearer token takes precedence over a client certificate.

        Raises:
            Unauthenticated: there are no credentials, or they are not good.
            StoreUnavailable: whether they are good cannot be told now.

        """
        if not self.on:
            return ANONYMOUS
        given = [value for key, value in metadata if key == HEADER]
        if given:
            return await self._bearer(token_of(given))
        if self._certificates is not None and (caller := self._certificates.caller(peer)):
            return caller
        raise Unauthenticated(
            "The call has no credentials. Send an API key or a token as "
            "`authorization: Bearer ...` (POLOS_API_KEY).",
            cause="missing",
        )

    async def _bearer(self, token: str) -> Caller:
        if token.startswith(KEY_PREFIX):
            return await self._keys.caller(token)
        verifier = self._run_tokens if token.startswith(RUN_TOKEN_PREFIX) else self._jwts
        if verifier is None:
            raise Unauthenticated(
                "The service does not accept this kind of token. Use an API key.", cause="unknown"
            )
        return await verifier.caller(token)


def token_of(given: list[str | bytes]) -> str:
    """Return the token of the authorization headers.

    Raises:
        Unauthenticated: there is more than one header, or it is not `Bearer TOKEN`.

    """
    scheme, _, token = str(given[0]).partition(" ")
    if len(given) > 1 or scheme.lower() != "bearer" or not token.strip():
        raise Unauthenticated(
            "The authorization metadata is not one `Bearer TOKEN`.", cause="malformed"
        )
    return token.strip()
