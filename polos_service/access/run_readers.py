"""Creates run tokens, and finds who has one."""

from __future__ import annotations

import time

from polos_client.errors import InvalidRequest, Unauthenticated
from polos_service.access import run_tokens
from polos_service.access.keyring import KeyRing, over
from polos_service.access.signing import RunToken, SigningKeys
from polos_service.caller import RUNS_READ, Caller

DEFAULT_LIFETIME = 3600.0
"""Seconds for which a token is good where the request names no time."""

MAX_LIFETIME = 24 * 3600.0
"""Seconds for which a token may be good."""

CREDENTIAL = "runtoken:"
"""How the `credential` of a caller with a run token begins. The id of the signing key follows, and
after a slash the credential of whoever created the token: the token ends with either."""


class RunReaders:
    """The callers who may read one run."""

    def __init__(self, ring: KeyRing, signing: SigningKeys) -> None:
        self._ring = ring
        self._signing = signing

    async def token(self, caller: Caller, run_id: str, lifetime: float | None) -> tuple[str, float]:
        """Return a token for a run of the caller's, and when it ends.

        Args:
            caller: who asks for it; the token does not outlive their own credential.
            run_id: the run, which exists.
            lifetime: seconds for which it is good; None for DEFAULT_LIFETIME.

        Raises:
            InvalidRequest: the lifetime is out of range.
            StoreUnavailable: there is no signing key yet, and it cannot be stored.

        """
        seconds = DEFAULT_LIFETIME if lifetime is None else lifetime
        if not 1 <= seconds <= MAX_LIFETIME:
            raise InvalidRequest({"lifetime": f"is {seconds:g} s, not from 1 s to 24 h"})
        expires = time.time() + seconds
        if caller.expires is not None:
            expires = min(expires, caller.expires)
        token = RunToken(
            project=caller.project, run_id=run_id, credential=caller.credential, expires=expires
        )
        return run_tokens.sign(token, await self._signing.current()), expires

    async def caller(self, token: str) -> Caller:
        """Return who has a token.

        Raises:
            StoreUnavailable: the store has been away for too long.
            Unauthenticated: the token is not good, or the key that created it is revoked.

        """
        self._ring.require_fresh()
        key = self._signing.known
        if key is None:
            raise run_tokens.unknown()
        found = run_tokens.verify(token, key, time.time())
        caller = Caller(
            project=found.project,
            principal=f"run:{found.run_id}",
            scopes=frozenset({RUNS_READ}),
            credential=f"{CREDENTIAL}{key.id}/{found.credential}",
            expires=found.expires,
            run_id=found.run_id,
        )
        if (error := self.ended(caller)) is not None:
            raise error
        return caller

    def ended(self, caller: Caller) -> Unauthenticated | None:
        """Return why the caller's token is no longer good; None if it is, or they have none."""
        if not caller.credential.startswith(CREDENTIAL):
            return None
        signed_by, _, creator = caller.credential.removeprefix(CREDENTIAL).partition("/")
        key = self._signing.known
        # A token without a creator is from a time when access was off.
        if key is None or key.id != signed_by or not creator or self._ring.revoked(creator):
            return over("revoked")
        return None
