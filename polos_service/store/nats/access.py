"""The AccessStore in JetStream: a bucket that is made when the first value is put."""

from __future__ import annotations

from collections.abc import Sequence

from polos_service.store.access import AccessEntry, Changed
from polos_service.store.nats.jetstream import Conflict, JetStream, Refused
from polos_service.store.nats.streams import make_stream
from polos_service.store.nats.subjects import ACCESS, EVERY_ENTRY

STREAM_NOT_FOUND = 10059
"""Error code for a stream that does not exist."""


class Access:
    """Values by name; the revision of a value is its sequence in the stream."""

    def __init__(self, jetstream: JetStream, replicas: int) -> None:
        """Keep values on so many servers, where the bucket is made here."""
        self._jetstream = jetstream
        self._replicas = replicas

    async def entries(self, after: int) -> Sequence[AccessEntry]:
        """Return values that were put after a revision."""
        try:
            info = await self._jetstream.request(f"STREAM.INFO.{ACCESS}")
        except Refused as refused:
            if refused.code == STREAM_NOT_FOUND:
                return ()
            raise
        if info["state"]["last_seq"] <= after:
            return ()
        prefix = EVERY_ENTRY.removesuffix(">")
        return [
            AccessEntry(
                name=message.subject.removeprefix(prefix),
                value=message.data,
                revision=message.sequence,
            )
            for message in await self._jetstream.page_or_next(ACCESS, EVERY_ENTRY, after + 1)
        ]

    async def put(self, name: str, value: bytes, revision: int) -> int:
        """Put a value in place of the one with this revision."""
        await make_stream(self._jetstream, ACCESS, self._replicas)
        try:
            return await self._jetstream.put(
                ACCESS,
                EVERY_ENTRY.removesuffix(">") + name,
                value,
                expected=revision,
                same=lambda last: last.data == value,
            )
        except Conflict as conflict:
            raise Changed(name) from conflict
