"""The key that run tokens are signed with. All replicas have it from the store."""

from __future__ import annotations

import asyncio
import json
import secrets
from dataclasses import dataclass

from polos_service.access.keyring import PERIOD, KeyRing
from polos_service.store.access import AccessEntry, AccessStore, Changed

ENTRY = "signing"
"""The name of the key's entry in the store."""

SECRET_BYTES = 32
"""Random bytes of the key."""

ID_BYTES = 8
"""Random bytes of the key's id."""

HEARD = 2 * PERIOD
"""Seconds within which the other replicas have a new key: no token is given out before."""


@dataclass(frozen=True, kw_only=True, slots=True)
class RunToken:
    """What a run token says.

    Attributes:
        project: the project of the run.
        run_id: the run that may be read.
        credential: that of the caller who created the token; empty while access was off.
        expires: when the token ends, in seconds since the epoch.

    """

    project: str
    run_id: str
    credential: str
    expires: float


@dataclass(frozen=True, kw_only=True, slots=True)
class SigningKey:
    """A key for HMAC. Tokens name it by its id."""

    id: str
    secret: bytes

    def __repr__(self) -> str:
        return f"SigningKey({self.id!r})"


class SigningKeys:
    """The one key that tokens are signed with, made when it is first needed."""

    def __init__(self, ring: KeyRing, store: AccessStore) -> None:
        self._ring = ring
        self._store = store

    @property
    def known(self) -> SigningKey | None:
        """The key, as far as this replica knows; None if there is none yet."""
        entry = self._ring.entry(ENTRY)
        if entry is None:
            return None
        found = json.loads(entry.value)
        return SigningKey(id=found["id"], secret=bytes.fromhex(found["secret"]))

    async def current(self) -> SigningKey:
        """Return the key, which is made if there is none.

        Raises:
            StoreUnavailable: there is none, and it cannot be stored.

        """
        while (key := self.known) is None:
            await self._replace()
        return key

    async def rotate(self) -> None:
        """Replace the key: no token that was signed before is good any more.

        Raises:
            StoreUnavailable: the new one cannot be stored.

        """
        await self._ring.refresh()
        await self._replace()

    async def _replace(self) -> None:
        """Put a new key in place of the known one, unless somebody else just did."""
        entry = self._ring.entry(ENTRY)
        value = {"id": secrets.token_hex(ID_BYTES), "secret": secrets.token_hex(SECRET_BYTES)}
        data = json.dumps(value).encode()
        try:
            revision = await self._store.put(ENTRY, data, 0 if entry is None else entry.revision)
        except Changed:
            await self._ring.refresh()
        else:
            self._ring.take(AccessEntry(name=ENTRY, value=data, revision=revision))
        await asyncio.sleep(HEARD)
