"""The streams and buckets: made on first use, checked, and looked at for health."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from typing import Any

import orjson
from nats.errors import Error

from polos_client.errors import StoreUnavailable
from polos_service.logs import get_logger
from polos_service.store.nats.connection import Away
from polos_service.store.nats.jetstream import JetStream, Refused
from polos_service.store.nats.messages import SECOND
from polos_service.store.nats.subjects import (
    ACCESS,
    ALARMS,
    COMMANDED,
    COMMANDS,
    DEFINITIONS,
    EVERY_ENTRY,
    EVERY_USAGE,
    LOG,
    REQUESTS,
    RUNS,
    USAGE,
    WAITS,
    WATCHERS,
    WORK,
)
from polos_service.store.usage import DAY

NAME_IN_USE = 10058
"""Error code for a stream that exists with another configuration."""

BUCKET = {"max_msgs_per_subject": 1, "allow_rollup_hdrs": True, "deny_delete": True}
"""What makes a stream a key-value bucket that NATS' own tools read."""

COMMON = {"retention": "limits", "discard": "new", "allow_direct": True}
"""Settings of every stream, unless STREAMS says otherwise. Nothing is dropped to make room."""

STREAMS: Mapping[str, Mapping[str, Any]] = {
    LOG: {
        "subjects": ["polos.log.>"],
        # A publish that is refused is never republished, unlike what a plain
        # subscription to the log's own subject would see.
        "republish": {"src": "polos.log.>", "dest": "polos.new.>", "headers_only": True},
    },
    WORK: {"subjects": ["polos.work.>"], "retention": "workqueue"},
    **{
        bucket: {"subjects": [f"$KV.{bucket.removeprefix('KV_')}.>"], **BUCKET}
        for bucket in (RUNS, REQUESTS, DEFINITIONS, ALARMS, WAITS, WATCHERS)
    },
    COMMANDS: {
        "subjects": ["$KV.POLOS_COMMANDS.>"],
        "republish": {"src": "$KV.POLOS_COMMANDS.>", "dest": COMMANDED, "headers_only": True},
        **BUCKET,
    },
}
"""The settings of each stream that what is built on it needs."""

ON_DEMAND: Mapping[str, Mapping[str, Any]] = {
    ACCESS: {"subjects": [EVERY_ENTRY], **BUCKET},
    USAGE: {"subjects": [EVERY_USAGE], "max_age": 2 * DAY * SECOND, **BUCKET},
}
"""The settings of streams that are made when they are first needed."""

HEARD = 10 * SECOND
"""Nanoseconds of silence after which a stream's leader counts a replica as away."""

OPERATORS = ("allow_rollup_hdrs", "deny_delete")
"""Settings that nothing here depends on: an operator may change them."""

log = get_logger(__name__)


async def make_streams(jetstream: JetStream, replicas: int) -> None:
    """Make the streams that are missing, and check the others.

    Raises:
        StoreUnavailable: JetStream is off, or cannot place so many replicas, or there is a
            stream with a setting that differs.

    """
    await asyncio.gather(*(make_stream(jetstream, name, replicas) for name in STREAMS))


async def make_stream(jetstream: JetStream, name: str, replicas: int) -> None:
    """Make a stream, unless it exists: then its operator decides about its replicas."""
    config = {
        "name": name,
        "storage": "file",
        "num_replicas": replicas,
        **COMMON,
        **{**STREAMS, **ON_DEMAND}[name],
    }
    try:
        await jetstream.request(f"STREAM.CREATE.{name}", config)
    except Refused as refused:
        if refused.code != NAME_IN_USE:
            raise StoreUnavailable(
                f"NATS does not create the stream {name}. {refused} It needs JetStream, and "
                f"{replicas} servers for {replicas} replicas (POLOS_NATS_REPLICAS)."
            ) from refused
        check(name, (await jetstream.request(f"STREAM.INFO.{name}"))["config"])


def check(name: str, found: Mapping[str, Any]) -> None:
    """Refuse a stream whose settings do not suit what is built on it.

    Raises:
        StoreUnavailable: a setting differs that an operator must not change.

    """
    for setting, wanted in {**COMMON, **{**STREAMS, **ON_DEMAND}[name]}.items():
        if setting not in OPERATORS and found.get(setting) != wanted:
            raise StoreUnavailable(
                f"The stream {name} in NATS has {setting} {shown(found.get(setting))}, and needs "
                f"{shown(wanted)}. Change it with `nats stream edit {name}`, or if it is not this "
                "service's stream, give the service a NATS account of its own."
            )


def shown(value: object) -> str:
    """Return a setting as JSON, as NATS' own tools show it."""
    return orjson.dumps(value).decode()


class Health:
    """Whether the store can do its job, as far as NATS knows; what is wrong is logged once."""

    def __init__(self, jetstream: JetStream) -> None:
        self._jetstream = jetstream
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
                self._names(), self._jetstream.ask_once(f"STREAM.INFO.{LOG}")
            )
        except (Error, Away, Refused, TimeoutError) as error:
            return str(error) or "JetStream does not answer"
        missing = sorted(STREAMS.keys() - names)
        if missing:
            return f"there is no stream {', '.join(missing)}: restore it, or start a service anew"
        sealed = (info.get("config") or {}).get("sealed")
        if sealed:
            return f"the stream {LOG} is sealed: nothing can be stored in it"
        return "" if led(info) else f"the stream {LOG} has no leader with a quorum"

    async def _names(self) -> set[str]:
        names: set[str] = set()
        while True:
            page = await self._jetstream.ask_once("STREAM.NAMES", {"offset": len(names)})
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
