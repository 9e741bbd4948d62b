"""What the hostile provider can do, each under a name. See `tests.support.hostile_provider`."""

from __future__ import annotations

import asyncio
import base64
import json
import socket
import struct
import zlib
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from urllib.parse import quote

from tests.support.mock_answers import chunk, event

BOMB_BYTES = 400 * 1024 * 1024
"""What the compressed bodies decompress to."""


@dataclass
class Seen:
    """What the server saw of one behaviour.

    Attributes:
        requests: requests for it.
        sent: bytes of answers, heads included, that the client's side took.
        open: answers under way: 0 once each client has hung up.
        cookies: requests that brought a cookie.

    """

    requests: int = 0
    sent: int = 0
    open: int = 0
    cookies: int = 0


class Exchange:
    """One request and its answer."""

    def __init__(
        self, headers: Mapping[str, str], writer: asyncio.StreamWriter, seen: Seen
    ) -> None:
        self.headers = headers
        self.writer = writer
        self._seen = seen

    @property
    def key(self) -> str:
        """The key or the Basic credentials that came along."""
        return self.headers.get("authorization", "").partition(" ")[2]

    async def send(self, data: bytes) -> None:
        self.writer.write(data)
        await self.writer.drain()
        self._seen.sent += len(data)

    async def head(self, status: int = 200, **headers: str) -> None:
        """Send a head; the body that follows ends with the connection."""
        kind = "text/event-stream" if status == 200 else "application/json"
        told = {"content_type": kind, "connection": "close"} | headers
        lines = [f"{name.replace('_', '-')}: {value}" for name, value in told.items()]
        await self.send("\r\n".join([f"HTTP/1.1 {status} hostile", *lines, "", ""]).encode())

    async def for_ever(self, data: bytes) -> None:
        while True:
            await self.send(data)

    async def answer(self, *chunks: bytes, reason: str = "stop") -> None:
        """Send a whole answer in good order."""
        await self.head()
        await self.send(b"".join(chunks) + chunk({}, reason) + b"data: [DONE]\n\n")


Behaviour = Callable[[Exchange], Awaitable[None]]

BEHAVIOURS: dict[str, Behaviour] = {}
"""By name. The docstring of each says what it sends."""


def behaviour(act: Behaviour) -> Behaviour:
    BEHAVIOURS[act.__name__.strip("_").replace("_", "-")] = act
    return act


@behaviour
async def fine(to: Exchange) -> None:
    """A proper answer: "Hi."."""
    await to.answer(chunk({"content": "Hi."}))


@behaviour
async def drip(to: Exchange) -> None:
    """A proper answer, "Hi.", one byte at a time."""
    await to.head()
    for byte in chunk({"content": "Hi."}) + chunk({}, "stop") + b"data: [DONE]\n\n":
        await to.send(bytes([byte]))
        await asyncio.sleep(0.001)


@behaviour
async def error_endless(to: Exchange) -> None:
    """Status 400 and a body without end."""
    await to.head(400)
    await to.for_ever(b"x" * 65536)


@behaviour
async def error_drip(to: Exchange) -> None:
    """Status 401 and a body without end, a byte every 0.1 s."""
    await to.head(401)
    while True:
        await to.send(b"x")
        await asyncio.sleep(0.1)


@behaviour
async def error_gzip(to: Exchange) -> None:
    """Status 400 and 2 MB of gzip that stand for 400 MB."""
    await to.head(400, content_encoding="gzip")
    await to.send(_bomb(31))


@behaviour
async def error_deflate(to: Exchange) -> None:
    """Status 500 and 2 MB of deflate that stand for 400 MB."""
    await to.head(500, content_encoding="deflate")
    await to.send(_bomb(15))


@behaviour
async def error_unread(to: Exchange) -> None:
    """Status 400 before the request's body is read, which it never is; open for a minute."""
    body = b'{"error": {"message": "too long"}}'
    await to.head(400, content_length=str(len(body)), connection="keep-alive")
    await to.send(body)
    await asyncio.sleep(60)


@behaviour
async def error_deep(to: Exchange) -> None:
    """An error in the stream whose code is nested a thousand times."""
    deep = "[" * 1000 + "]" * 1000
    await to.head()
    await to.send(f'data: {{"error": {{"code": {deep}, "message": "m"}}}}\n\n'.encode())


