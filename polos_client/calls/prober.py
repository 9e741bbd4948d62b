"""Prober: says why a service is not reached, in one probe for all calls that fail together."""

from __future__ import annotations

import asyncio
import time
from concurrent.futures import Future

from polos_client.calls.certificates import Certificates
from polos_client.calls.channels import Credentials
from polos_client.calls.daemon import in_daemon
from polos_client.calls.place import Place
from polos_client.calls.probe import PLAIN, Fault, find_fault
from polos_client.calls.proxies import proxy_for
from polos_client.calls.status import START, unreached
from polos_client.errors import ConnectionLost

EVERY = 1.0
"""Seconds for which what a probe has found is believed."""

PATIENCE = 1.5
"""Seconds that a call which failed waits for a probe to say why."""

UNKNOWN = Fault(what="no answer", advice=START)
"""The fault where a probe finds none."""

_TLS_SIGNS = ("Tls handshake failed", "Verification Check failed", "missing selected ALPN")
"""What grpc says of a handshake that no later attempt mends."""


class Prober:
    """Probes for one client, in all its event loops."""

    def __init__(self, credentials: Credentials) -> None:
        """Remember how the client encrypts."""
        self._credentials = credentials
        self._probe: Future[Fault | None] | None = None
        self._probed = float("-inf")

    async def find(self, address: str) -> Fault | None:
        """Return what keeps the client from the address; None: nothing that was found in time."""
        now = time.monotonic()
        if self._probe is None or (self._probe.done() and now - self._probed > EVERY):
            self._probe = in_daemon(lambda: self._find(address))
            self._probed = now
        try:
            async with asyncio.timeout(PATIENCE):
                return await asyncio.wrap_future(self._probe)
        except TimeoutError:
            return None

    def _find(self, address: str) -> Fault | None:
        place = Place.of(address)
        known = self._credentials if isinstance(self._credentials, Certificates) else None
        encrypted = self._credentials is not None
        return find_fault(place, known, proxy_for(place), encrypted=encrypted)


def fault_told_by(details: str) -> Fault | None:
    """Return the fault that grpc itself names, where a probe could not check what grpc does."""
    if not any(sign in details for sign in _TLS_SIGNS):
        return None
    return Fault(what=details, advice=PLAIN, final=True)


def way_to(address: str) -> str:
    """Return an address, with the proxy through which grpc goes there."""
    proxy = proxy_for(Place.of(address))
    return address if proxy is None else f"{address} through {proxy}"


def lost(address: str, fault: Fault, code: str = "UNAVAILABLE") -> ConnectionLost:
    """Return the error of a service that a fault keeps a client from."""
    return unreached(way_to(address), f"{code}: {fault.what}", fault.advice)
