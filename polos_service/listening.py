"""Why an address cannot be listened at: gRPC says only that it cannot."""

from __future__ import annotations

import errno
import ipaddress
import socket

from polos_client.errors import PolosError
from polos_service import logs
from polos_service.addresses import unix_path
from polos_service.config import Settings

PRIVILEGED = 1024
"""Ports below need a privilege."""

OPEN = (
    "anyone who can reach this port can start and read every run: create API keys (polos keys "
    "create), or ask for client certificates (--tls-client-ca)"
)
"""What the log advises where other machines may reach the address without credentials."""

PLAINTEXT = (
    "anyone between the callers and this port can read and change calls, API keys included: let a "
    "proxy encrypt them, or give a certificate (--tls-cert, --tls-key)"
)
"""What the log advises where other machines may reach the address in plaintext."""

REFUSED = (
    "Cannot listen on {listen} in plaintext: other machines may reach this address. Give a "
    "certificate (--tls-cert and --tls-key), listen on 127.0.0.1 or unix:/PATH, or allow it with "
    "--insecure (POLOS_INSECURE=true) if a proxy or a private network protects it."
)
"""The error where plaintext is not allowed."""

log = logs.get_logger(__name__)


class ListenError(PolosError):
    """The address cannot be listened at; the message says why."""


def resolve(listen: str) -> list[tuple[socket.AddressFamily, tuple[object, ...]]]:
    """Return the addresses that HOST:PORT stands for, as sockets take them.

    Raises:
        ListenError: the host name is not known.

    """
    host, port = parts(listen)
    try:
        found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
    except (OSError, UnicodeError) as error:
        raise ListenError(
            f"Cannot listen on {listen}: the host name {host!r} cannot be resolved "
            f"({told(error)}). Name an address of this machine (--listen, POLOS_LISTEN)."
        ) from error
    return [(family, address) for family, _, _, _, address in found]


def probe(listen: str) -> None:
    """Bind a plain socket as gRPC does, and let go of it: at one of the addresses it must work.

    Raises:
        ListenError: it does not.

    """
    failed: OSError | None = None
    for family, address in resolve(listen):
        try:
            bind(family, address)
        except OSError as error:
            failed = failed or error
        else:
            return
    if failed is not None:
        raise ListenError(f"Cannot listen on {listen}: {reason(failed, listen)}") from failed


def bind(family: socket.AddressFamily, address: tuple[object, ...]) -> None:
    """Listen at an address for a moment; a wildcard is that of both families."""
    if ip(address).is_unspecified and socket.has_dualstack_ipv6():
        socket.create_server(
            ("::", address[1]), family=socket.AF_INET6, dualstack_ipv6=True
        ).close()
        return
    with socket.socket(family, socket.SOCK_STREAM) as one:
        one.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        one.bind(address)
        one.listen()


def reason(error: OSError, listen: str) -> str:
    """Return in sentences why it failed, and what to do."""
    host, port = parts(listen)
    another = "choose another one (--listen, POLOS_LISTEN)."
    match error.errno:
        case errno.EADDRINUSE:
            return f"the port is in use. Stop the program that uses it, or {another}"
        case errno.EACCES if 0 < port < PRIVILEGED:
            return (
                f"port {port} is privileged: ports below {PRIVILEGED} need root or "
                f"CAP_NET_BIND_SERVICE. Start with that, or {another}"
            )
        case errno.EADDRNOTAVAIL:
            return f"{host} is not an address of this machine. Correct it, or {another}"
    return f"{told(error)}. Correct the address, or {another}"


def check_reach(listen: str, settings: Settings) -> None:
    """Refuse plaintext where other machines may reach the address, or warn if it is allowed.

    Raises:
        ListenError: it is refused, or the host name is not known.

    """
    if settings.tls_cert is not None or not reaches_further(listen):
        return
    if not settings.insecure:
        raise ListenError(REFUSED.format(listen=listen))
    log.warning("listens_in_plaintext", address=listen, advice=PLAINTEXT)


def warn_if_open(settings: Settings) -> None:
    """Log what it means that callers need no credentials, if other machines may reach the service.

    Raises:
        ListenError: the host name is not known.

    """
    if settings.tls_client_ca is None and reaches_further(settings.listen):
        log.warning("listens_beyond_this_machine", address=settings.listen, advice=OPEN)


def reaches_further(listen: str) -> bool:
    """Return whether other machines may reach the address.

    Raises:
        ListenError: the host name is not known.

    """
    if unix_path(listen) is not None:
        return False
    return not all(ip(address).is_loopback for _, address in resolve(listen))


def ip(address: tuple[object, ...]) -> ipaddress.IPv4Address | ipaddress.IPv6Address:
    """Return the address of a socket without port and scope."""
    return ipaddress.ip_address(str(address[0]).partition("%")[0])


def parts(listen: str) -> tuple[str, int]:
    """Return host and port, the host without brackets."""
    host, _, port = listen.rpartition(":")
    return host.strip("[]"), int(port)


def told(error: Exception) -> str:
    """Return the system's words for an error."""
    return str(getattr(error, "strerror", None) or error)