@behaviour
async def error_retry_after(to: Exchange) -> None:
    """Status 429 and a Retry-After that is a date beyond all dates."""
    await to.head(429, retry_after="Fri, 31 Dec 99999999999 23:59:59 +999999999999")
    await to.send(b"{}")


@behaviour
async def stream_gzip(to: Exchange) -> None:
    """A stream of events that is a gzip bomb."""
    await to.head(content_encoding="gzip")
    await to.send(_bomb(31))


@behaviour
async def line(to: Exchange) -> None:
    """A line that never ends."""
    await to.head()
    await to.send(b"data: ")
    await to.for_ever(b"x" * 65536)


@behaviour
async def comments(to: Exchange) -> None:
    """Comments without end, as fast as they are taken."""
    await to.head()
    await to.for_ever(b":\n" * 32768)


@behaviour
async def blanks(to: Exchange) -> None:
    """Blank lines without end."""
    await to.head()
    await to.for_ever(b"\n" * 65536)


@behaviour
async def page(to: Exchange) -> None:
    """A web page without end, as a success."""
    await to.head(content_type="text/html")
    await to.for_ever(b"<p>Welcome</p>\n" * 4096)


@behaviour
async def empty_chunks(to: Exchange) -> None:
    """Chunks without a choice, without end."""
    await to.head()
    await to.for_ever(event({"choices": []}) * 1000)


@behaviour
async def empty_fragments(to: Exchange) -> None:
    """Empty fragments of one tool call, without end."""
    await to.head()
    fragment = {"index": 0, "function": {"arguments": ""}}
    await to.for_ever(chunk({"tool_calls": [fragment] * 100}) * 10)


@behaviour
async def empty_calls(to: Exchange) -> None:
    """Empty fragments of ever more tool calls, without end."""
    await to.head()
    number = 0
    while True:
        fragments = [{"index": number + at, "function": {}} for at in range(1000)]
        await to.send(chunk({"tool_calls": fragments}))
        number += 1000


@behaviour
async def many_calls(to: Exchange) -> None:
    """An answer with 100,000 tool calls, in chunks of 1,000."""
    calls = [
        {"index": at, "id": f"c{at}", "function": {"name": "add", "arguments": "{}"}}
        for at in range(100_000)
    ]
    chunks = [chunk({"tool_calls": calls[at : at + 1000]}) for at in range(0, 100_000, 1000)]
    await to.answer(*chunks, reason="tool_calls")


@behaviour
async def long_id(to: Exchange) -> None:
    """A call of the tool `add` with an id of 300,000 bytes."""
    await to.answer(_call(id="x" * 300_000), reason="tool_calls")


@behaviour
async def long_name(to: Exchange) -> None:
    """A call of a tool whose name has 300,000 bytes."""
    await to.answer(_call(name="x" * 300_000), reason="tool_calls")


@behaviour
async def key_id(to: Exchange) -> None:
    """A call of the tool `add` whose id is the key."""
    await to.answer(_call(id=to.key), reason="tool_calls")


@behaviour
async def surrogates(to: Exchange) -> None:
    r"""The text "😀" in two chunks, half a surrogate pair each, and a half without the other."""
    halves = [b'{"choices": [{"delta": {"content": "%b"}}]}' % half for half in HALVES]
    await to.answer(*(b"data: " + half + b"\n\n" for half in halves))


HALVES = (rb"\ud83d", rb"\ude00", rb" \udc00.")
"""What `surrogates` says, in the escapes of JSON."""


@behaviour
async def usage(to: Exchange) -> None:
    """A proper answer whose usage is beyond what 32 bits hold."""
    told = {"prompt_tokens": 2**31 - 1, "completion_tokens": 2**31 - 1}
    await to.answer(chunk({"content": "Hi."}), event({"choices": [], "usage": told}))


@behaviour
async def cookies(to: Exchange) -> None:
    """A proper answer with a hundred large cookies."""
    jar = [f"c{at}={'x' * 4000}" for at in range(90)]
    await to.head(set_cookie="\r\nset-cookie: ".join(jar))
    await to.send(chunk({"content": "Hi."}) + chunk({}, "stop") + b"data: [DONE]\n\n")


