"""The address that all workers listen at, held so that nobody else can."""

from __future__ import annotations

import errno
import socket
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager

from polos_service.listening import ListenError, ip, parts, reason, resolve

Place = tuple[socket.AddressFamily, tuple[object, ...]]
"""Where a socket is bound: a family, and an address of it."""


@contextmanager
def held(listen: str) -> Iterator[str]:
    """Hold HOST:PORT, and give it with a free port for port 0.

    Workers share the port by SO_REUSEPORT, and so could a service that has nothing to do with
    them. What keeps it away is a socket here that does not listen: it shares the port with
    sockets that have SO_REUSEPORT, too, which `polos serve` sets only for its own workers.

    Raises:
        ListenError: the address cannot be listened at.

    """
    host = listen.rpartition(":")[0]
    port = parts(listen)[1]
    failures: list[OSError] = []
    with ExitStack() as sockets:
        for family, address in (found := places(listen)):
            try:
                one = sockets.enter_context(take(family, (address[0], port, *address[2:])))
            except OSError as error:
                failures.append(error)
            else:
                port = one.getsockname()[1]
        # As for gRPC, one address of a name is enough; but one that is in use would be shared.
        in_use = [error for error in failures if error.errno == errno.EADDRINUSE]
        if in_use or len(failures) == len(found):
            failed = [*in_use, *failures][0]
            raise ListenError(f"Cannot listen on {listen}: {reason(failed, listen)}") from failed
        yield f"{host}:{port}"


def places(listen: str) -> list[Place]:
    """Return where gRPC listens for HOST:PORT; a wildcard is that of both families."""
    found = resolve(listen)
    if any(ip(address).is_unspecified for _, address in found) and socket.has_dualstack_ipv6():
        return [(socket.AF_INET6, ("::", parts(listen)[1]))]
    return found


def take(family: socket.AddressFamily, address: tuple[object, ...]) -> socket.socket:
    """Return a socket that is bound to the address, does not listen, and can be shared.

    First somebody must be able to listen there alone: that excludes every other listener, and
    whoever does the same at the same time.
    """
    with unbound(family) as alone:
        alone.bind(address)
        alone.listen()
        alone.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        shared = unbound(family)
        shared.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        shared.bind(alone.getsockname())
    # The remains of former connections needed it; it would let in others.
    shared.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 0)
    return shared


def unbound(family: socket.AddressFamily) -> socket.socket:
    """Return a socket that takes an address although former connections remain there."""
    one = socket.socket(family)
    one.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    if family is socket.AF_INET6:
        one.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 0)
    return one
