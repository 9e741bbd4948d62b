"""What addresses in settings look like: where to listen, and where runs are stored."""

from __future__ import annotations

import ipaddress
import os
import re
from pathlib import Path

SCHEME = "sqlite://"
"""What the address of a SQLite file begins with."""

NATS_SCHEMES = ("nats://", "tls://")
"""What the address of NATS servers begins with."""

UNIX = "unix:"
"""What the address of a Unix socket begins with."""

MAX_PORT = 65535
"""The highest port."""


def listen_address(value: str) -> str:
    """Return an address to listen at, `HOST:PORT` or `unix:/PATH`, in this spelling.

    Raises:
        ValueError: it is neither; the message has the right spelling.

    """
    if value.startswith(UNIX):
        return f"{UNIX}{absolute(value)}"
    host, _, port = value.rpartition(":")
    if not (port.isascii() and port.isdecimal() and int(port) <= MAX_PORT and is_host(host)):
        hint = f"; put IPv6 in brackets: [{host}]:{port}" if is_ipv6(host) else ""
        hint = f"; put IPv6 in brackets: [{value}]:50051" if is_ipv6(value) else hint
        raise ValueError(
            f"{value!r} is not HOST:PORT, for example 127.0.0.1:50051, with a port from 0 to "
            f"{MAX_PORT}, or unix:/PATH{hint}"
        )
    return value


def absolute(value: str) -> str:
    """Return the path of a Unix socket, which may follow two more slashes, as in a URL."""
    path = value.removeprefix(UNIX).removeprefix("//")
    if not path.startswith("/"):
        raise ValueError(
            f"{value!r} has a relative path; the absolute one is {UNIX}{Path.cwd() / path}"
        )
    if "%" in path:
        raise ValueError(f"{value!r} has a %, which gRPC does not take as it is")
    if path.endswith("/") or "\0" in path:
        raise ValueError(f"{value!r} does not name a socket, for example unix:/run/polos.sock")
    return path


def unix_path(listen: str) -> Path | None:
    """Return the path of the Unix socket that an address names; None if it is HOST:PORT."""
    return Path(listen.removeprefix(UNIX)) if listen.startswith(UNIX) else None


def is_ipv6(host: str) -> bool:
    """Return whether this is an IPv6 address, without brackets."""
    try:
        return bool(ipaddress.IPv6Address(host))
    except ValueError:
        return False


def is_host(host: str) -> bool:
    """Return whether this is valid before a port: a name, IPv4, or IPv6 in brackets."""
    if host.startswith("["):
        return host.endswith("]") and is_ipv6(host[1:-1])
    return re.fullmatch(r"[\w.-]+", host) is not None


def servers_of(value: str) -> list[str]:
    """Return the URLs of the comma-separated servers that share one scheme."""
    scheme, _, places = value.partition("://")
    return [f"{scheme}://{place.rpartition('://')[2]}" for place in places.split(",")]


def file_problem(value: str) -> str | None:
    """Return why the value does not name a SQLite file; None if it does."""
    path = value.removeprefix(SCHEME)
    if path == value:
        return scheme_problem(value)
    if not path.strip("/") or "\0" in path:
        return "it does not name a file"
    if path.lstrip("/").startswith("~"):
        return home_problem(path.lstrip("/"))
    if re.match(r"/*[A-Za-z]:[/\\]", path) and os.name != "nt":
        return "this system has no drive letters"
    if not path.startswith("/"):
        return f"the path is relative; the absolute one is sqlite://{Path.cwd() / path}"
    return None


def scheme_problem(value: str) -> str:
    """Return how to write a value that does not start with sqlite://."""
    if not value or ":" in value or "\0" in value:
        return "write sqlite:// before an absolute path, which gives three slashes in total"
    path = f"/{value}" if value.startswith("~") else Path(value).absolute()
    return f"the address of that file is sqlite://{path}"


def home_problem(path: str) -> str | None:
    """Return why `~` or `~user` at the start of a path cannot be expanded; None if it can."""
    try:
        Path(path).expanduser()
    except RuntimeError:
        return f"the home folder {path.partition('/')[0]} is unknown"
    return None


def without_password(value: str) -> str:
    """Return an address without user and password."""
    return re.sub(r"://[^/]*@", "://", value)
