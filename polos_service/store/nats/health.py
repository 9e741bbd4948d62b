"""Whether the store can do its job, as far as NATS knows; what is wrong is logged once."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from typing import Any

from nats.errors import Error

from polos_service.logs import get_logger
from polos_service.store.nats.connection import Away
from polos_service.store.nats.link import Link, Refused
from polos_service.store.nats.streams import STREAMS
from polos_service.store.nats.subjects import LOG

HEARD = 10 * 1_000_000_000
"""Nanoseconds of silence after which a stream's leader counts a replica as away."""

log = get_logger(__name__)


class Health:
    """How NATS is."""

    def __init__(self, link: Link) -> None:
        self._link = link
        self._told = ""

    async def good(self) -> bool:
        """Return whether events can be stored; asked once, for 2 s at most."""
        wrong = await self._wrong()
        if wrong and wrong != self._told:
            log.warning("nats_cannot_be_used", problem=wrong)
        self._told = wrong
        return not wrong

    async def _wrong(self) -> str:
        """Return what is wrong; empty if nothing is."""
        try:
            names, info = await asyncio.gather(
                self._names(), self._link.ask_once(f"STREAM.INFO.{LOG}")
            )
        except (Error, Away, Refused, TimeoutError) as error:
            return str(error) or "JetStream does not answer"
        missing = sorted(STREAMS.keys() - names)
        if missing:
            return f"there is no stream {', '.join(missing)}: restore it, or start a service anew"
        sealed = (info.get("config") or {}).get("sealed")
        if sealed:
            return f"the stream {LOG} is sealed: nothing can be stored in it"
        return "" if led(info) else f"the stream {LOG} has no leader that hears most of its servers"

    async def _names(self) -> set[str]:
        names: set[str] = set()
        while True:
            page = await self._link.ask_once("STREAM.NAMES", {"offset": len(names)})
            names |= set(page.get("streams") or ())
            if not page.get("streams") or len(names) >= page["total"]:
                return names


def led(info: Mapping[str, Any]) -> bool:
    """Return whether a stream has a leader that hears most of its replicas."""
    cluster = info.get("cluster")
    if cluster is None:
        return True  # a server alone
    others = cluster.get("replicas") or []
    heard = sum(one["active"] < HEARD and not one.get("offline") for one in others)
    return bool(cluster.get("leader")) and 2 * (heard + 1) > len(others) + 1
