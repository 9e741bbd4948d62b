"""Place: what an address of grpc names, a socket file or a host and a port."""

from __future__ import annotations

import ipaddress
from dataclasses import dataclass

_DEFAULT_PORT = 443
"""The port of an address that names none, as grpc has it."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Place:
    """What an address names.

    Attributes:
        path: of a Unix socket; None: it is a host.
        host: without the brackets of IPv6; None: it is a Unix socket.
        port: of the host.

    """

    path: str | None = None
    host: str | None = None
    port: int = _DEFAULT_PORT

    @classmethod
    def of(cls, address: str) -> Place:
        """Return what an address names that `find_target` has taken."""
        if address.startswith("unix:"):
            path = address.removeprefix("unix:")
            return cls(path=path.removeprefix("//") if path.startswith("///") else path)
        named = address.removeprefix("dns:").rpartition("/")[2]
        host, colon, port = named.rpartition(":")
        if not (colon and port.isdigit()):
            host, port = named, ""
        return cls(host=host.strip("[]"), port=int(port or _DEFAULT_PORT))

    @property
    def is_local(self) -> bool:
        """Whether it is on this machine."""
        if self.host is None:
            return True
        name = self.host.lower().rstrip(".")
        try:
            return name == "localhost" or ipaddress.ip_address(name).is_loopback
        except ValueError:
            return name.endswith(".localhost")  # RFC 6761, section 6.3
