"""Access: who calls, and what they may do.

`Identities` finds the caller of a call by its credentials. Each kind of credential has a verifier:
API keys, run tokens, the JWTs of an issuer, and client certificates.
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

from polos_client.errors import Unauthenticated
from polos_service.access.certificates import Certificates
from polos_service.access.identities import Identities
from polos_service.access.keyring import KeyRing
from polos_service.access.open_streams import OpenStreams
from polos_service.caller import Caller
from polos_service.cancelling import cancel_until_done
from polos_service.config import Settings
from polos_service.store.access import AccessStore

if TYPE_CHECKING:
    from polos_service.access.jwt import Jwts


class Access:
    """Everything about access, put together.

    Attributes:
        keys: the API keys.
        identities: finds who makes a call.
        streams: ends the streams of callers whose credentials have ended.

    """

    def __init__(self, settings: Settings, store: AccessStore) -> None:
        """Prepare; `start` reads the keys."""
        bootstrap = settings.bootstrap_key
        self.keys = KeyRing(store, None if bootstrap is None else bootstrap.get_secret_value())
        self._jwts = jwts(settings)
        certificates = Certificates(settings.client_identities)
        self.identities = Identities(
            self.keys,
            jwts=self._jwts,
            certificates=certificates if settings.client_identities else None,
        )
        self.streams = OpenStreams(self._ended)
        self._watching: list[asyncio.Task[None]] = []

    async def start(self) -> None:
        """Read the keys, and keep up with what changes.

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
        error = self.keys.ended(caller)
        return error if error is not None or self._jwts is None else self._jwts.ended(caller)


def jwts(settings: Settings) -> Jwts | None:
    """Return what verifies the JWTs of the issuer; None if the settings name none."""
    if settings.jwt_issuer is None:
        return None
    # Loaded late: cryptography takes a tenth of a second, and most services have no issuer.
    from polos_service.access.issuer_keys import IssuerKeys  # noqa: PLC0415
    from polos_service.access.jwt import Jwts  # noqa: PLC0415

    keys = IssuerKeys(
        settings.jwt_issuer,
        settings.jwt_jwks_url,
        settings.jwt_algorithms,
        settings.jwt_refresh,
    )
    return Jwts(settings, keys)
