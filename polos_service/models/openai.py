"""Chat completions of OpenAI and of every server that speaks the same protocol.

Whether to try again is the step's to decide. The answer is read raw: the package's typed chunks
cost more time than everything else on the way of a token together.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncGenerator, Mapping
from typing import Any

import httpx2
import openai
from pydantic import SecretStr

from polos.v1.error_pb2 import FailureReason
from polos_service.errors import StepError
from polos_service.models import Emit, ModelAnswer, ModelRequest, connection, openai_options
from polos_service.models.address import Address
from polos_service.models.completion import Completion
from polos_service.models.connection import LostError, RefusedError
from polos_service.models.cost import cost
from polos_service.models.failures import Failures
from polos_service.models.silence import Silence, SilentError
from polos_service.models.sse import DataLines

OPENAI_URL = "https://api.openai.com/v1"
"""The default base URL."""

DRAIN_SECONDS = 0.05
"""Seconds to wait for the end of a stream after its `[DONE]`. A connection that was read to
its end can be used again, which saves the next call a TLS handshake."""

MAX_EVENTLESS_BYTES = 2 * 1024 * 1024
"""Bytes that may come without an event: a line that never ends, comments, blank lines. The
largest answer allowed, in one chunk and each character of it escaped, is smaller; comments
that keep a connection alive take more than a day to come to it."""

MAX_STREAM_BYTES = 256 * 1024 * 1024
"""Bytes that one answer may take on the wire: enough for the largest answer allowed if each
byte of it comes in a chunk of its own of 500 bytes."""

TURN_BYTES = 16 * 1024
"""Bytes of events that are handled before other tasks get a turn: a provider may send them
faster than they are handled."""


class OpenAI:
    """The provider `openai`.

    Each key goes to the one address that it was configured for. Headers that the package
    takes from the environment by itself go to the configured address alone.
    """

    def __init__(
        self,
        *,
        api_key: SecretStr | None = None,
        base_url: str | None = None,
        keys: Mapping[str, SecretStr] | None = None,
    ) -> None:
        """Keep the configuration; nothing is connected before the first call of `answer`.

        Args:
            api_key: the key for `base_url`, and for no other address.
            base_url: where the calls of agents without a base URL of their own go; None: OpenAI.
            keys: further keys, by the base URL that each is meant for.

        """
        self._base_url = _normal(base_url or OPENAI_URL)
        self._keys = {_normal(url): key for url, key in (keys or {}).items()}
        if api_key is not None:
            self._keys[self._base_url] = api_key
        self._clients: dict[str, openai.AsyncOpenAI] = {}
        # One for all addresses: reading the certificates takes a tenth of a second.
        self._tls = httpx2.create_ssl_context()

    def check(self, options: Mapping[str, Any]) -> Mapping[str, str]:
        """Return what is wrong with a run's model options, by name; empty if nothing is."""
        return openai_options.check(options)

    async def answer(self, request: ModelRequest, emit: Emit) -> ModelAnswer:
        """Ask the model once, passing text to `emit` as it comes.

        Cancelling closes the connection to the provider.

        Raises:
            StepError: the call failed; reason, message and retryable say how.

        """
        base_url = _normal(request.base_url or self._base_url)
        address = Address.of(base_url)
        client = self._client(address, base_url)
        key = () if client.api_key == connection.NO_KEY else (client.api_key,)
        failures = Failures(address.host, request.model, (*key, *address.secrets))
        completion = Completion(failures)
        failure: StepError | None = None
        try:
            async with Silence(request, failures.of) as silence:
                response = await connection.send(client, address, _body(request, address))
                try:
                    await _read(response, emit, completion, failures, silence)
                finally:
                    await response.aclose()
        except RefusedError as refused:
            failure = failures.status(refused.status, refused.body, refused.headers)
        except LostError:
            failure = failures.lost(after_output=completion.begun)
        except SilentError as error:
            failure = failures.silent(error)
        if failure is not None and not completion.finish:
            # Raised out here so that the package's error, which holds the request with its
            # key and the provider's text, does not travel along as its context.
            raise failure
        usage = completion.usage
        price = None if usage is None else cost(usage, request.model, address.url)
        return completion.answer(price)

    async def close(self) -> None:
        """Close every connection."""
        while self._clients:
            _, client = self._clients.popitem()
            await client.close()

    def _client(self, address: Address, base_url: str) -> openai.AsyncOpenAI:
        if base_url not in self._clients:
            client = connection.connect(address, self._key(address, base_url), self._tls)
            if base_url != self._base_url:
                # What the package took from the environment is for the configured address.
                client.organization = client.project = None
                client._custom_headers = {}  # noqa: SLF001 - no other switch
            self._clients[base_url] = client
        return self._clients[base_url]

    def _key(self, address: Address, base_url: str) -> str:
        """Return the key for an address; empty if none is configured, and none is needed.

        Raises:
            StepError: the key is missing, or is not plain text.

        """
        secret = self._keys.get(base_url)
        key = secret.get_secret_value().strip() if secret is not None else ""
        if not key and address.is_openai and not address.authorization:
            raise _unauthenticated(
                f"There is no key for {address.host}: set OPENAI_API_KEY, "
                "or OPENAI_BASE_URL for another server,"
            )
        if not (key.isascii() and key.isprintable()):
            raise _unauthenticated(f"The key for {address.host} is not plain text: set it again")
        return key


