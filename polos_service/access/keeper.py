"""What administrators do with API keys."""

from __future__ import annotations

import hashlib
import time
from collections.abc import Sequence
from dataclasses import dataclass, replace

from polos_client.errors import (
    InvalidRequest,
    KeyNotFound,
    PermissionDenied,
    RequestIdReused,
    TooManyKeys,
)
from polos_client.wire import NAME_LIMIT, REQUEST_ID_LIMIT
from polos_service.access.keyring import KeyRing
from polos_service.access.keys import ENTRY, ID_DIGITS, Key, KeyText, encode, new_text
from polos_service.caller import ADMIN, EVERYTHING, SCOPES, Caller
from polos_service.logs import get_logger
from polos_service.store.access import AccessEntry, AccessStore, Changed

KEYS_LIMIT = 1000
"""Keys of a project at most, ended ones included: every replica has all of them in memory."""

log = get_logger(__name__)


@dataclass(frozen=True, kw_only=True, slots=True)
class NewKey:
    """A key to be created.

    Attributes:
        name: what it is for.
        project: whose runs it is for; empty for the caller's project.
        scopes: what it permits.
        expires: when it ends, in seconds since the epoch; None if it does not.
        request_id: makes the creation idempotent within the caller's project; empty if it is not.

    """

    name: str
    project: str
    scopes: Sequence[str]
    expires: float | None = None
    request_id: str = ""

    @property
    def digest(self) -> bytes:
        """What is the same for two requests that ask for the same key."""
        payload = repr((self.name, self.project, sorted(self.scopes), self.expires))
        return hashlib.sha256(payload.encode(errors="surrogatepass")).digest()


class Keeper:
    """Creates, lists and revokes keys. Every method may raise StoreUnavailable."""

    def __init__(self, ring: KeyRing, store: AccessStore) -> None:
        self._ring = ring
        self._store = store

    async def create(self, caller: Caller, new: NewKey) -> tuple[Key, KeyText | None]:
        """Create a key; return it, and its text unless the request id had created it.

        Raises:
            InvalidRequest: fields are wrong; it names all of them.
            PermissionDenied: the caller may not create this key.
            RequestIdReused: the request id created another key.
            TooManyKeys: the project has as many as it may.

        """
        check(new)
        project = project_of(caller, new.project)
        if EVERYTHING in new.scopes and not caller.may(EVERYTHING):
            raise denied(EVERYTHING, f"Only a key with the scope {EVERYTHING} can create another.")
        await self._ring.refresh()
        text = new_text(id_for(caller.project, new.request_id))
        if (known := self._ring.keys.get(text.id)) is not None:
            return created_before(known, new), None
        self._require_room(project)
        key = Key(
            id=text.id,
            name=new.name,
            project=project,
            scopes=frozenset(new.scopes),
            hash=text.hash,
            created=time.time(),
            expires=new.expires,
            digest=new.digest if new.request_id else b"",
        )
        try:
            await self._put(key, 0)
        except Changed:  # the same request is under way at another replica
            await self._ring.refresh()
            return created_before(self._ring.keys[text.id], new), None
        log.info("api_key_created", key=key.id, project=project, by=caller.principal)
        return key, text

    async def keys(self, caller: Caller, project: str, after: str) -> list[Key]:
        """Return the keys of a project whose ids follow `after`, by id.

        Raises:
            PermissionDenied: it is not the caller's project.

        """
        project = project_of(caller, project)
        await self._ring.refresh()
        found = (
            key for key in self._ring.keys.values() if key.project == project and key.id > after
        )
        return sorted(found, key=lambda key: key.id)

    async def revoke(self, caller: Caller, key_id: str) -> Key:
        """Revoke a key for good, and return it.

        Raises:
            KeyNotFound: the caller's project has no such key.

        """
        require_credentials(caller)
        while True:
            await self._ring.refresh()
            key = self._ring.keys.get(key_id)
            entry = self._ring.entry(ENTRY + key_id)
            hidden = key is not None and key.project != caller.project
            if key is None or entry is None or (hidden and not caller.may(EVERYTHING)):
                raise KeyNotFound(f"There is no API key {key_id!r}.", key_id=key_id)
            if key.revoked is not None:
                return key
            try:
                revoked = await self._put(replace(key, revoked=time.time()), entry.revision)
            except Changed:
                continue
            log.info("api_key_revoked", key=key.id, project=key.project, by=caller.principal)
            return revoked

    async def _put(self, key: Key, revision: int) -> Key:
        name, value = ENTRY + key.id, encode(key)
        stored = await self._store.put(name, value, revision)
        self._ring.take(AccessEntry(name=name, value=value, revision=stored))
        return key

    def _require_room(self, project: str) -> None:
        count = sum(key.project == project for key in self._ring.keys.values())
        if count >= KEYS_LIMIT:
            raise TooManyKeys(
                f"The project {project!r} has {count} API keys, ended ones included, which is the "
                "limit. Use existing keys.",
                limit=str(KEYS_LIMIT),
            )


