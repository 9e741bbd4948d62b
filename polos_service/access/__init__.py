"""Access: who calls, and what they may do.

`Identities` finds the caller of a call by its credentials. Each kind of credential has a verifier:
API keys, run tokens, the JWTs of an issuer, and client certificates.
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

from polos_client.errors import Unauthenticated
from polos_service.access.credentials import PeerVerifier
from polos_service.access.identities import Identities
from polos_service.access.keeper import Keeper
from polos_service.access.keyring import KeyRing, over
from polos_service.access.keys import KeyText, parse
from polos_service.access.open_streams import OpenStreams
from polos_service.access.run_readers import RunReaders
from polos_service.access.signing import SigningKeys
from polos_service.caller import Caller
from polos_service.cancelling import cancel_until_done
from polos_service.config import Settings, SettingsInvalidError, named
from polos_service.store.access import AccessStore

if TYPE_CHECKING:  # cryptography takes a tenth of a second, and most services have no issuer
    from polos_service.access.jwt import Jwts


class Access:
    """Everything about access, put together.

    Attributes:
        keys: the API keys.
        keeper: what administrators do with them.
        signing: the key that run tokens are signed with.
        run_readers: creates run tokens.
        identities: finds who makes a call.
        streams: ends the streams of callers whose credentials have ended.

    """

    def __init__(self, settings: Settings, store: AccessStore, *, off: bool = False) -> None:
        """Prepare; `start` reads the keys. If `off`, callers need no credentials in any case.

        Raises:
            SettingsInvalidError: the bootstrap key is not a key.

        """
        self.keys = KeyRing(store, bootstrap_key(settings))
        self.keeper = Keeper(self.keys, store)
        self.signing = SigningKeys(self.keys, store)
        self.run_readers = RunReaders(self.keys, self.signing, self._revoked)
        self._jwts = None if off else jwts(settings)
        self.identities = Identities(
            self.keys,
            off=off,
            run_tokens=self.run_readers,
            jwts=self._jwts,
            certificates=named_certificates(settings),
        )
        self.streams = OpenStreams(self._ended)
        self._watching: list[asyncio.Task[None]] = []

    async def start(self) -> None:
        """Read the keys, and keep up with what changes; an issuer is not waited for.

        Raises:
            StoreUnavailable: the keys cannot be read.

        """
        await self.keys.refresh()
        if self._jwts is not None:
            self._jwts.keys.start()
        self._watching += [
            asyncio.create_task(self.keys.watch(), name="polos-keys"),
            asyncio.create_task(self.streams.watch(), name="polos-streams"),
        ]

    async def stop(self) -> None:
        """Keep up no more."""
        await cancel_until_done(self._watching)
        if self._jwts is not None:
            await self._jwts.keys.close()

    def _ended(self, caller: Caller) -> Unauthenticated | None:
        """Return why a caller's credentials are no longer good; None if they are."""
        error = self.keys.ended(caller) or self.run_readers.ended(caller)
        return error or (over("revoked") if self._revoked(caller.credential) else None)

    def _revoked(self, credential: str) -> bool:
        """Return whether a credential was revoked, or the key that it is signed with withdrawn."""
        withdrawn = self._jwts is not None and self._jwts.withdrawn(credential)
        return withdrawn or self.keys.revoked(credential)


def named_certificates(settings: Settings) -> PeerVerifier | None:
    """Return what finds callers by their certificates; None if the settings name nobody."""
    if settings.client_identities is None:
        return None
    from polos_service.access.certificates import Certificates  # noqa: PLC0415 - as jwts

    return Certificates(settings.client_identities)


def jwts(settings: Settings) -> Jwts | None:
    """Return what verifies the JWTs of the issuer; None if the settings name none."""
    if settings.jwt_issuer is None:
        return None
    from polos_service.access.issuer_keys import IssuerKeys  # noqa: PLC0415
    from polos_service.access.jwt import Jwts  # noqa: PLC0415

    keys = IssuerKeys(
        settings.jwt_issuer,
        settings.jwt_jwks_url,
        settings.jwt_algorithms,
        settings.jwt_refresh,
    )
    return Jwts(settings, keys)


def bootstrap_key(settings: Settings) -> KeyText | None:
    """Return the key that the operator has set; None if there is none.

    Raises:
        SettingsInvalidError: it is not a key. An empty one is not taken for none, which would open
            the service.

    """
    if settings.bootstrap_key is None:
        return None
    try:
        return parse(settings.bootstrap_key.get_secret_value())
    except Unauthenticated:
        raise SettingsInvalidError(
            f"{named('bootstrap_key')}: is not of the form polos_ID_SECRET, with 1 to 32 "
            "lower-case letters and digits and 32 to 128 letters, digits, _ and -; make one with "
            "`echo polos_boot_$(openssl rand -hex 32)`, or unset the variable"
        ) from None
