"""Fetches a document of an issuer over HTTP, bounded in time and size. Nothing is redirected."""

from __future__ import annotations

import asyncio
import ssl
from functools import cache
from http import HTTPStatus

import aiohttp
import httpx2
from yarl import URL

from polos_service.proxy import Proxy
from polos_service.urls import is_loopback

FETCH_SECONDS = 5.0
"""Seconds within which a document must be there, whole."""

DOCUMENT_BYTES = 256 * 1024
"""Bytes of a document at most: about 500 RSA keys, where issuers have two to ten."""

HEADER_BYTES = 8 * 1024
"""Bytes of a header line at most."""

HEADERS = {
    "Accept": "application/json",
    "Accept-Encoding": "identity",
    "User-Agent": "polos-grpc",
}
"""What every request says. A few compressed bytes can stand for gigabytes."""


class FetchError(Exception):
    """A document cannot be fetched, or is not what it should be. The message has no secrets."""


async def fetch(url: str) -> bytes:
    """Return the document at a URL that `address_problem` accepts.

    Raises:
        FetchError: it was not there within FETCH_SECONDS, is larger than DOCUMENT_BYTES, is
            compressed, or the answer is not 200.

    """
    proxy = Proxy() if is_loopback(url) else Proxy.of(url)
    secure = url.startswith("https:")
    tls = await asyncio.to_thread(trusted) if secure else True
    session = aiohttp.ClientSession(
        connector=aiohttp.TCPConnector(ssl=tls, force_close=True),
        cookie_jar=aiohttp.DummyCookieJar(),
        headers=HEADERS if secure else {**HEADERS, **proxy.headers},
        timeout=aiohttp.ClientTimeout(total=FETCH_SECONDS),
        auto_decompress=False,
        max_line_size=HEADER_BYTES,
        max_field_size=HEADER_BYTES,
    )
    try:
        async with (
            session,
            session.get(
                URL(url, encoded=True),
                allow_redirects=False,
                proxy=proxy.url,
                proxy_headers=proxy.headers or None,
            ) as response,
        ):
            return await _body(url, response)
    except TimeoutError:
        raise FetchError(f"{url} did not answer in full within {FETCH_SECONDS:g} s") from None
    except (aiohttp.ClientError, OSError, ValueError) as error:
        through = f" through the proxy {proxy.place}" if proxy.place else ""
        # The error's text may quote what came: its class says enough.
        raise FetchError(f"{url} cannot be fetched{through} ({_kind(error)})") from None


@cache
def trusted() -> ssl.SSLContext:
    """Return what certificates are checked with; reading it takes a tenth of a second."""
    return httpx2.create_ssl_context()


async def _body(url: str, response: aiohttp.ClientResponse) -> bytes:
    status = response.status
    if HTTPStatus.MULTIPLE_CHOICES <= status < HTTPStatus.BAD_REQUEST:
        raise FetchError(f"{url} answers with a redirect ({status}), which is not followed")
    if status != HTTPStatus.OK:
        raise FetchError(f"{url} answers HTTP {status}")
    if response.headers.get("content-encoding", "identity").lower() != "identity":
        raise FetchError(f"{url} is compressed, which the request forbids")
    body = bytearray()
    async for piece in response.content.iter_chunked(16 * 1024):
        body += piece
        if len(body) > DOCUMENT_BYTES:
            raise FetchError(f"{url} has more than {DOCUMENT_BYTES} bytes")
    return bytes(body)


def _kind(error: Exception) -> str:
    if isinstance(error, aiohttp.ClientConnectorCertificateError):
        return f"its certificate is not accepted: {error.certificate_error}"[:200]
    cause = error.os_error if isinstance(error, aiohttp.ClientConnectorError) else error
    return type(cause).__name__
