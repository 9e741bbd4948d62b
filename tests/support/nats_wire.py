"""The wire between a store and its NATS server: a test sees, loses, holds and changes messages."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, replace
from enum import Enum
from typing import Self

from polos_service.store.nats import Endpoint, NatsStore
from tests.support.nats import CLAIM_TIMEOUT, NatsServer

CRLF = b"\r\n"

API = "$JS.API."


class Way(Enum):
    """Which way a message goes."""

    OUT = "from the store to NATS"
    IN = "from NATS to the store"


@dataclass(frozen=True, kw_only=True)
class Message:
    """A message on the wire; `about` is the request that it answers, if it answers one."""

    way: Way
    subject: str
    words: tuple[bytes, ...]
    headers: bytes
    payload: bytes
    about: Message | None = None

    @property
    def reply(self) -> str:
        """The subject on which it wants to be answered; empty if it does not."""
        at = 1 if self.way is Way.OUT else 2
        return self.words[at].decode() if len(self.words) > at else ""

    def encode(self) -> bytes:
        name = {Way.OUT: b"PUB", Way.IN: b"MSG"}[self.way]
        sizes = [len(self.headers) + len(self.payload)]
        if self.headers:
            name, sizes = b"H" + name, [len(self.headers), *sizes]
        line = b" ".join([name, *self.words, *(b"%d" % size for size in sizes)])
        return line + CRLF + self.headers + self.payload + CRLF


Matches = Callable[[Message], bool]


class Fault:
    """What happens to messages that match, so many times.

    Attributes:
        met: set when it has happened for the first time.
        go_on: what is held goes on when this is set.

    """

    def __init__(self, matches: Matches, times: int, change: bytes | None, *, hold: bool) -> None:
        self.met, self.go_on = asyncio.Event(), asyncio.Event()
        self._matches, self._left = matches, times
        self.change, self.hold = change, hold

    def takes(self, message: Message) -> bool:
        if self._left <= 0 or not self._matches(message):
            return False
        self._left -= 1
        self.met.set()
        return True

    def end(self) -> None:
        self._left = 0
        self.go_on.set()


class Wire:
    """A port that leads to a server; an async context manager.

    Attributes:
        sent: every message that the store has published.
        answered: every message that the store was sent.
        subscribed: every subject that it has subscribed to.
        connections: how many there were.

    """

    def __init__(self, server: NatsServer) -> None:
        self.sent: list[Message] = []
        self.answered: list[Message] = []
        self.subscribed: list[str] = []
        self.connections = 0
        self._server = server
        self._faults: list[Fault] = []
        self._asked: dict[str, Message] = {}
        self._tasks: set[asyncio.Task[None]] = set()
        self._ends: dict[Way, asyncio.StreamWriter] = {}
        self._port = 0

    async def __aenter__(self) -> Self:
        self._listener = await asyncio.start_server(self._accept, "127.0.0.1", 0)
        self._port = self._listener.sockets[0].getsockname()[1]
        return self

    async def __aexit__(self, *_: object) -> None:
        self._listener.close()
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    def endpoint(self, patience: float = 15.0) -> Endpoint:
        return Endpoint(servers=(f"nats://127.0.0.1:{self._port}",), patience=patience)

    async def store(self, patience: float = 15.0) -> NatsStore:
        """Open a store at this end of the wire."""
        return await NatsStore.open(self.endpoint(patience), claim_timeout=CLAIM_TIMEOUT)

    def lose(self, matches: Matches, times: int = 1 << 30) -> Fault:
        """Lose messages that match."""
        return self._add(Fault(matches, times, None, hold=False))

    def hold(self, matches: Matches, times: int = 1) -> Fault:
        """Hold messages back; what comes behind them overtakes them."""
        return self._add(Fault(matches, times, None, hold=True))

    def change(self, matches: Matches, payload: bytes, times: int = 1) -> Fault:
        """Put another payload, and no headers, into answers; into requests, the payload only."""
        return self._add(Fault(matches, times, payload, hold=False))

    def cut(self) -> None:
        """Close the connection."""
        for end in self._ends.values():
            end.close()

    def requests(self, what: str) -> list[Message]:
        """Return the requests to JetStream so far whose subject begins so."""
        return [message for message in self.sent if message.subject.startswith(API + what)]

    def _add(self, fault: Fault) -> Fault:
        self._faults.append(fault)
        return fault

    async def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            far = await asyncio.open_connection("127.0.0.1", self._server.port)
        except OSError:
            writer.close()
            return
        self.connections += 1
        self._ends = {Way.OUT: far[1], Way.IN: writer}
        pumps = {
            asyncio.ensure_future(self._pump(Way.OUT, reader, far[1])),
            asyncio.ensure_future(self._pump(Way.IN, far[0], writer)),
        }
        self._tasks |= pumps
        await asyncio.wait(pumps, return_when=asyncio.FIRST_COMPLETED)
        for end in (writer, far[1]):
            end.close()

    async def _pump(
        self, way: Way, source: asyncio.StreamReader, sink: asyncio.StreamWriter
    ) -> None:
        with suppress(ConnectionError, asyncio.IncompleteReadError):
            while line := await source.readline():
                name, *words = line.split()
                if name in (b"PUB", b"HPUB", b"MSG", b"HMSG"):
                    await self._pass(await self._read(way, name, words, source), sink)
                    continue
                if name == b"SUB":
                    self.subscribed.append(words[0].decode())
                sink.write(line)
                await sink.drain()

    async def _read(
        self, way: Way, name: bytes, words: list[bytes], source: asyncio.StreamReader
    ) -> Message:
        head = int(words[-2]) if name.startswith(b"H") else 0
        raw = (await source.readexactly(int(words[-1]) + len(CRLF)))[: -len(CRLF)]
        subject = words[0].decode(errors="replace")
        message = Message(
            way=way,
            subject=subject,
            words=tuple(words[: -2 if head else -1]),
            headers=raw[:head],
            payload=raw[head:],
            about=self._asked.get(subject) if way is Way.IN else None,
        )
        if way is Way.OUT and message.reply:
            self._asked[message.reply] = message
        (self.sent if way is Way.OUT else self.answered).append(message)
        return message

    async def _pass(self, message: Message, sink: asyncio.StreamWriter) -> None:
        fault = next((one for one in self._faults if one.takes(message)), None)
        if fault is None:
            sink.write(message.encode())
            await sink.drain()
        elif fault.change is not None:
            headers = message.headers if message.way is Way.OUT else b""
            sink.write(replace(message, payload=fault.change, headers=headers).encode())
        elif fault.hold:
            self._tasks.add(asyncio.ensure_future(self._pass_later(message, fault)))

    async def _pass_later(self, message: Message, fault: Fault) -> None:
        await fault.go_on.wait()
        self._ends[message.way].write(message.encode())


def published(subject: str, payload: bytes = b"") -> Matches:
    """What the store publishes under a subject that begins so, with a payload that does."""
    return lambda message: (
        message.way is Way.OUT
        and message.subject.startswith(subject)
        and message.payload.startswith(payload)
    )


def asked(what: str, body: bytes = b"") -> Matches:
    """Requests to JetStream whose subject begins so, with this in their body."""
    return lambda message: (
        message.way is Way.OUT
        and message.subject.startswith(API + what)
        and body in message.payload
    )


def answers(requests: Matches) -> Matches:
    """What NATS answers to requests."""
    return lambda message: message.about is not None and requests(message.about)


def heard(subject: str) -> Matches:
    """What NATS publishes to the store under a subject that begins so."""
    return lambda message: message.way is Way.IN and message.subject.startswith(subject)


def delivered(message: Message) -> bool:
    """Work items that NATS gives to the store."""
    return message.way is Way.IN and message.reply.startswith("$JS.ACK.")


renewals = published("$JS.ACK.", b"+WPI")
"""That a run is being worked on."""
