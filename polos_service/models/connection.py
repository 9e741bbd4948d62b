"""How a call of a model travels: the client of an address, a request, the head of its answer.

TLS, proxies, the pool and HTTP itself are those of aiohttp.
"""

from __future__ import annotations

import asyncio
import contextlib
import socket
import ssl
from base64 import b64encode
from collections.abc import AsyncIterator, Mapping
from dataclasses import dataclass, field
from http import HTTPStatus
from typing import Any
from urllib.parse import unquote, urlsplit
from urllib.request import getproxies, proxy_bypass

import aiohttp
from yarl import URL

from polos_service.models.body import PIECE_BYTES
from polos_service.models.lost import CONNECT_SECONDS, lost_by

IDLE_SECONDS = 4.5
"""How long an idle connection is kept; common servers close it after 5 seconds."""

MAX_HEADER_BYTES = 32 * 1024
"""Bytes of a header line, and of the status line."""

MAX_HEADERS = 256
"""Headers of an answer."""

READ_BYTES = 64 * 1024
"""Bytes of an answer that wait to be taken before the socket is not read any more: once or twice
as many."""

MAX_ERROR_BYTES = 64 * 1024
"""Bytes of an error's body that are read; then the connection is closed."""

ERROR_SECONDS = 5.0
"""How long an error's body is read; what came until then is what it says."""

SLICE_BYTES = 64 * 1024
"""Bytes of a request that are written at once, so that nobody waits for a large one."""

UNTAKEN_MILLISECONDS = 60_000
"""How long a provider may take nothing of what is sent; then its connection is given up."""

HEADERS = {"Accept-Encoding": "identity", "User-Agent": "polos-grpc"}
"""What every request says. A few compressed bytes can stand for gigabytes: see `compressed`."""


class RefusedError(Exception):
    """The provider answered with a status other than success.

    Attributes:
        status: the HTTP status.
        headers: the answer's headers.
        body: the text of the body, at most MAX_ERROR_BYTES of it; empty if it is compressed, which
            nobody asked for.

    """

    def __init__(self, status: int, headers: Mapping[str, str], body: str) -> None:
        super().__init__(status)
        self.status = status
        self.headers = headers
        self.body = body


@dataclass(frozen=True, slots=True)
class _Proxy:
    """The proxy that the environment names for an address, if it names one.

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
    def of(cls, url: str) -> _Proxy:
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


class Client:
    """The connections to one address, through the proxy that the environment names for it.

    Attributes:
        proxy: HOST:PORT of the proxy; empty if there is none.
        secrets: what must not be shown of the proxy.

    """

    def __init__(self, url: str, tls: ssl.SSLContext) -> None:
        """Prepare; nothing is connected yet.

        Args:
            url: the address, without user and password.
            tls: what certificates are checked with.

        """
        proxy = _Proxy.of(url)
        self.proxy, self.secrets, self._proxy = proxy.place, proxy.secrets, proxy.url
        # A tunnel is asked for with headers of its own; other requests go to the proxy as they are.
        tunnel = url.startswith("https:")
        self._proxy_headers = proxy.headers if tunnel else None
        self._session = aiohttp.ClientSession(
            connector=aiohttp.TCPConnector(
                limit=0,  # how many calls are made at once is not decided here
                keepalive_timeout=IDLE_SECONDS,
                ssl=tls,
                socket_factory=_socket,
            ),
            # An API needs no cookies, and a provider could set them without end.
            cookie_jar=aiohttp.DummyCookieJar(),
            headers=HEADERS if tunnel else {**HEADERS, **proxy.headers},
            # How long the model may be silent is the run's to say: see Silence.
            timeout=aiohttp.ClientTimeout(sock_connect=CONNECT_SECONDS),
            auto_decompress=False,
            read_bufsize=READ_BYTES,
            max_line_size=MAX_HEADER_BYTES,
            max_field_size=MAX_HEADER_BYTES,
            max_headers=MAX_HEADERS,
        )

    async def send(self, url: str, headers: Mapping[str, str], data: bytes) -> Response:
        """Post a JSON text; return the answer, of which the headers are read. The caller closes it.

        Raises:
            RefusedError: the provider answered with another status than success.
            LostError: no answer came.

        """
        told = {"Content-Length": str(len(data)), "Content-Type": "application/json"}
        try:
            response = await self._session.post(
                URL(url, encoded=True),
                data=data if len(data) <= SLICE_BYTES else _slices(data),
                headers={**told, **headers},
                # A redirect could lead to an address that no key and no prompt was meant for.
                allow_redirects=False,
                proxy=self._proxy,
                proxy_headers=self._proxy_headers,
            )
        except Exception as error:
            # What can be wrong with an address or a header is no closed list either.
            raise lost_by(error, self.proxy) from error
        if not HTTPStatus.OK <= response.status < HTTPStatus.MULTIPLE_CHOICES:
            try:
                body = await _error_body(response)
            finally:
                response.close()
            raise RefusedError(response.status, response.headers, body)
        return response

    async def close(self) -> None:
        """Close every connection."""
        await self._session.close()


Response = aiohttp.ClientResponse
"""An answer of which the headers are read. Closing it closes the connection, if it was not read
to its end."""


def compressed(headers: Mapping[str, str]) -> bool:
    """Return whether an answer is compressed, which the request forbids."""
    return headers.get("content-encoding", "").strip().lower() not in ("", "identity")


def _socket(address: Any) -> socket.socket:
    """Return a socket; one whose peer takes nothing is not kept open by what waits in it."""
    one = socket.socket(*address[:3])
    if hasattr(socket, "TCP_USER_TIMEOUT"):  # Linux
        one.setsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, UNTAKEN_MILLISECONDS)
    return one


async def _slices(data: bytes) -> AsyncIterator[bytes]:
    for start in range(0, len(data), SLICE_BYTES):
        yield data[start : start + SLICE_BYTES]


async def _error_body(response: Response) -> str:
    """Return the body of an error: what comes of it soon and within the bound."""
    if compressed(response.headers):
        return ""
    read = bytearray()
    with contextlib.suppress(TimeoutError, aiohttp.ClientError, OSError, ValueError):
        async with asyncio.timeout(ERROR_SECONDS):
            async for piece in response.content.iter_chunked(PIECE_BYTES):
                read += piece
                if len(read) >= MAX_ERROR_BYTES:
                    break
    return bytes(read[:MAX_ERROR_BYTES]).decode(errors="replace").strip()
