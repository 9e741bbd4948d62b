"""The keys of an issuer, kept fresh in the background.

A caller whose token names a known key waits for nobody. One with an unknown key waits for the next
fetch, which is never sooner than REFETCH_SECONDS after the one before, whoever asks for it.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Sequence

from polos_client.errors import CallError, StoreUnavailable, Unauthenticated
from polos_service import logs
from polos_service.access.fetching import FetchError, fetch
from polos_service.access.key_set import Keys, PublicKey, parse_keys, parse_object
from polos_service.cancelling import cancel_until_done
from polos_service.urls import address_problem

REFETCH_SECONDS = 3.0
"""Seconds at least from the end of a fetch to the next one."""

RETRY_SECONDS = 10.0
"""Seconds after which a fetch that failed is repeated, if nobody asks for it sooner."""

WAIT_SECONDS = 10.0
"""Seconds at most that a caller with an unknown key waits for a fetch."""

MAX_WAITING = 100
"""Callers at most that wait for a fetch; further ones are refused at once."""

DISCOVERY = "/.well-known/openid-configuration"
"""Where an issuer says where its keys are: OpenID Connect Discovery 1.0, section 4."""

log = logs.get_logger(__name__)


class IssuerKeys:
    """The keys of one issuer.

    Attributes:
        current: the keys that the last successful fetch found; empty before it. The object stays
            the same as long as the keys do.

    """

    def __init__(
        self, issuer: str, keys_url: str | None, algorithms: Sequence[str], refresh: float
    ) -> None:
        """Prepare; nothing is fetched before `start`.

        Args:
            issuer: its URL, exactly as it stands in tokens.
            keys_url: where its key set is; None: it is discovered.
            algorithms: what its keys may be used with.
            refresh: seconds between two fetches that nobody asks for.

        """
        self.current: Keys = {}
        self._issuer = issuer
        self._given_url = self._keys_url = keys_url
        self._algorithms = algorithms
        self._refresh = refresh
        self._task: asyncio.Task[None] | None = None
        self._asked = asyncio.Event()
        self._fetched = asyncio.Event()  # another one for each fetch
        self._begun = self._done = 0
        self._waiting = 0
        self._failure: str | None = None

    def start(self) -> None:
        """Fetch the keys now and from time to time, in the background."""
        self._task = asyncio.create_task(self._keep(), name="polos-issuer-keys")

    async def close(self) -> None:
        """Stop."""
        if self._task is not None:
            await cancel_until_done([self._task])

    async def find(self, kid: str, algorithm: str) -> PublicKey:
        """Return a key; for one that is not known, after a fetch that begins from now on.

        Raises:
            StoreUnavailable: no keys could be fetched yet.
            Unauthenticated: there is no such key.

        """
        if (key := self.current.get((kid, algorithm))) is not None:
            return key
        if self._waiting < MAX_WAITING:
            self._waiting += 1
            try:
                async with asyncio.timeout(WAIT_SECONDS):
                    key = await self._after_fetch(kid, algorithm)
            except TimeoutError:
                key = None
            finally:
                self._waiting -= 1
        if key is None:
            raise self._missing()
        return key

    async def _after_fetch(self, kid: str, algorithm: str) -> PublicKey | None:
        """Return a key once it is known; None if it is not after a fetch that began after now."""
        due = self._begun + 1
        key: PublicKey | None = None
        while key is None and self._done < due:
            self._asked.set()
            await self._fetched.wait()
            key = self.current.get((kid, algorithm))
        return key

    def _missing(self) -> CallError:
        if not self.current:
            return StoreUnavailable(
                "The token cannot be verified: the issuer's keys have not been fetched yet. "
                "Try again.",
                retry_after=REFETCH_SECONDS,
            )
        return Unauthenticated(
            "The token is signed with a key that is not among the issuer's. Get a new token.",
            cause="unknown",
        )

    async def _keep(self) -> None:
        while True:
            self._asked.clear()
            self._begun += 1
            await self._fetch()
            self._done = self._begun
            fetched, self._fetched = self._fetched, asyncio.Event()
            fetched.set()
            await asyncio.sleep(REFETCH_SECONDS)
            pause = self._refresh if self._failure is None else RETRY_SECONDS
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(max(0.0, min(pause, self._refresh) - REFETCH_SECONDS)):
                    await self._asked.wait()

    async def _fetch(self) -> None:
        """Take the keys that the issuer has now; if they cannot be fetched, the old ones stay."""
        try:
            if self._keys_url is None:
                self._keys_url = await self._discovered()
            document = await fetch(self._keys_url)
            keys = await asyncio.to_thread(parse_keys, document, self._algorithms)
        except FetchError as error:
            self._keys_url = self._given_url  # it may have moved
            self._failed(str(error))
            return
        except Exception as error:
            log.exception("issuer_keys_failed", issuer=self._issuer)
            self._failed(type(error).__name__)
            return
        if keys != self.current:
            self.current = keys
            log.info("issuer_keys_changed", issuer=self._issuer, keys=len({kid for kid, _ in keys}))
        elif self._failure is not None:
            log.info("issuer_keys_fetched", issuer=self._issuer)
        self._failure = None

    def _failed(self, why: str) -> None:
        if why != self._failure:
            stay = "keys that are known stay in use" if self.current else "no JWT is accepted yet"
            log.warning("issuer_keys_not_fetched", issuer=self._issuer, why=why, advice=stay)
        self._failure = why

    async def _discovered(self) -> str:
        """Return where the issuer says that its keys are."""
        url = self._issuer.rstrip("/") + DISCOVERY
        told = parse_object(await fetch(url), url)
        if told.get("issuer") != self._issuer:
            raise FetchError(f"{url} names another issuer than POLOS_JWT_ISSUER")
        keys_url = told.get("jwks_uri")
        here = self._issuer.startswith("http:")  # on this machine: nothing else is accepted
        if not isinstance(keys_url, str) or address_problem(keys_url, loopback=here):
            raise FetchError(f"{url} has no jwks_uri that is an https:// URL")
        return keys_url
