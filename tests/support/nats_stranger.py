"""Somebody else who publishes in the NATS account of the service."""

from __future__ import annotations

import asyncio
import base64
import json
import time
from collections.abc import Mapping, Sequence
from typing import Any, Self

from nats.aio.client import Client
from nats.aio.msg import Msg

from polos_service.store import RunQuery
from polos_service.store.nats import NatsStore
from polos_service.store.nats.subjects import run_subject
from tests.support.nats import NatsServer
from tests.support.stores import COMPLETED, first_claim, frame, new_run, soon

FRAME = "Polos-Frame"

GOOD = "1 1 1 1 1 someone events 0 0"
"""A head as the service writes it."""

GARBAGE: Mapping[str, tuple[bytes, dict[str, str] | None]] = {
    "no header": (b"garbage", None),
    "empty": (b"", None),
    "enormous": (b"x" * 900_000, None),
    "JSON of another kind": (b'{"a": [1, 2, {"b": null}]}', None),
    "JSON list": (b'["a", "b", "c", "d", "e"]', None),
    "deep JSON": (b"[" * 100_000, None),
    "too few fields": (b"x", {FRAME: "1 1 1"}),
    "too many fields": (b"x", {FRAME: GOOD + " 7"}),
    "no numbers": (b"x", {FRAME: "a b c d e f events g h"}),
    "huge numbers": (b"x", {FRAME: GOOD.replace("1", "9" * 5000)}),
    "beyond 64 bits": (b"x", {FRAME: GOOD.replace("1", "9" * 19)}),
    "other digits": (b"x", {FRAME: GOOD.replace("1", "\u0661")}),
    "negative": (b"x", {FRAME: GOOD.replace("1", "-1")}),
    "unknown mark": (b"x", {FRAME: GOOD.replace("events", "paused")}),
    "unknown outcome": (b"x", {FRAME: GOOD[:-1] + "77"}),
    "no chain": (b"x", {FRAME: GOOD}),
    "a status": (b"", {"Status": "404", "Description": "No Messages"}),
    "an error status": (b"", {"Status": "503"}),
    "headers of the server": (
        b"x",
        {"Nats-Sequence": "7", "Nats-Subject": "elsewhere", "Nats-Time-Stamp": "never"},
    ),
    "a deletion": (b"", {"KV-Operation": "DEL"}),
}
"""What a stranger may publish anywhere: payload and headers, by name."""

RAW = (
    b"NATS/1.0",
    b"NATS/1.0\r\n",
    b"NATS/1.0 \xff\xfe\xfd\r\n\r\n",
    b"NATS/1.0 404 No\r\nA: \xff\r\n\r\n",
    b"NATS/1.0\r\n\r\nA: b\r\n\r\n",
    b"\xff" * 40,
    b"garbage\r\n\r\n",
)
"""Headers that no client library would send."""


class Stranger:
    """An async context manager."""

    def __init__(self, server: NatsServer) -> None:
        self._server = server
        self._client = Client()

    async def __aenter__(self) -> Self:
        await self._client.connect(servers=[self._server.url], allow_reconnect=False)
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._client.close()

    async def store(
        self, subject: str, payload: bytes = b"garbage", headers: dict[str, str] | None = None
    ) -> int:
        """Publish into a stream, and return the stream's number for the message."""
        answer = await self._client.request(subject, payload, headers=headers, timeout=10)
        return int(json.loads(answer.data)["seq"])

    async def request(self, what: str, body: Mapping[str, object] | None = None) -> Any:
        """Return JetStream's answer to a request."""
        payload = json.dumps(body or {}).encode()
        answer = json.loads((await self._client.request(f"$JS.API.{what}", payload, 10)).data)
        if "error" in answer:
            raise LookupError(answer["error"])
        return answer

    async def last(self, stream: str, subject: str) -> bytes | None:
        """Return the last message of a subject; None if there is none."""
        try:
            answer = await self.request(f"STREAM.MSG.GET.{stream}", {"last_by_subj": subject})
        except LookupError:
            return None
        return base64.b64decode(answer["message"].get("data", ""))

    async def stored(self, stream: str, subject: str) -> list[dict[str, Any]]:
        """Return the messages of a subject: `seq`, `hdrs` and `data`, decoded."""
        found: list[dict[str, Any]] = []
        while True:
            at = {"seq": found[-1]["seq"] + 1 if found else 1, "next_by_subj": subject}
            try:
                message = (await self.request(f"STREAM.MSG.GET.{stream}", at))["message"]
            except LookupError:
                return found
            for part in ("hdrs", "data"):
                message[part] = base64.b64decode(message.get(part, "")).decode(errors="replace")
            found.append(message)

    async def delete(self, stream: str, sequence: int) -> None:
        """Delete a message, as an operator does who must not."""
        await self.request(f"STREAM.MSG.DELETE.{stream}", {"seq": sequence})

    async def change(self, stream: str, **settings: object) -> None:
        """Change settings of a stream."""
        config = (await self.request(f"STREAM.INFO.{stream}"))["config"]
        await self.request(f"STREAM.UPDATE.{stream}", {**config, **settings})

    async def life(self, run_id: str) -> str:
        """Return how far a run is in the words of its record."""
        record = await self.last("KV_POLOS_RUNS", run_subject("default", run_id))
        assert record is not None
        return str(json.loads(record)["life"])

    async def empties(self, stream: str) -> None:
        """Return when a stream has no message."""
        async with asyncio.timeout(60):
            while await self.count(stream):
                await asyncio.sleep(0.01)

    async def answer(self, subject: str, payloads: Sequence[bytes]) -> None:
        """Answer whoever publishes there and wants an answer."""

        async def mislead(message: Msg) -> None:
            for payload in payloads:
                await self._client.publish(message.reply, payload)

        await self._client.subscribe(subject, cb=mislead)
        await self._client.flush()

    async def hear(self, subject: str) -> Msg:
        """Return the next message that is published there; listens once it is awaited."""
        subscription = await self._client.subscribe(subject)
        await self._client.flush()
        return await subscription.next_msg(timeout=60)

    async def count(self, stream: str) -> int:
        """Return how many messages a stream has."""
        return int((await self.request(f"STREAM.INFO.{stream}"))["state"]["messages"])

    async def publish(
        self, subject: str, payload: bytes = b"garbage", headers: dict[str, str] | None = None
    ) -> None:
        """Publish, whoever may hear it."""
        await self._client.publish(subject, payload, headers=headers)
        await self._client.flush()

    async def publish_raw(self, subject: bytes, headers: bytes) -> None:
        """Publish headers as they are."""
        reader, writer = await asyncio.open_connection("127.0.0.1", self._server.port)
        await reader.readline()
        writer.write(b'CONNECT {"verbose":false,"headers":true}\r\n')
        size = len(headers)
        writer.write(b"HPUB %s %d %d\r\n%sdata\r\nPING\r\n" % (subject, size, size + 4, headers))
        answer = await reader.readline()
        assert answer.startswith(b"PONG"), answer
        writer.close()


async def works(*stores: NatsStore) -> None:
    """See that runs start, are listed, run and end, at every replica."""
    for store in stores:
        run_id = await soon(store.create(new_run()))
        claim = await soon(first_claim(store, {"agent"}))
        assert claim.run_id == run_id
        await soon(store.append(claim, frame(1, outcome=COMPLETED)))
        assert run_id in [
            run.run_id for run in await soon(store.list("default", RunQuery(limit=99)))
        ]
        await soon(store.waiting())
        await soon(store.overdue(time.time_ns(), 0))
        assert await store.healthy()
