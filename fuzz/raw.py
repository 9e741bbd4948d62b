"""Connections that do not come from a gRPC client: bytes, frames and silences of HTTP/2."""

from __future__ import annotations

import asyncio
import contextlib
import socket
import struct
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager
from random import Random

PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
DATA, HEADERS, RST, SETTINGS, PING, GOAWAY, WINDOW, CONTINUATION = 0, 1, 3, 4, 6, 7, 8, 9
END_STREAM, END_HEADERS, PADDED = 1, 4, 8

FLOOD = 2000
"""Frames of a flood."""

STREAMS = 500
"""Streams that are opened and reset at once."""

PIECE = 64 * 1024
ANSWER_TIMEOUT = 0.3
"""Seconds for which a connection listens to what it is answered."""

PATHS = (
    b"/polos.v1.RunService/StreamRun",
    b"/polos.v1.RunService/GetRun",
    b"/grpc.health.v1.Health/Check",
    b"/no.such.Service/Method",
    b"",
    b"no-slash",
)


def frame(kind: int, flags: int, stream: int, payload: bytes, length: int | None = None) -> bytes:
    """Return a frame; `length` is what it says of itself, if that is not true."""
    said = len(payload) if length is None else length
    return struct.pack(">I", said)[1:] + bytes([kind, flags]) + struct.pack(">I", stream) + payload


def header(name: bytes, value: bytes) -> bytes:
    """Return a header as HPACK has it, without index and Huffman code."""
    return b"\0" + integer(len(name)) + name + integer(len(value)) + value


def integer(value: int) -> bytes:
    """Return an integer of HPACK with a prefix of seven bits."""
    if value < 127:
        return bytes([value])
    rest, encoded = value - 127, bytearray([127])
    while rest >= 128:
        encoded.append(rest % 128 + 128)
        rest //= 128
    encoded.append(rest)
    return bytes(encoded)


def request_headers(path: bytes, *more: tuple[bytes, bytes]) -> bytes:
    """Return the header block of a call."""
    usual = (
        (b":method", b"POST"),
        (b":scheme", b"http"),
        (b":path", path),
        (b":authority", b"localhost"),
        (b"content-type", b"application/grpc"),
        (b"te", b"trailers"),
    )
    return b"".join(header(name, value) for name, value in (*usual, *more))


def opening() -> bytes:
    """Return what a connection begins with."""
    return PREFACE + frame(SETTINGS, 0, 0, b"")


def garbage(random: Random) -> Iterator[bytes]:
    """Send what is no HTTP at all."""
    yield random.randbytes(random.choice((1, 24, 10_000)))


def http1(random: Random) -> Iterator[bytes]:
    """Send a request of HTTP/1.1."""
    yield b"GET / HTTP/1.1\r\nHost: a\r\nX: " + b"y" * random.choice((1, 100_000)) + b"\r\n\r\n"


def half_a_preface(random: Random) -> Iterator[bytes]:
    """Begin, and never go on."""
    yield PREFACE[: random.randrange(len(PREFACE))]


def silence(_random: Random) -> Iterator[bytes]:
    """Connect, and say nothing."""
    yield b""


def unfinished_headers(random: Random) -> Iterator[bytes]:
    """Begin a call whose headers have no end."""
    block = request_headers(random.choice(PATHS))
    yield opening() + frame(HEADERS, 0, 1, block)
    for number in range(random.choice((0, 10, 200))):
        yield frame(CONTINUATION, 0, 1, header(b"x-%d" % number, b"v" * 1000))


def huge_headers(random: Random) -> Iterator[bytes]:
    """Send megabytes of headers."""
    yield opening() + frame(HEADERS, 0, 1, request_headers(random.choice(PATHS)))
    for number in range(200):
        yield frame(CONTINUATION, 0, 1, header(b"x-%d" % number, b"v" * 16_000))
    yield frame(CONTINUATION, END_HEADERS, 1, b"")


def wrong_headers(random: Random) -> Iterator[bytes]:
    """Send a header block that is none, or that lacks what a call needs."""
    block = random.choice(
        (random.randbytes(100), b"\xff" * 50, b"", header(b":path", b"/"), b"\x3f\xff\xff\x7f")
    )
    yield opening() + frame(HEADERS, END_HEADERS, 1, block)


def rapid_reset(random: Random) -> Iterator[bytes]:
    """Open streams, and reset each at once."""
    yield opening()
    block = request_headers(random.choice(PATHS))
    for number in range(STREAMS):
        stream = 2 * number + 1
        reset = frame(RST, 0, stream, struct.pack(">I", random.choice((0, 8, 2**32 - 1))))
        yield frame(HEADERS, END_HEADERS, stream, block) + reset


