"""Access: who calls, and what they may do.

`Identities` finds the caller of a call by its credentials. Each kind of credential has a verifier:
API keys, run tokens, the JWTs of an issuer, and client certificates.
"""

from __future__ import annotations

import asyncio

from polos_service.access.identities import Identities
from polos_service.access.keyring import KeyRing
from polos_service.access.open_streams import OpenStreams
from polos_service.cancelling import cancel_until_done
from polos_service.config import Settings
from polos_service.store.access import AccessStore


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
        self.identities = Identities(self.keys)
        self.streams = OpenStreams(self.keys.ended)
        self._watching: list[asyncio.Task[None]] = []

    async def start(self) -> None:
        """Read the keys, and keep up with what changes.

        Raises:
            StoreUnavailable: the keys cannot be read.

        """
        await self.keys.refresh()
        self._watching += [
            asyncio.create_task(self.keys.watch(), name="polos-keys"),
            asyncio.create_task(self.streams.watch(), name="polos-streams"),
        ]

    async def stop(self) -> None:
        """Keep up no more."""
        await cancel_until_done(self._watching)
