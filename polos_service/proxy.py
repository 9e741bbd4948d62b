"""The HTTP proxy that the environment names for an address."""

from __future__ import annotations

from base64 import b64encode
from collections.abc import Mapping
from dataclasses import dataclass, field
from urllib.parse import unquote, urlsplit
from urllib.request import getproxies, proxy_bypass

from yarl import URL


@dataclass(frozen=True, slots=True)
class Proxy:
    """A proxy, or none: the variables are `HTTP_PROXY`, `HTTPS_PROXY`, `ALL_PROXY` and `NO_PROXY`.

    Attributes:
        url: without user and password; None if there is no proxy.
        place: HOST:PORT; empty if there is no proxy.
        headers: what it wants to be told.
        secrets: what must not be shown of it.

    """

    url: URL | None = None
    place: str = ""
    headers: Mapping[str, str] = field(default_factory=dict)
    secrets: tuple[str, ...] = ()

    @classmethod
    def of(cls, url: str) -> Proxy:
        """Return the proxy for calls of this URL."""
        target, proxies = urlsplit(url), getproxies()
        found = proxies.get(target.scheme) or proxies.get("all")
        if not found or proxy_bypass(target.netloc):
            return cls()
        proxy = urlsplit(found if "://" in found else f"http://{found}")
        user, _, place = proxy.netloc.rpartition("@")
        bare = URL(proxy._replace(netloc=place).geturl())
        if not user:
            return cls(bare, place)
        credentials = b64encode(unquote(user).encode()).decode()
        secrets = tuple(filter(None, (credentials, unquote(user), *map(unquote, user.split(":")))))
        return cls(bare, place, {"Proxy-Authorization": f"Basic {credentials}"}, secrets)