async def _read(
    response: httpx2.Response,
    emit: Emit,
    completion: Completion,
    failures: Failures,
    silence: Silence,
) -> None:
    """Read an answer into `completion`.

    Raises:
        LostError: the connection failed.
        StepError: the answer breaks the protocol, exceeds a bound, or reports an error.

    """
    failures.answered(response.headers)
    if connection.compressed(response.headers):
        raise failures.malformed("it is compressed, which the request forbids", retryable=False)
    async with contextlib.aclosing(connection.pieces(response)) as pieces:
        if await _events(pieces, completion, failures, emit, silence):
            return
    if "event-stream" not in response.headers.get("content-type", ""):
        raise failures.malformed("it is not an event stream; check the base URL", retryable=False)


async def _events(
    pieces: AsyncGenerator[bytes, None],
    completion: Completion,
    failures: Failures,
    emit: Emit,
    silence: Silence,
) -> bool:
    """Read events to the end of the answer; return whether there was any."""
    lines, found = DataLines(), False
    total = eventless = handled = 0
    async for piece in pieces:
        silence.heard()
        total += len(piece)
        eventless += len(piece)
        for data in lines.feed(piece):
            found, eventless = True, 0
            if data == b"[DONE]":
                await _drain(pieces)
                return True
            if text := completion.take(data):
                await emit(text)
            handled += len(data)
            if handled > TURN_BYTES:
                handled = 0
                await asyncio.sleep(0)
        if eventless > MAX_EVENTLESS_BYTES:
            what = f"{MAX_EVENTLESS_BYTES} bytes arrived without an event"
            raise failures.malformed(what, retryable=False)
        if total > MAX_STREAM_BYTES:
            raise failures.too_large(f"{MAX_STREAM_BYTES} bytes on the wire")
    return found


async def _drain(pieces: AsyncGenerator[bytes, None]) -> None:
    with contextlib.suppress(TimeoutError, LostError):
        async with asyncio.timeout(DRAIN_SECONDS):
            async for _ in pieces:
                pass


def _body(request: ModelRequest, address: Address) -> dict[str, Any]:
    """Return the parameters of the call; a run's options override the agent's definition."""
    body: dict[str, Any] = {
        "model": request.model,
        "messages": list(request.messages),
        "stream": True,
        "stream_options": {"include_usage": True},
    }
    if request.tools:
        body["tools"] = [{"type": "function", "function": dict(tool)} for tool in request.tools]
    if request.temperature is not None:
        body["temperature"] = request.temperature
    bounded = {"max_tokens", "max_completion_tokens"} & request.options.keys()
    if request.max_output_tokens is not None and not bounded:
        # OpenAI's newer models refuse the old name; other servers often know only that one.
        name = "max_completion_tokens" if address.is_openai else "max_tokens"
        body[name] = request.max_output_tokens
    return body | dict(request.options)


def _unauthenticated(what: str) -> StepError:
    return StepError(
        FailureReason.FAILURE_REASON_MODEL_AUTHENTICATION,
        f"{what} in the environment of the service, which sends it to the configured address only.",
    )


def _normal(base_url: str) -> str:
    return base_url.strip().rstrip("/")
