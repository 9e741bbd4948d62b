"""Connections to a provider that cannot be made, lead elsewhere, are slow, or are left."""

from __future__ import annotations

import asyncio
import socket
import ssl
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import replace

import pytest
import trustme
from pydantic import SecretStr

from polos.v1.error_pb2 import FailureReason
from polos_service.errors import StepError
from polos_service.models.messages import Message, Text
from polos_service.models.remote import Remote
from tests.failures.scene import unused_address
from tests.support.mock_answers import chunk, hold, say
from tests.support.mock_provider import MockProvider
from tests.support.models import KEY, REQUEST, Heard, failure, openai

MALFORMED = FailureReason.FAILURE_REASON_MODEL_MALFORMED
UNAVAILABLE = FailureReason.FAILURE_REASON_MODEL_UNAVAILABLE

Serve = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]

NO_AUTH = f"HTTP/1.1 407 Auth\r\n\r\nnot {KEY}".encode()

HEAD = b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\n"


@asynccontextmanager
async def serving(serve: Serve, tls: ssl.SSLContext | None = None) -> AsyncIterator[str]:
    """Serve every connection so; yield HOST:PORT."""

    async def accept(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            await serve(reader, writer)
        except (ConnectionError, asyncio.IncompleteReadError):
            pass  # the client left
        finally:
            writer.close()

    server = await asyncio.start_server(accept, "127.0.0.1", 0, ssl=tls)
    yield f"127.0.0.1:{server.sockets[0].getsockname()[1]}"
    server.close()


def answering(data: bytes) -> Serve:
    """Return what reads a request's head and answers so."""

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(data)
        await writer.drain()

    return serve


@asynccontextmanager
async def asking(url: str, api_key: str | None = None) -> AsyncIterator[Remote]:
    model = openai(base_url=url, api_key=SecretStr(api_key) if api_key else None)
    try:
        yield model
    finally:
        await model.close()


@pytest.mark.parametrize(
    ("data", "what"),
    [
        (b"SSH-2.0-OpenSSH_9.9\r\n", "is not valid HTTP"),
        (b"HTTP/1.1 abc OK\r\n\r\n", "is not valid HTTP"),
        (b"HTTP/9.9 200 OK\r\n\r\n", "is not valid HTTP"),
        (b"HTTP/1.1 200 OK\r\nbad header\r\n\r\n", "is not valid HTTP"),
        (b"HTTP/1.1 200 OK\r\nx: " + b"y" * 40_000 + b"\r\n\r\n", "is not valid HTTP"),
        (b"HTTP/1.1 200 OK\r\n" + b"x: y\r\n" * 300 + b"\r\n", "is not valid HTTP"),
        (b"HTTP/1.1 200 OK\r\ncontent-length: x\r\n\r\n", "is not valid HTTP"),
        (f"{KEY}\r\n\r\n".encode(), "is not valid HTTP"),
    ],
)
async def test_what_is_not_http_is_malformed_and_not_tried_again(data: bytes, what: str) -> None:
    async with serving(answering(data)) as place, asking(f"http://{place}/v1", KEY) as model:
        error = await failure(model)
    assert (error.reason, error.retryable) == (MALFORMED, False)
    assert place in error.message
    assert what in error.message


async def test_large_headers_are_taken() -> None:
    headers = b"".join(b"x-%d: %b\r\n" % (at, b"y" * 10_000) for at in range(20))
    end = b"content-length: 0\r\n\r\n"
    async with (
        serving(answering(b"HTTP/1.1 400 Bad\r\n" + headers + end)) as place,
        asking(f"http://{place}/v1") as model,
    ):
        assert "HTTP 400" in (await failure(model)).message


async def test_a_connection_that_is_closed_without_an_answer_is_tried_again() -> None:
    async with serving(answering(b"")) as place, asking(f"http://{place}/v1") as model:
        error = await failure(model)
    assert (error.reason, error.retryable) == (UNAVAILABLE, True)
    assert "the connection was closed without an answer" in error.message


async def test_a_connection_that_is_refused_is_named() -> None:
    with unused_address() as place:
        async with asking(f"http://{place}/v1") as model:
            error = await failure(model)
    assert (error.reason, error.retryable) == (UNAVAILABLE, True)
    assert f"at {place} could not be reached: the connection was refused." in error.message


async def test_an_unknown_host_is_named() -> None:
    async with asking("http://no.such.host.invalid/v1") as model:
        error = await failure(model)
    assert (error.reason, error.retryable) == (UNAVAILABLE, True)
    assert "the name of the host cannot be resolved" in error.message


async def test_a_connection_that_is_not_made_in_time_is_named(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("polos_service.models.connection.CONNECT_SECONDS", 0.2)
    with socket.socket() as full:
        full.bind(("127.0.0.1", 0))
        place = "{}:{}".format(*full.getsockname())
        full.listen()  # nobody accepts, so no TLS handshake is answered
        async with asking(f"https://{place}/v1") as model:
            error = await failure(model)
    assert (error.reason, error.retryable) == (UNAVAILABLE, True)
    assert "no connection was made within" in error.message


async def test_a_certificate_that_is_not_trusted_is_said_and_not_tried_again() -> None:
    tls = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    trustme.CA().issue_cert("127.0.0.1").configure_cert(tls)
    async with serving(answering(b""), tls) as place, asking(f"https://{place}/v1") as model:
        error = await failure(model)
    assert (error.reason, error.retryable) == (UNAVAILABLE, False)
    assert "its TLS certificate is not accepted (" in error.message


async def test_what_does_not_speak_tls_is_said_and_not_tried_again() -> None:
    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read(100)
        writer.write(b"HTTP/1.1 400 Bad Request\r\n\r\n")

    async with serving(serve) as place, asking(f"https://{place}/v1") as model:
        error = await failure(model)
    assert (error.reason, error.retryable) == (UNAVAILABLE, False)
    assert "the TLS handshake failed (" in error.message
    assert error.message.endswith("; the base URL may need http:// instead of https://.")


@pytest.fixture
def _no_exceptions(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("no_proxy", "NO_PROXY", "all_proxy", "ALL_PROXY"):
        monkeypatch.delenv(name, raising=False)


@pytest.mark.usefixtures("_no_exceptions")
@pytest.mark.parametrize(
    ("scheme", "answer", "retryable", "what"),
    [
        ("https", b"HTTP/1.1 403 Forbidden\r\n\r\n", False, "the proxy {} answered HTTP 403"),
        ("https", b"HTTP/1.1 503 Busy\r\n\r\n", True, "the proxy {} answered HTTP 503"),
        (
            "http",
            b"HTTP/1.1 407 Auth\r\n\r\nno " + KEY.encode(),
            False,
            "(HTTP 407 through the proxy {})",
        ),
        ("http", b"HTTP/1.1 502 Bad\r\n\r\n", True, "(HTTP 502 through the proxy {})"),
        ("http", b"no\r\n\r\n", False, "(through the proxy {})"),
    ],
)
async def test_a_proxy_that_answers_is_named(
    monkeypatch: pytest.MonkeyPatch, scheme: str, answer: bytes, what: str, *, retryable: bool
) -> None:
    async with serving(answering(answer)) as place:
        monkeypatch.setenv(f"{scheme}_proxy", f"http://me:{KEY}@{place}")
        async with asking(f"{scheme}://provider.example/v1") as model:
            error = await failure(model)
    assert error.retryable == retryable
    assert what.format(place) in error.message


@pytest.mark.usefixtures("_no_exceptions")
async def test_a_proxy_gets_its_user_and_password_and_the_provider_does_not(
    monkeypatch: pytest.MonkeyPatch, provider: MockProvider
) -> None:
    monkeypatch.setenv("http_proxy", provider.url.replace("//", "//me:p%40ss@").removesuffix("/v1"))
    provider.reply(say("x"))
    async with asking("http://provider.example/v1", "key-of-the-provider") as model:
        assert (await model.answer(REQUEST, Heard())).text == "x"
    (request,) = provider.requests
    assert request.path == "http://provider.example/v1/chat/completions"
    assert request.headers["proxy-authorization"] == "Basic bWU6cEBzcw=="
    assert request.headers["authorization"] == "Bearer key-of-the-provider"


async def test_an_address_that_needs_no_proxy_gets_none(
    monkeypatch: pytest.MonkeyPatch, provider: MockProvider
) -> None:
    monkeypatch.setenv("http_proxy", "http://127.0.0.1:1")
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    provider.reply(say("x"))
    async with asking(provider.url) as model:
        assert (await model.answer(REQUEST, Heard())).text == "x"


class Slow(Heard):
    """Takes the first piece of text, and waits before it takes more until it is released."""

    def __init__(self) -> None:
        super().__init__()
        self.waits = asyncio.Event()
        self.released = asyncio.Event()

    async def text(self, piece: str) -> None:
        await super().text(piece)
        self.waits.set()
        await self.released.wait()


async def test_a_provider_is_not_read_while_the_output_waits() -> None:
    sent = 0

    async def push(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        nonlocal sent
        await reader.readuntil(b"\r\n\r\n")
        writer.write(HEAD + b"connection: close\r\n\r\n")
        data = chunk({"content": "x" * 1000})
        for _ in range(100_000):
            writer.write(data)
            await writer.drain()
            sent += len(data)

    async with serving(push) as place, asking(f"http://{place}/v1") as model:
        output = Slow()
        answer = asyncio.create_task(model.answer(REQUEST, output))
        await output.waits.wait()
        before = -1
        while sent > before:  # until nothing more is taken
            before = sent
            await asyncio.sleep(0.3)
        assert len(output) == 1
        assert sent < 16 * 1024 * 1024, "the socket's buffers, and no more"
        answer.cancel()
        with pytest.raises(asyncio.CancelledError):
            await answer


async def test_a_model_is_not_silent_while_the_output_waits(
    provider: MockProvider, model: Remote
) -> None:
    provider.reply(say("a"), say("b"))
    output = Slow()
    request = replace(REQUEST, first_token=0.4, token_gap=0.1)
    answer = asyncio.create_task(model.answer(request, output))
    await output.waits.wait()
    await asyncio.sleep(0.5)
    output.released.set()
    assert (await answer).text == "ab"


async def test_a_model_that_is_silent_after_the_output_waited_is_stalled(
    provider: MockProvider, model: Remote
) -> None:
    provider.reply(say("a"), hold(asyncio.Event()))
    output = Slow()
    request = replace(REQUEST, first_token=10, token_gap=0.1)
    answer = asyncio.create_task(model.answer(request, output))
    await output.waits.wait()
    await asyncio.sleep(0.3)
    output.released.set()
    with pytest.raises(StepError) as raised:
        await asyncio.wait_for(answer, 20)
    assert raised.value.reason == FailureReason.FAILURE_REASON_MODEL_STALLED


async def test_what_came_while_the_loop_was_held_counts(
    provider: MockProvider, model: Remote
) -> None:
    more = asyncio.Event()
    provider.reply(say("a"), hold(more), say("b"))
    request = replace(REQUEST, first_token=10, token_gap=0.3)
    heard = Heard()
    answer = asyncio.create_task(model.answer(request, heard))
    while not heard:
        await asyncio.sleep(0.001)
    more.set()
    await asyncio.sleep(0)
    hold_the_loop(0.6)
    assert (await answer).text == "ab"


def hold_the_loop(seconds: float) -> None:
    end = asyncio.get_running_loop().time() + seconds
    while asyncio.get_running_loop().time() < end:
        pass


async def test_cancelling_while_a_request_is_sent_closes_the_connection() -> None:
    begun, closed = asyncio.Event(), asyncio.Event()

    async def serve(reader: asyncio.StreamReader, _: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        begun.set()
        while await reader.read(65536):
            await asyncio.sleep(0.01)
        closed.set()

    async with serving(serve) as place, asking(f"http://{place}/v1") as model:
        message = Message(role="user", parts=(Text(text="x" * 50_000_000),))
        answer = asyncio.create_task(model.answer(replace(REQUEST, messages=[message]), Heard()))
        async with asyncio.timeout(30):
            await begun.wait()
            answer.cancel()
            with pytest.raises(asyncio.CancelledError):
                await answer
            await closed.wait()


@pytest.mark.parametrize(
    "head", [b"", HEAD + b"\r\n" + chunk({"content": "x"}, "stop") + b"data: [DONE]\n\n"]
)
async def test_cancelling_while_headers_or_the_end_are_waited_for_closes_the_connection(
    head: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("polos_service.models.exchange.DRAIN_SECONDS", 30)
    answered, closed = asyncio.Event(), asyncio.Event()

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(head)
        answered.set()
        while await reader.read(65536):
            pass
        closed.set()

    async with serving(serve) as place, asking(f"http://{place}/v1") as model:
        heard = Heard()
        answer = asyncio.create_task(model.answer(REQUEST, heard))
        async with asyncio.timeout(30):
            await answered.wait()
            while head and not heard:
                await asyncio.sleep(0.001)
            answer.cancel()
            with pytest.raises(asyncio.CancelledError):
                await answer
            await closed.wait()


async def test_an_answer_that_was_read_to_its_end_leaves_its_connection_to_the_next(
    provider: MockProvider, model: Remote
) -> None:
    for _ in range(3):
        provider.reply(say("x"))
        await model.answer(REQUEST, Heard())
    assert provider.connections == 1


@pytest.mark.parametrize("size", [10, 1000, 100_000])
async def test_a_conversation_of_any_size_arrives(
    provider: MockProvider, model: Remote, size: int
) -> None:
    messages = [Message(role="user", parts=(Text(text="é\n" * 10),))] * size
    provider.reply(say("x"))
    await model.answer(replace(REQUEST, messages=messages), Heard())
    said = provider.requests[0].body["messages"]
    assert said == [{"role": "user", "content": "é\n" * 10}] * size


@pytest.mark.parametrize(
    ("said", "reason", "retryable"),
    [
        (chunk({"content": "x"}), FailureReason.FAILURE_REASON_MODEL_CUT_SHORT, True),
        (b": hello\n\n", MALFORMED, False),
    ],
)
async def test_framing_that_breaks_in_the_middle_of_a_body_is_noticed(
    said: bytes, reason: FailureReason.ValueType, *, retryable: bool
) -> None:
    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(HEAD + b"transfer-encoding: chunked\r\n\r\n")
        writer.write(b"%x\r\n%b\r\n" % (len(said), said))
        await writer.drain()
        await asyncio.sleep(0.2)
        writer.write(b"zzz\r\n")
        await reader.read()

    async with serving(serve) as place, asking(f"http://{place}/v1") as model:
        error = await failure(model)
    assert (error.reason, error.retryable) == (reason, retryable)
    assert "chunk size" in error.message