def flood(random: Random) -> Iterator[bytes]:
    """Send settings, pings or window updates without pause."""
    kind = random.choice(
        (
            frame(SETTINGS, 0, 0, struct.pack(">HI", 3, 100)),
            frame(PING, 0, 0, b"12345678"),
            frame(WINDOW, 0, 0, struct.pack(">I", 1)),
            frame(DATA, 0, 0, b""),
        )
    )
    yield opening()
    for _ in range(FLOOD // 100):
        yield kind * 100


def wrong_frames(random: Random) -> Iterator[bytes]:
    """Send frames with any type, flags, stream and length."""
    yield opening()
    for _ in range(20):
        payload = random.randbytes(random.randrange(64))
        length = random.choice((None, 0, 2**24 - 1))
        yield frame(
            random.randrange(12), random.randrange(256), random.randrange(8), payload, length
        )


def wrong_message(random: Random) -> Iterator[bytes]:
    """Call properly, with a message whose flag, length or compression is wrong."""
    encoding = random.choice((b"gzip", b"deflate", b"identity", b"no-such", b""))
    more = ((b"grpc-encoding", encoding),) if encoding else ()
    block = request_headers(random.choice(PATHS[:3]), *more)
    body = random.randbytes(random.choice((0, 5, 1000)))
    flag = random.choice((0, 1, 1, 2, 255))
    length = random.choice((len(body), 0, len(body) + 100, 2**31, 2**32 - 1))
    message = bytes([flag]) + struct.pack(">I", length) + body
    end = random.choice((0, END_STREAM))
    yield opening() + frame(HEADERS, END_HEADERS, 1, block) + frame(DATA, end, 1, message)
    if random.random() < 0.5:
        yield frame(RST, 0, 1, struct.pack(">I", 8))


def half_a_message(random: Random) -> Iterator[bytes]:
    """Call properly, and stop in the middle of the message."""
    block = request_headers(random.choice(PATHS[:3]))
    yield opening() + frame(HEADERS, END_HEADERS, 1, block)
    yield frame(DATA, 0, 1, b"\0" + struct.pack(">I", 1000) + b"x" * random.randrange(1000))


def early_goodbye(random: Random) -> Iterator[bytes]:
    """Open a stream, and say that the connection ends."""
    yield opening() + frame(HEADERS, END_HEADERS, 1, request_headers(random.choice(PATHS)))
    yield frame(GOAWAY, 0, 0, struct.pack(">II", random.choice((0, 1, 2**31 - 1)), 0) + b"bye")


def padded(random: Random) -> Iterator[bytes]:
    """Send a frame whose padding is longer than itself."""
    yield opening() + frame(HEADERS, END_HEADERS, 1, request_headers(random.choice(PATHS)))
    yield frame(DATA, PADDED, 1, b"\xff" + b"x" * random.randrange(20))


Attack = Callable[[Random], Iterator[bytes]]

ATTACKS: tuple[Attack, ...] = (
    garbage,
    http1,
    half_a_preface,
    silence,
    unfinished_headers,
    huge_headers,
    wrong_headers,
    rapid_reset,
    flood,
    wrong_frames,
    wrong_message,
    half_a_message,
    early_goodbye,
    padded,
)


async def attack(address: str, pieces: Iterator[bytes], *, reset: bool) -> None:
    """Send the pieces on a connection of their own, and listen a moment."""
    with contextlib.suppress(ConnectionError, TimeoutError):
        async with connected(address, reset=reset) as (reader, writer):
            for piece in pieces:
                writer.write(piece)
                await asyncio.wait_for(writer.drain(), ANSWER_TIMEOUT)
            while await asyncio.wait_for(reader.read(PIECE), ANSWER_TIMEOUT):
                pass


@asynccontextmanager
async def connected(
    address: str, *, reset: bool
) -> AsyncIterator[tuple[asyncio.StreamReader, asyncio.StreamWriter]]:
    """Connect for as long as the block; leave by closing the connection, or by a reset."""
    host, _, port = address.rpartition(":")
    try:
        reader, writer = await asyncio.open_connection(host, int(port))
    except OSError as error:
        raise AssertionError(f"the service takes no connection: {error}") from error
    try:
        yield reader, writer
    finally:
        if reset:
            linger = struct.pack("ii", 1, 0)
            with contextlib.suppress(OSError):
                writer.get_extra_info("socket").setsockopt(
                    socket.SOL_SOCKET, socket.SO_LINGER, linger
                )
        writer.transport.abort()
        with contextlib.suppress(OSError):
            await writer.wait_closed()
