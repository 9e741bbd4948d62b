"""Channels: those of one client, one for each event loop, with the certificates of today."""

from __future__ import annotations

import asyncio
import os
import threading
import time
import weakref
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import grpc.aio

from polos_client import wire
from polos_client.calls.certificates import Certificates
from polos_client.calls.place import Place
from polos_client.errors import DefinitionError

OPTIONS = (
    ("grpc.keepalive_time_ms", wire.PING_AFTER_MS),
    ("grpc.keepalive_timeout_ms", wire.PING_TIMEOUT_MS),
    ("grpc.max_receive_message_length", wire.RESPONSE_LIMIT),
    # By default grpc waits up to two minutes before it tries a lost address again.
    ("grpc.initial_reconnect_backoff_ms", 100),
    ("grpc.max_reconnect_backoff_ms", 2_000),
    # How long one attempt to connect may take, by default 20 s.
    ("grpc.min_reconnect_backoff_ms", 5_000),
)
"""What each channel is made with."""

DIRECT = (("grpc.enable_http_proxy", 0),)
"""With what a channel goes through no proxy, whatever the environment says."""

FORKED = (
    "this process was forked from one with a connected client, and gRPC does not work in it; make "
    "the client after the fork, and use none before it (or `await client.close()` first), or start "
    "processes with the method 'spawn' of multiprocessing"
)
"""What a client says in a process in which it would hang."""

Credentials = Certificates | grpc.ChannelCredentials | None
"""How a channel is encrypted; None: not at all."""

_open: weakref.WeakSet[grpc.aio.Channel] = weakref.WeakSet()
"""Every channel of this process that is not closed."""

_inherited: list[grpc.aio.Channel] = []
"""Channels that were open when this process was forked; to close or drop one would hang."""


_closed = threading.Event()
"""Set from when a channel is closed until gRPC's threads have ended."""

THREADS = frozenset({"event_engine", "grpc_global_tim", "lifeguard"})
"""What gRPC names its threads, cut to 15 bytes as Linux does."""

FORK_PATIENCE = 1.0
"""Seconds that a fork waits for them to end; it takes a few milliseconds."""


def _before_fork() -> None:
    """Wait for gRPC's threads to end once all channels are closed.

    A lock that one of them holds now would stay locked in the new process. Where there is no /proc,
    as on macOS, nothing says whether they have ended.
    """
    end = time.monotonic() + FORK_PATIENCE
    while _closed.is_set() and not _open and time.monotonic() < end:
        if THREADS.isdisjoint(_names_of_threads()):
            _closed.clear()
        else:
            time.sleep(0.001)


def _names_of_threads() -> Iterator[str]:
    for name in Path("/proc/self/task").glob("*/comm"):
        with suppress(OSError):  # that thread has ended meanwhile
            yield name.read_text().strip()


def _after_fork() -> None:
    _inherited.extend(_open)


if hasattr(os, "register_at_fork"):
    os.register_at_fork(before=_before_fork, after_in_child=_after_fork)


class Channels:
    """The channels of one client.

    Attributes:
        encrypted: whether they are over TLS.

    """

    def __init__(self, credentials: Credentials) -> None:
        """Remember how to encrypt; nothing connects."""
        self.credentials = credentials
        self._made: dict[
            asyncio.AbstractEventLoop,
            tuple[grpc.aio.Channel, tuple[str, grpc.ChannelCredentials | None]],
        ] = {}
        self._retired: weakref.WeakKeyDictionary[
            asyncio.AbstractEventLoop, weakref.WeakSet[grpc.aio.Channel]
        ] = weakref.WeakKeyDictionary()

    @property
    def encrypted(self) -> bool:
        """Whether they are over TLS."""
        return self.credentials is not None

    def get(self, address: str) -> grpc.aio.Channel:
        """Return the running loop's channel to the address.

        It is another one once the address or the files of the certificates have changed. The one
        before goes on for as long as somebody refers to it: whoever opens a stream does until the
        stream ends.

        Raises:
            DefinitionError: the process was forked from one whose client was connected.

        """
        if _inherited:
            raise DefinitionError(FORKED)
        loop = asyncio.get_running_loop()
        self._drop_closed()
        target = (address, self._current())
        made = self._made.get(loop)
        if made is not None and made[1] == target:
            return made[0]
        if made is not None:
            self._retired.setdefault(loop, weakref.WeakSet()).add(made[0])
        channel = _make(*target)
        self._made[loop] = (channel, target)
        return channel

    async def close(self) -> None:
        """Close the running loop's channels."""
        if _inherited:
            return
        self._drop_closed()
        loop = asyncio.get_running_loop()
        made = self._made.pop(loop, None)
        for channel in [*([made[0]] if made else []), *self._retired.pop(loop, ())]:
            _open.discard(channel)
            _closed.set()
            await channel.close()

    def _current(self) -> grpc.ChannelCredentials | None:
        if isinstance(self.credentials, Certificates):
            return self.credentials.current()
        return self.credentials

    def _drop_closed(self) -> None:
        """Forget the channels of loops that are closed; nobody can use or await them."""
        for loop in [one for one in self._made if one.is_closed()]:
            del self._made[loop]


def _make(address: str, credentials: grpc.ChannelCredentials | None) -> grpc.aio.Channel:
    options = OPTIONS + (DIRECT if Place.of(address).is_local else ())
    channel = (
        grpc.aio.insecure_channel(address, options=options)
        if credentials is None
        else grpc.aio.secure_channel(address, credentials, options=options)
    )
    _open.add(channel)
    return channel
