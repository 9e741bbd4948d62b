"""The address of a provider: what is sent there, what is shown, and what is secret in it."""

from __future__ import annotations

import re
from base64 import b64encode
from dataclasses import dataclass

import httpx2

from polos.v1.error_pb2 import FailureReason
from polos_service.errors import StepError

MAX_PORT = 65535
"""The last port of TCP."""

_NAME = re.compile(r"[\w.-]+|\[[0-9a-f:.]+\]", re.ASCII | re.IGNORECASE)
"""A host that a connection can be made to, as it stands in a URL: a name, or an IP address."""


@dataclass(frozen=True, slots=True, repr=False)
class Address:
    """A provider's base URL, taken apart.

    Attributes:
        url: the base URL without user, password and a slash at its end.
        host: host and port, for messages.
        user: decoded; empty if the base URL has none.
        password: decoded; empty if the base URL has none.

    """

    url: str
    host: str
    user: str = ""
    password: str = ""

    @classmethod
    def of(cls, base_url: str) -> Address:
        """Take a base URL apart.

        Raises:
            StepError: it is not an address. The message does not repeat it: it can hold a password.

        """
        try:
            url = httpx2.URL(base_url.strip().rstrip("/"))
            netloc = url.netloc.decode()
            bare = str(url.copy_with(userinfo=b""))
        except (httpx2.InvalidURL, ValueError):
            raise _not_an_address() from None
        usable = url.port is None or 0 < url.port <= MAX_PORT
        if url.scheme not in ("http", "https") or not usable or not _names(url):
            raise _not_an_address()
        return cls(bare.rstrip("/"), netloc, url.username, url.password)

    @property
    def name(self) -> str:
        """The host without its port."""
        return httpx2.URL(self.url).host

    def is_at(self, host: str) -> bool:
        """Whether the address is at this host, or at one below it."""
        return self.name == host or self.name.endswith(f".{host}")

    @property
    def authorization(self) -> str:
        """The Authorization header that user and password make; empty without them."""
        if not (self.user or self.password):
            return ""
        return f"Basic {b64encode(self._pair.encode()).decode()}"

    @property
    def secrets(self) -> tuple[str, ...]:
        """What must not be shown: user and password, alone, together and as they are sent."""
        if not self.authorization:
            return ()
        parts = (self._pair, self.authorization.split()[1], self.user, self.password)
        return tuple(filter(None, parts))

    @property
    def _pair(self) -> str:
        return f"{self.user}:{self.password}"


def _names(url: httpx2.URL) -> bool:
    """Return whether the URL's host is one that a connection can be made to."""
    host = url.netloc.decode().removesuffix(f":{url.port}")
    return _NAME.fullmatch(host) is not None


def _not_an_address() -> StepError:
    return StepError(
        FailureReason.FAILURE_REASON_MODEL_BAD_REQUEST,
        "The provider's base URL is not an http:// or https:// address with a host and, where it "
        f"names one, a port from 1 to {MAX_PORT}. Check the agent's provider_base_url, or the base "
        "URL of its provider in the environment of the service.",
    )
