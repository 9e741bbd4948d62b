"""Chat completions of OpenAI and of every server that speaks the same protocol.

The `openai` package connects, authenticates and tells HTTP errors apart; whether to try
again is the step's to decide. The answer itself is read raw: the package's typed chunks
cost more time than everything else on the way of a token together.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncGenerator, Mapping
from typing import Any

import httpx2
import openai
import openai.resources.chat.completions  # else the first call would, and stop every run meanwhile
from pydantic import SecretStr

from polos.v1.error_pb2 import FailureReason
from polos_service.errors import StepError
from polos_service.models import Emit, ModelAnswer, ModelRequest, openai_options
from polos_service.models.completion import Completion
from polos_service.models.cost import cost
from polos_service.models.failures import Failures
from polos_service.models.silence import Silence, SilentError
from polos_service.models.sse import DataLines

OPENAI_URL = "https://api.openai.com/v1"
"""The default base URL."""

CONNECT_SECONDS = 10.0
"""Bound on making a connection; a provider that is up takes well below one second."""

DRAIN_SECONDS = 0.05
"""How long to wait for the end of a stream after its `[DONE]`. A connection that was read
to its end can be used again, which saves the next call a TLS handshake."""

MAX_LINE_BYTES = 4 * 1024 * 1024
"""Bound on one line, so that a provider that never ends one cannot fill the memory. The
largest answer allowed (480 KiB), all in one chunk and all escaped, is below it."""

NO_KEY = "none"
"""Sent where no key is configured: local servers want none, the package wants one."""


class OpenAI:
    """The provider `openai`.

    Each key goes to the one address that it was configured for. What the package would
    take from the environment by itself, it takes for the configured address alone.
    """

    def __init__(
        self,
        *,
        api_key: SecretStr | None = None,
        base_url: str | None = None,
        keys: Mapping[str, SecretStr] | None = None,
    ) -> None:
        """Keep the configuration; nothing is connected before the first answer.

        Args:
            api_key: the key for `base_url`, and for no other address.
            base_url: where agents without a base URL of their own go; None is OpenAI.
            keys: further keys, each by the base URL that it is meant for.

        """
        self._base_url = _normal(base_url or OPENAI_URL)
        self._keys = {_normal(url): key for url, key in (keys or {}).items()}
        if api_key is not None:
            self._keys[self._base_url] = api_key
        self._clients: dict[str, openai.AsyncOpenAI] = {}
        # One for all addresses: to read the certificates takes a tenth of a second.
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
        client = self._client(base_url)
        secrets = () if client.api_key == NO_KEY else (client.api_key,)
        failures = Failures(_host(base_url), request.model, secrets)
        completion = Completion(failures)
        failure: StepError | None = None
        try:
            async with Silence(request, failures.of) as silence:
                body = _body(request, base_url)
                await _ask(
                    client, body, emit, completion=completion, failures=failures, silence=silence
                )
        except (openai.APIError, httpx2.HTTPError) as error:
            failure = _failure(error, completion, failures)
        except SilentError as error:
            failure = failures.silent(error)
        if failure is not None and not completion.finish:
            # Raised out here so that the package's error, which holds the request with its
            # key and the provider's text, does not travel along as its context.
            raise failure
        usage = completion.usage
        price = None if usage is None else cost(usage, request.model, base_url)
        return completion.answer(price)

    async def close(self) -> None:
        """Close every connection."""
        while self._clients:
            _, client = self._clients.popitem()
            await client.close()

    def _client(self, base_url: str) -> openai.AsyncOpenAI:
        if base_url not in self._clients:
            self._clients[base_url] = self._connect(base_url)
        return self._clients[base_url]

    def _connect(self, base_url: str) -> openai.AsyncOpenAI:
        client = openai.AsyncOpenAI(
            api_key=self._key(base_url),
            admin_api_key="",
            base_url=base_url,
            # How long the model may be silent is the run's to say: see Silence.
            timeout=openai.Timeout(None, connect=CONNECT_SECONDS),
            # The step retries, and the log tells: two mechanisms would multiply their tries.
            max_retries=0,
            # A redirect could lead to an address that no key and no prompt was meant for.
            http_client=openai.DefaultAioHttpClient(follow_redirects=False, verify=self._tls),
        )
        if base_url != self._base_url:
            client.organization = client.project = None
            client._custom_headers = {}  # noqa: SLF001 - OPENAI_CUSTOM_HEADERS has no other switch
        return client

    def _key(self, base_url: str) -> str:
        """Return the key for an address.

        Raises:
            StepError: the address is none, or there is no usable key for it.

        """
        host = _host(base_url)
        secret = self._keys.get(base_url)
        key = secret.get_secret_value().strip() if secret is not None else ""
        if not key and _is_openai(base_url):
            raise _unauthenticated(
                f"There is no key for {host}: set OPENAI_API_KEY, "
                "or OPENAI_BASE_URL for another server,"
            )
        if not (key.isascii() and key.isprintable()):
            raise _unauthenticated(f"The key for {host} is no plain text: set it again")
        return key or NO_KEY


async def _ask(
    client: openai.AsyncOpenAI,
    body: dict[str, Any],
    emit: Emit,
    *,
    completion: Completion,
    failures: Failures,
    silence: Silence,
) -> None:
    """Send a request and read its answer into `completion`."""
    async with client.chat.completions.with_streaming_response.create(**body) as response:
        failures.answered(response.headers)
        # The HTTP response itself, not the wrapper's iter_bytes: that one would leave its
        # inner generator, and so the connection, to the garbage collector.
        async with contextlib.aclosing(response.http_response.aiter_bytes()) as pieces:
            if await _read(pieces, completion, failures, emit, silence):
                return
        if "event-stream" not in response.headers.get("content-type", ""):
            raise failures.malformed(
                "it is not a stream of events; is the base URL right?", retryable=False
            )


async def _read(
    pieces: AsyncGenerator[bytes, None],
    completion: Completion,
    failures: Failures,
    emit: Emit,
    silence: Silence,
) -> bool:
    """Read events to the end; False if there was none."""
    lines, found = DataLines(), False
    async for piece in pieces:
        silence.heard()
        for data in lines.feed(piece):
            found = True
            if data == b"[DONE]":
                await _drain(pieces)
                return True
            if text := completion.take(data):
                await emit(text)
        if lines.pending > MAX_LINE_BYTES:
            raise failures.malformed(f"a line exceeds {MAX_LINE_BYTES} bytes", retryable=False)
    return found


async def _drain(pieces: AsyncGenerator[bytes, None]) -> None:
    with contextlib.suppress(TimeoutError, httpx2.HTTPError):
        async with asyncio.timeout(DRAIN_SECONDS):
            async for _ in pieces:
                pass


def _failure(
    error: openai.APIError | httpx2.HTTPError, completion: Completion, failures: Failures
) -> StepError:
    if isinstance(error, openai.APIStatusError):
        return failures.status(error.status_code, error.body, error.response.headers)
    return failures.lost(after_output=completion.begun)


def _body(request: ModelRequest, base_url: str) -> dict[str, Any]:
    """Return the parameters of the call; a run's options win over the agent's definition."""
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
    if request.max_output_tokens is not None and not _bounded(request.options):
        # OpenAI's newer models refuse the old name; other servers often know only that one.
        name = "max_completion_tokens" if _is_openai(base_url) else "max_tokens"
        body[name] = request.max_output_tokens
    return body | dict(request.options)


def _bounded(options: Mapping[str, Any]) -> bool:
    return "max_tokens" in options or "max_completion_tokens" in options


def _unauthenticated(what: str) -> StepError:
    return StepError(
        FailureReason.FAILURE_REASON_MODEL_AUTHENTICATION,
        f"{what} in the environment of the service, which sends it to the configured address only.",
    )


def _normal(base_url: str) -> str:
    return base_url.strip().rstrip("/")


def _host(base_url: str) -> str:
    """Return host and port of an address, without user and password.

    Raises:
        StepError: it is no address.

    """
    with contextlib.suppress(httpx2.InvalidURL):
        url = httpx2.URL(base_url)
        if url.scheme in ("http", "https") and url.host:
            return url.netloc.decode()
    raise StepError(
        FailureReason.FAILURE_REASON_MODEL_BAD_REQUEST,
        "The agent's provider_base_url is no http:// or https:// address.",
    )


def _is_openai(base_url: str) -> bool:
    host = httpx2.URL(base_url).host
    return host == "api.openai.com" or host.endswith(".api.openai.com")
