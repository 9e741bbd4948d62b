"""Which HTTP proxy grpc goes through: what its variables say, as far as messages tell it."""

from __future__ import annotations

import ipaddress
import os
from dataclasses import dataclass
from urllib.parse import urlsplit

from polos_client.calls.place import Place

_VARIABLES = ("grpc_proxy", "https_proxy", "http_proxy")
"""Where grpc looks for a proxy, in this order; in lower case only."""

_EXCEPTIONS = ("no_grpc_proxy", "no_proxy")
"""Where grpc looks for the hosts that it reaches directly, in this order."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Proxy:
    """An HTTP proxy. Its user and password are not kept: nothing here shows them.

    Attributes:
        host: its name or address.
        port: where it listens.
        variable: the variable of the environment that names it.

    """

    host: str
    port: int
    variable: str

    def __str__(self) -> str:
        return f"the proxy http://{self.host}:{self.port} ({self.variable})"


def proxy_for(place: Place) -> Proxy | None:
    """Return the proxy that grpc uses for a place; None: it goes there directly.

    The rules are those of grpc (`http_proxy_mapper.cc`), except that a place on this machine is
    always reached directly.
    """
    if place.is_local or place.host is None or _is_excepted(place.host):
        return None
    variable = next((name for name in _VARIABLES if os.environ.get(name)), None)
    if variable is None:
        return None
    try:
        url = urlsplit(os.environ[variable])
        port = 80 if url.port is None else url.port
    except ValueError:
        return None
    if url.scheme != "http" or not url.hostname:
        return None
    return Proxy(host=url.hostname, port=port, variable=variable)


def _is_excepted(host: str) -> bool:
    said = next((os.environ[name] for name in _EXCEPTIONS if os.environ.get(name)), "")
    return any(_matches(host, entry.strip()) for entry in said.split(",") if entry.strip())


def _matches(host: str, entry: str) -> bool:
    if host.lower().endswith(entry.lower()):
        return True
    try:
        return ipaddress.ip_address(host) in ipaddress.ip_network(entry, strict=False)
    except ValueError:
        return False
