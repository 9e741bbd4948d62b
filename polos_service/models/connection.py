"""How a call of a model travels: the client of an address, a request, the pieces of its answer.

TLS, proxies and the pool are those of the packages below. An answer is handed on as it comes.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import socket
import ssl
from collections.abc import AsyncGenerator, AsyncIterator, Mapping
from http.cookiejar import DefaultCookiePolicy
from typing import Any, cast

import aiohttp
import httpx2
import openai
import orjson

CONNECT_SECONDS = 10.0
"""Bound on making a connection; a provider that is up takes well below one second."""

MAX_ERROR_BYTES = 64 * 1024
"""Bytes of an error's body that are read; then the connection is closed."""

ERROR_SECONDS = 5.0
"""How long an error's body is read; what came until then is what it says."""

SLICE_BYTES = 64 * 1024
"""Bytes of a request that are written at once, so that nobody waits for a large one."""

UNTAKEN_MILLISECONDS = 60_000
"""How long a provider may take nothing of what is sent; then its connection is given up."""


class LostError(Exception):
    """The connection could not be made, or failed."""


class RefusedError(Exception):
    """The provider answered with a status other than success.

    Attributes:
        status: the HTTP status.
        headers: the answer's headers.
        body: what the body says, at most MAX_ERROR_BYTES of it: the `error` of a JSON object,
            any other JSON, or text; empty if it is compressed, which nobody asked for.

    """

    def __init__(self, status: int, headers: Mapping[str, str], body: object) -> None:
        super().__init__(status)
        self.status = status
        self.headers = headers
        self.body = body


def connect(tls: ssl.SSLContext) -> httpx2.AsyncClient:
    """Return a client for one address; nothing is connected yet."""
    http = openai.DefaultAioHttpClient(
        verify=tls,
        # A redirect could lead to an address that no key and no prompt was meant for.
        follow_redirects=False,
        # A few compressed bytes can stand for gigabytes. See `pieces`.
        headers={"Accept-Encoding": "identity", "User-Agent": "polos-grpc"},
        event_hooks={"response": [_refuse]},
        # How long the model may be silent is the run's to say: see Silence.
        timeout=httpx2.Timeout(None, connect=CONNECT_SECONDS),
    )
    _own_session(http)
    return http


def _own_session(http: httpx2.AsyncClient) -> None:
    """Let the client work without cookies, and with sockets that do not outlive their use.

    An API needs no cookies, and a provider could set them without end.
    """
    http.cookies.jar.set_policy(DefaultCookiePolicy(allowed_domains=()))
    for transport in (http._transport, *http._mounts.values()):  # noqa: SLF001 - no other way
        if transport is not None:
            cast(Any, transport).client = _session(cast(Any, transport))


def _session(transport: Any) -> aiohttp.ClientSession:
    connector = aiohttp.TCPConnector(
        limit=transport.limits.max_connections,
        keepalive_timeout=transport.limits.keepalive_expiry,
        ssl=transport.ssl_context,
        socket_factory=_socket,
    )
    return aiohttp.ClientSession(connector=connector, cookie_jar=aiohttp.DummyCookieJar())


def _socket(address: Any) -> socket.socket:
    """Return a socket; one whose peer takes nothing is not kept open by what waits in it."""
    one = socket.socket(*address[:3])
    if hasattr(socket, "TCP_USER_TIMEOUT"):  # Linux
        one.setsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, UNTAKEN_MILLISECONDS)
    return one


async def send(
    client: httpx2.AsyncClient, url: str, headers: Mapping[str, str], body: Mapping[str, Any]
) -> httpx2.Response:
    """Post a request and return the answer, of which the headers are read. The caller closes it.

    Raises:
        RefusedError: the provider answered with another status than success.
        LostError: no answer came.

    """
    data = _encoded(body)
    told = {"Content-Length": str(len(data)), "Content-Type": "application/json"}
    try:
        request = client.build_request(
            "POST", url, content=_slices(data), headers={**told, **headers}
        )
        return await client.send(request, stream=True)
    except RefusedError:
        raise
    except Exception as error:
        # Three packages are at work, and what they raise is no closed list: bad headers, a name
        # that cannot be encoded, a reason phrase that is no text.
        raise LostError from error


async def pieces(response: httpx2.Response) -> AsyncGenerator[bytes, None]:
    """Yield the body in pieces of a few KiB, as it comes over the wire: still compressed if it is.

    Raises:
        LostError: the connection failed.

    """
    async with contextlib.aclosing(response.aiter_raw()) as raw:
        try:
            async for piece in raw:
                yield piece
        except Exception as error:
            raise LostError from error


def compressed(headers: Mapping[str, str]) -> bool:
    """Return whether an answer is compressed, which the request forbids."""
    return headers.get("content-encoding", "").strip().lower() not in ("", "identity")


def _encoded(body: Mapping[str, Any]) -> bytes:
    """Return the body as JSON."""
    try:
        return orjson.dumps(body)
    except TypeError:  # an integer beyond 64 bits, half a surrogate pair: JSON knows both
        return json.dumps(body, separators=(",", ":")).encode()


async def _slices(data: bytes) -> AsyncIterator[bytes]:
    for start in range(0, len(data), SLICE_BYTES):
        yield data[start : start + SLICE_BYTES]


async def _refuse(response: httpx2.Response) -> None:
    """Raise RefusedError unless the status is a success; the client then closes the connection."""
    if not response.is_success:
        raise RefusedError(response.status_code, response.headers, await _error(response))


async def _error(response: httpx2.Response) -> object:
    """Return what the body of an error says, of what comes soon and within the bound."""
    if compressed(response.headers):
        return ""
    read = bytearray()
    with contextlib.suppress(TimeoutError, LostError):
        async with asyncio.timeout(ERROR_SECONDS), contextlib.aclosing(pieces(response)) as body:
            async for piece in body:
                read += piece
                if len(read) >= MAX_ERROR_BYTES:
                    break
    text = bytes(read[:MAX_ERROR_BYTES])
    try:
        told = orjson.loads(text)
    except ValueError:
        return text.decode(errors="replace").strip()
    return told.get("error", told) if isinstance(told, dict) else told
