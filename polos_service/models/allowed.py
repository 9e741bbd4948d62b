"""Which addresses of providers the operator allows."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Self
from urllib.parse import SplitResult, unquote, urlsplit

from polos_service.config import SettingsInvalidError, named

PORTS = {"http": 80, "https": 443}
"""The ports that URLs without one stand for."""

_HOST = re.compile(r"\.?\w[\w.-]*|[0-9a-f:.]*:[0-9a-f:.]*", re.ASCII)
"""A host: a name or an IP address, in lower case and without brackets."""

_CLIMBS = re.compile(r"(^|[/\\])\.\.?([/\\]|$)")
"""A path that leads elsewhere than it seems to."""


@dataclass(frozen=True, slots=True)
class Entry:
    """An address, or some, that are allowed.

    Attributes:
        host: in lower case; with a dot before it, all hosts below it.
        port: None for the default one.
        scheme: empty for both.
        path: what is allowed is this and what is below it; without a slash at its end.

    """

    host: str
    port: int | None
    scheme: str
    path: str

    @classmethod
    def of(cls, text: str) -> Self:
        """Read HOST, HOST:PORT or a base URL; `*.` before a host stands for all hosts below it.

        Raises:
            ValueError: it is something else.

        """
        url = urlsplit(text.strip() if "://" in text else f"//{text.strip()}")
        given = url.hostname or ""
        host = given.removeprefix("*")
        below = host != given
        if not _HOST.fullmatch(host) or host.startswith(".") != below or url.port == 0:
            raise ValueError
        plain = not (url.query or url.fragment or "@" in url.netloc)
        if url.scheme not in ("", *PORTS) or not plain or (url.path and not url.scheme):
            raise ValueError
        return cls(host, url.port, url.scheme, url.path.rstrip("/"))

    def covers(self, url: SplitResult) -> bool:
        """Return whether it allows a base URL."""
        host = url.hostname or ""
        below = self.host.startswith(".") and host.endswith(self.host)
        default = PORTS[url.scheme]
        within = not self.path or f"{url.path}/".startswith(f"{self.path}/")
        return (
            (below or host == self.host)
            and (url.port or default) == (self.port or default)
            and self.scheme in ("", url.scheme)
            and within
            and not (self.path and _CLIMBS.search(unquote(url.path)))
        )


class Allowed:
    """The addresses that are allowed."""

    def __init__(self, entries: Sequence[str] | None = None) -> None:
        """Allow these, or all if it is None.

        Raises:
            SettingsInvalidError: one is neither a host nor a base URL. It is not repeated: it may
                hold a password.

        """
        self._entries: Sequence[Entry] | None = None
        if entries is None:
            return
        read = []
        for number, text in enumerate(entries, 1):
            try:
                read.append(Entry.of(text))
            except ValueError:
                raise SettingsInvalidError(
                    f"{named('provider_allow')}: item {number} is not HOST, HOST:PORT or a base "
                    "URL without user and password"
                ) from None
        self._entries = read

    def permits(self, base_url: str) -> bool:
        """Return whether calls may go below a base URL, which is that of an `Address`."""
        if self._entries is None:
            return True
        url = urlsplit(base_url)
        return any(entry.covers(url) for entry in self._entries)