@behaviour
async def headers(to: Exchange) -> None:
    """Headers without end."""
    await to.send(b"HTTP/1.1 200 OK\r\n")
    await to.for_ever(b"x-more: 1\r\n" * 1000)


@behaviour
async def header_line(to: Exchange) -> None:
    """A header that never ends."""
    await to.send(b"HTTP/1.1 200 OK\r\nx-more: ")
    await to.for_ever(b"x" * 65536)


@behaviour
async def informational(to: Exchange) -> None:
    """Status 100 without end."""
    await to.for_ever(b"HTTP/1.1 100 Continue\r\n\r\n" * 1000)


@behaviour
async def reason_phrase(to: Exchange) -> None:
    """A reason phrase that is not text."""
    await to.send(b"HTTP/1.1 400 \xff\xfe\r\ncontent-length: 2\r\n\r\n{}")


@behaviour
async def garbage(to: Exchange) -> None:
    """What is not HTTP."""
    await to.send(b"\x00\xff" * 1000 + b"\r\n\r\n")


@behaviour
async def bad_chunks(to: Exchange) -> None:
    """A body whose chunk has no size."""
    await to.head(transfer_encoding="chunked")
    await to.send(chunk({"content": "Hi."}))


@behaviour
async def half_open(to: Exchange) -> None:
    """A head, and silence."""
    await to.head()
    await asyncio.Event().wait()


@behaviour
async def reset(to: Exchange) -> None:
    """A reset in the middle of the body."""
    await to.head()
    await to.send(chunk({"content": "Hi."}))
    linger = struct.pack("ii", 1, 0)
    to.writer.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, linger)
    to.writer.transport.abort()


def _percent(text: str) -> str:
    return "".join(f"%{byte:02x}" for byte in text.encode())


KEY_FORMS: Mapping[str, Callable[[str], str]] = {
    "plain": str,
    "bearer": lambda key: f"Bearer {key}",
    "percent": _percent,
    "percent-partly": lambda key: "".join(_percent(c) if i % 2 else c for i, c in enumerate(key)),
    "percent-twice": lambda key: quote(_percent(key)),
    "base64": lambda key: base64.b64encode(key.encode()).decode(),
    "base64-inside": lambda key: base64.b64encode(f"key={key};".encode()).decode(),
    "base64-url": lambda key: base64.urlsafe_b64encode(f"??{key}>>".encode()).decode(),
    "hex": lambda key: key.encode().hex(),
    "hex-colons": lambda key: key.encode().hex(":").upper(),
    "json": lambda key: "".join(f"\\u{ord(char):04x}" for char in key),
    "html": lambda key: "".join(f"&#{ord(char)};" for char in key),
    "upper": str.upper,
    "spaced": " ".join,
    "zero-width": "\u200b".join,
    "lines": "\n".join,
    "escaped-lines": "\\n".join,
    "wide": lambda key: "".join(chr(ord(c) + 0xFEE0) if "!" <= c <= "~" else c for c in key),
    "inside-itself": lambda key: key[:9] + key + key[9:],
}
"""How `key-FORM` tells the key: in the message of a status 400, and as its request id."""


def _key_told(form: Callable[[str], str]) -> Behaviour:
    async def act(to: Exchange) -> None:
        told = form(to.key)
        named = told.encode("ascii", "replace").decode().replace("\n", " ")
        await to.head(400, x_request_id=f"req-{named}")
        message = f"The key {told} is not known."
        await to.send(json.dumps({"error": {"message": message, "code": told}}).encode())

    return act


BEHAVIOURS |= {f"key-{name}": _key_told(form) for name, form in KEY_FORMS.items()}


def _call(*, id: str = "c1", name: str = "add") -> bytes:
    function = {"name": name, "arguments": '{"a": 1, "b": 2}'}
    return chunk({"tool_calls": [{"index": 0, "id": id, "function": function}]})


def _bomb(window: int) -> bytes:
    packer = zlib.compressobj(1, zlib.DEFLATED, window)
    zeros = bytes(1024 * 1024)
    parts = [packer.compress(zeros) for _ in range(BOMB_BYTES // len(zeros))]
    return b"".join([*parts, packer.flush()])