def check(new: NewKey) -> None:
    """Refuse a key with wrong fields.

    Raises:
        InvalidRequest: it names every wrong field.

    """
    wrong = {}
    if not new.name.strip():
        wrong["name"] = "is empty"
    for field, value, limit in (
        ("name", new.name, NAME_LIMIT),
        ("project", new.project, NAME_LIMIT),
        ("request_id", new.request_id, REQUEST_ID_LIMIT),
    ):
        if len(value) > limit:
            wrong[field] = f"has {len(value)} characters, the limit is {limit}"
    if not new.scopes:
        wrong["scopes"] = f"is empty; the scopes are {', '.join(SCOPES)}"
    for number, scope in enumerate(new.scopes):
        if scope not in SCOPES:
            wrong[f"scopes[{number}]"] = f"is {scope[:40]!r}, not one of {', '.join(SCOPES)}"
            break
    if new.expires is not None and new.expires <= time.time():
        wrong["expire_time"] = "is not in the future"
    if wrong:
        raise InvalidRequest(wrong)


def project_of(caller: Caller, project: str) -> str:
    """Return the project that a caller means.

    Raises:
        PermissionDenied: the caller may not manage its keys.

    """
    require_credentials(caller)
    if project not in ("", caller.project) and not caller.may(EVERYTHING):
        raise denied(EVERYTHING, f"The keys of another project need the scope {EVERYTHING}.")
    return project or caller.project


def require_credentials(caller: Caller) -> None:
    """Refuse callers without credentials: they could lock everybody else out.

    Raises:
        PermissionDenied: access is off.

    """
    if not caller.credential:
        raise denied(
            ADMIN,
            "Access is off. Restart the service with POLOS_BOOTSTRAP_KEY, or create the first key "
            "in its store with `polos keys create --store`; for a SQLite file, stop the service "
            "first.",
        )


def denied(scope: str, message: str) -> PermissionDenied:
    """Return the error for what the caller's scopes do not permit."""
    return PermissionDenied(message, scope=scope)


def id_for(project: str, request_id: str) -> str:
    """Return the id of the key that a request id creates; empty if it is to be a random one."""
    if not request_id:
        return ""
    written = f"{len(project)}:{project}:{request_id}"
    return hashlib.sha256(written.encode(errors="surrogatepass")).hexdigest()[:ID_DIGITS]


def created_before(key: Key, new: NewKey) -> Key:
    """Return the key that the request id created.

    Raises:
        RequestIdReused: it was to be another one.

    """
    if key.digest != new.digest:
        raise RequestIdReused(
            f"The request id {new.request_id!r} already created key {key.id} with another payload. "
            "Use a new request id for a new key.",
            request_id=new.request_id,
            key_id=key.id,
        )
    return key
