"""The streams and buckets, made on first use."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from typing import Any

import orjson

from polos_client.errors import StoreUnavailable
from polos_service.store.nats.link import Link, Refused
from polos_service.store.nats.subjects import (
    COMMANDED,
    COMMANDS,
    DEFINITIONS,
    LOG,
    REQUESTS,
    RUNS,
    WORK,
)

NAME_IN_USE = 10058
"""Error code for a stream that exists with another configuration."""

BUCKET = {"max_msgs_per_subject": 1, "allow_rollup_hdrs": True, "deny_delete": True}
"""What makes a stream a key-value bucket that NATS' own tools read."""

COMMON = {"retention": "limits", "discard": "new", "allow_direct": True}
"""What every stream has that says nothing else of it. Nothing is dropped to make room."""

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
        for bucket in (RUNS, REQUESTS, DEFINITIONS)
    },
    COMMANDS: {
        "subjects": ["$KV.POLOS_COMMANDS.>"],
        "republish": {"src": "$KV.POLOS_COMMANDS.>", "dest": COMMANDED, "headers_only": True},
        **BUCKET,
    },
}

OPERATORS = ("allow_rollup_hdrs", "deny_delete")
"""Settings that nothing here depends on: where they differ, an operator wanted it so."""


async def make_streams(link: Link, replicas: int) -> None:
    """Make what is missing, and look whether the rest can do.

    Raises:
        StoreUnavailable: JetStream is off, or cannot place so many replicas, or there is a
            stream that works otherwise.

    """
    await asyncio.gather(*(make_stream(link, name, replicas) for name in STREAMS))


async def make_stream(link: Link, name: str, replicas: int) -> None:
    """Make a stream, unless it exists: then its operator decides about its replicas."""
    config = {
        "name": name,
        "storage": "file",
        "num_replicas": replicas,
        **COMMON,
        **STREAMS[name],
    }
    try:
        await link.request(f"STREAM.CREATE.{name}", config)
    except Refused as refused:
        if refused.code != NAME_IN_USE:
            raise StoreUnavailable(
                f"NATS does not make the stream {name}. {refused} It needs JetStream, and "
                f"{replicas} servers for {replicas} replicas (POLOS_NATS_REPLICAS)."
            ) from refused
        check(name, (await link.request(f"STREAM.INFO.{name}"))["config"])


def check(name: str, found: Mapping[str, Any]) -> None:
    """Refuse a stream that exists and does not do what is built on it.

    Raises:
        StoreUnavailable: a setting differs that an operator is not free in.

    """
    for setting, wanted in {**COMMON, **STREAMS[name]}.items():
        if setting not in OPERATORS and found.get(setting) != wanted:
            raise StoreUnavailable(
                f"The stream {name} in NATS has {setting} {shown(found.get(setting))}, and needs "
                f"{shown(wanted)}. Change it with `nats stream edit {name}`, or if it is not this "
                "service's stream, give the service a NATS account of its own."
            )


def shown(value: object) -> str:
    """Return a setting as JSON, as NATS' own tools show it."""
    return orjson.dumps(value).decode()
