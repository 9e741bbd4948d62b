"""The streams and buckets, made on first use."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from typing import Any

from polos_client.errors import StoreUnavailable
from polos_service.store.nats.link import Link, Refused
from polos_service.store.nats.subjects import COMMANDS, DEFINITIONS, LOG, REQUESTS, RUNS, WORK

NAME_IN_USE = 10058
"""Error code for a stream that exists with another configuration: it stays as it is."""

BUCKET = {"max_msgs_per_subject": 1, "allow_rollup_hdrs": True, "deny_delete": True}
"""What makes a stream a key-value bucket that NATS' own tools read."""

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
        for bucket in (RUNS, REQUESTS, DEFINITIONS, COMMANDS)
    },
}


async def make_streams(link: Link, replicas: int) -> None:
    """Make what is missing. Nothing is ever dropped to make room, or for its age.

    Raises:
        StoreUnavailable: JetStream is off, or cannot place so many replicas.

    """
    await asyncio.gather(*(make_stream(link, name, replicas) for name in STREAMS))


async def make_stream(link: Link, name: str, replicas: int) -> None:
    """Make a stream, unless it exists: then its operator decides about its replicas."""
    config = {
        "name": name,
        "storage": "file",
        "discard": "new",
        "num_replicas": replicas,
        "allow_direct": True,
        **STREAMS[name],
    }
    try:
        await link.request(f"STREAM.CREATE.{name}", config)
    except Refused as refused:
        if refused.code != NAME_IN_USE:
            raise StoreUnavailable(
                f"NATS does not make the stream {name}: {refused}. It needs JetStream, and "
                f"{replicas} servers for {replicas} replicas (POLOS_NATS_REPLICAS)."
            ) from refused
