"""The API keys, in memory: verifying one costs a hash, and never a look into the store."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import Mapping
from types import MappingProxyType

from polos_client.errors import StoreUnavailable, Unauthenticated
from polos_service.access.keys import ENTRY, Key, KeyText, decode, parse
from polos_service.caller import DEFAULT_PROJECT, EVERYTHING, Caller
from polos_service.logs import get_logger
from polos_service.store.access import AccessEntry, AccessStore

PERIOD = 1.0
"""Seconds between two looks at what has changed in the store."""

STALE = 30.0
"""Seconds for which keys are good that could not be compared with the store."""

RETRY = 1.0
"""Seconds after which a call may find the store back."""

CREDENTIAL = "key:"
"""How the `credential` of a caller with an API key begins; the key's id follows."""

UNKNOWN = Key(id="", name="", project="", scopes=frozenset(), hash=bytes(32), created=0)
"""Compared with where there is no key: an unknown id takes as long as a wrong secret."""

log = get_logger(__name__)


class KeyRing:
    """Every API key of the store, and the bootstrap key."""

    def __init__(self, store: AccessStore, bootstrap: KeyText | None = None) -> None:
        """Prepare; `refresh` reads the keys.

        Args:
            store: where the keys are.
            bootstrap: a key that is good for everything in every project.

        """
        self._store = store
        self._read = 0
        """Revision up to which everything was read; what was put here may be later."""
        self._keys: dict[str, Key] = {}
        self._entries: dict[str, AccessEntry] = {}
        self._any = False
        self._compared = 0.0
        self._bootstrap = None if bootstrap is None else everything(bootstrap)

    @property
    def known(self) -> bool:
        """Whether there is any key, good or not, readable or not."""
        return self._any or self._bootstrap is not None

    @property
    def keys(self) -> Mapping[str, Key]:
        """The keys of the store, by id."""
        return MappingProxyType(self._keys)

    def entry(self, name: str) -> AccessEntry | None:
        """Return what is known of an entry that is not a key."""
        return self._entries.get(name)

    async def caller(self, token: str) -> Caller:
        """Return who has a key.

        Raises:
            StoreUnavailable: the store has been away for too long.
            Unauthenticated: there is no such key, or it is no longer good.

        """
        given = parse(token)
        bootstrap = self._bootstrap
        if bootstrap is not None and bootstrap.id == given.id and bootstrap.opens(given):
            return caller_of(bootstrap)
        self.require_fresh()
        key = self._keys.get(given.id, UNKNOWN)
        if not key.opens(given):
            raise Unauthenticated("There is no such API key.", cause="unknown")
        if (cause := key.ended(time.time())) is not None:
            raise over(cause)
        return caller_of(key)

    def ended(self, caller: Caller) -> Unauthenticated | None:
        """Return why the caller's credentials are no longer good; None if they are.

        This holds for credentials of every kind: they expire, and keys are revoked.
        """
        if caller.expires is not None and caller.expires <= time.time():
            return over("expired")
        return over("revoked") if self.revoked(caller.credential) else None

    def revoked(self, credential: str) -> bool:
        """Return whether this is the `credential` of a key that was revoked."""
        key = self._keys.get(credential.removeprefix(CREDENTIAL))
        return key is not None and key.revoked is not None

    def require_fresh(self) -> None:
        """Refuse to answer from memory once the store has been away for STALE seconds.

        Raises:
            StoreUnavailable: it has.

        """
        if time.monotonic() - self._compared > STALE:
            raise StoreUnavailable(
                "The store does not answer, so the credentials cannot be verified. Try again.",
                retry_after=RETRY,
            )

    async def refresh(self) -> None:
        """Read what has changed.

        Raises:
            StoreUnavailable: the store does not answer.

        """
        before = time.monotonic()
        while entries := await self._store.entries(self._read):
            for entry in entries:
                self.take(entry)
            self._read = entries[-1].revision
            await asyncio.sleep(0)
        self._compared = before

    def take(self, entry: AccessEntry) -> None:
        """Take a value that was read or put; of two for one name, the later one stays."""
        known = self._entries.get(entry.name)
        if known is not None and known.revision >= entry.revision:
            return
        self._entries[entry.name] = entry
        if entry.name.startswith(ENTRY):
            self._any = True
            try:
                key = decode(entry.value)
            except (ValueError, TypeError, KeyError):
                log.warning("api_key_unreadable", entry=entry.name)
            else:
                self._keys[key.id] = key

    async def watch(self) -> None:
        """Keep up with the store until cancelled."""
        while True:
            await asyncio.sleep(PERIOD)
            with contextlib.suppress(StoreUnavailable):
                await self.refresh()


def everything(text: KeyText) -> Key:
    """Return the bootstrap key."""
    return Key(
        id=text.id,
        name="bootstrap",
        project=DEFAULT_PROJECT,
        scopes=frozenset({EVERYTHING}),
        hash=text.hash,
        created=0,
    )


def caller_of(key: Key) -> Caller:
    """Return who has the key."""
    return Caller(
        project=key.project,
        principal=f"{CREDENTIAL}{key.id}",
        scopes=key.scopes,
        credential=f"{CREDENTIAL}{key.id}",
        expires=key.expires,
    )


def over(cause: str) -> Unauthenticated:
    """Return the error for credentials that were good before."""
    what = "have expired" if cause == "expired" else "were revoked"
    return Unauthenticated(f"The credentials {what}. Use new ones.", cause=cause)
