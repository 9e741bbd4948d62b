"""How a chat completion travels: the client of an address, a request, the pieces of its answer.

The `openai` package connects and authenticates; TLS, proxies and the pool are its own. Body
and answer pass it by: it would walk through the one, parameter by parameter, while every other
run waits, and read the other whole if it is an error's.
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

from polos_service.models.address import Address

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

NO_KEY = "none"
"""Sent where no key is configured: local servers want none, the package wants one."""


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


def connect(address: Address, key: str, tls: ssl.SSLContext) -> openai.AsyncOpenAI:
    """Return a client of an address; nothing is connected yet.

    What the package takes from the environment by itself is in it, apart from keys.
    """
    http = openai.DefaultAioHttpClient(
        verify=tls,
        # A redirect could lead to an address that no key and no prompt was meant for.
        follow_redirects=False,
        # A few compressed bytes can stand for gigabytes. See `pieces`.
        headers={"Accept-Encoding": "identity"},
        event_hooks={"response": [_refuse]},
    )
    _own_session(http)
    return openai.AsyncOpenAI(
        api_key=key or NO_KEY,
        admin_api_key="",
        base_url=address.url,
        # How long the model may be silent is the run's to say: see Silence.
        timeout=openai.Timeout(None, connect=CONNECT_SECONDS),
        # The step retries, and the log tells: two mechanisms would multiply their tries.
        max_retries=0,
        http_client=http,
    )


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
    client: openai.AsyncOpenAI, address: Address, body: Mapping[str, Any]
) -> httpx2.Response:
    """Ask for a chat completion and return the answer, of which the headers are read.

    The caller closes it. User and password of the address are sent where there is no key.

    Raises:
        RefusedError: the provider answered with another status than success.
        LostError: no answer came.

    """
    data = _encoded(body)
    headers = {"Content-Length": str(len(data))}
    if client.api_key == NO_KEY and address.authorization:
        headers["Authorization"] = address.authorization
    try:
        response = await client.post(
            "/chat/completions",
            content=_slices(data),
            cast_to=httpx2.Response,
            options={"headers": headers},
            stream=True,
            stream_cls=openai.AsyncStream[Any],
        )
    except RefusedError:
        raise
    except Exception as error:
        # Three packages are at work, and what they raise is no closed list: bad headers, a name
        # that cannot be encoded, a reason phrase that is no text.
        raise LostError from error
    return cast(httpx2.Response, response)  # no stream is made of a raw response


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
