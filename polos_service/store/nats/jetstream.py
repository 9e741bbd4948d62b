"""Requests to JetStream: each is bounded in time, and tried again until then.

What a stream's leader answers is the newest. A direct get brings many messages at once, from
any replica of the stream, which may lack the newest ones.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from contextlib import suppress
from typing import Any, TypeVar

import orjson
from nats.aio.msg import Msg
from nats.aio.subscription import Subscription
from nats.errors import Error, MaxPayloadError

from polos_client.errors import StoreUnavailable
from polos_service.logs import get_logger
from polos_service.store.nats.connection import Away, Connection
from polos_service.store.nats.messages import (
    Foreign,
    Page,
    StoredMessage,
    direct_get,
    from_leader,
)

T = TypeVar("T")

API = "$JS.API"
"""How the subjects of requests to JetStream begin."""

ATTEMPT = 2.0
"""Seconds until a request without an answer is sent again."""

FIRST_PAUSE = 0.02
"""Seconds before the second attempt; each further pause is twice as long."""

LONGEST_PAUSE = 0.5
"""Seconds between two attempts at most."""

NOT_FOUND = 404
"""Status of an answer: there is no such message."""

SERVER_ERROR = 500
"""Status of an answer, or above: JetStream cannot do it now."""

GONE = "no message found"
"""How JetStream describes a message that is gone; a deletion gives that the status 500."""

WRONG_LAST = (10071, 10164)
"""Error codes of a publish whose expected last sequence is not that of its subject."""

PAGE_BYTES = 1024 * 1024
"""Bytes that one direct get asks for at most; one message more may come."""

BATCH = 1000
"""Messages that one direct get brings at most."""

EXPECTED_LAST = "Nats-Expected-Last-Subject-Sequence"
"""The header of a publish with the sequence of the message before it, whoever wrote that."""

log = get_logger(__name__)


class Conflict(StoreUnavailable):
    """Another message is the last of the subject. `last` is it; None if there is none."""

    def __init__(self, last: StoredMessage | None) -> None:
        super().__init__("Another replica wrote to NATS at the same time. Try again.")
        self.last = last


class Refused(StoreUnavailable):
    """JetStream refused a request for good; `code` is its number for the reason."""

    def __init__(self, error: Mapping[str, Any]) -> None:
        super().__init__(f"NATS refused it: {error.get('description', error)}.")
        self.status = error.get("code", 0)
        self.code = error.get("err_code", 0)


class JetStream:
    """JetStream, over one connection.

    Attributes:
        foreign: the gate that every message goes through that is read.

    """

    def __init__(self, connection: Connection) -> None:
        self.foreign = Foreign()
        self._connection = connection
        self.on_return = connection.on_return
        self.new_reply_subject = connection.new_inbox
        self.close = connection.leave

    @property
    def patience(self) -> float:
        """Seconds for which a request is tried."""
        return self._connection.endpoint.patience

    async def subscribe(self, subject: str, call: Callable[[Msg], Awaitable[None]]) -> Subscription:
        """Call for every message of a subject that is published from now on."""

        async def attempt(_: float) -> Subscription:
            self._connection.expect()
            return await self._connection.subscribe(subject, cb=call)

        return await self._until_answered(attempt)

    async def publish(self, subject: str, payload: bytes, reply: str = "") -> None:
        """Publish once, without knowing whether it arrives."""
        try:
            await self._connection.publish(subject, payload, reply=reply)
        except Error as error:
            log.warning("nats_publish_failed", subject=subject, error=str(error))

    async def request(self, what: str, body: Mapping[str, Any] | None = None) -> dict[str, Any]:
        """Return JetStream's answer to a request that may safely be sent twice.

        Raises:
            Refused: it cannot be done.
            StoreUnavailable: there was no answer in time.

        """
        payload = b"" if body is None else orjson.dumps(body)
        return await self._until_answered(
            lambda timeout: self._ask(f"{API}.{what}", payload, timeout)
        )

    async def ask_once(self, what: str, body: Mapping[str, Any] | None = None) -> dict[str, Any]:
        """Return JetStream's answer to a request that is not repeated.

        Raises:
            Away, Error, TimeoutError: there was no answer.
            Refused: it cannot be done.

        """
        return await self._ask(f"{API}.{what}", orjson.dumps(body or {}), ATTEMPT)

    async def last(self, stream: str, subject: str) -> StoredMessage | None:
        """Return the last message of a subject, from the stream's leader."""
        return await self._get(stream, {"last_by_subj": subject})

    async def next(self, stream: str, subject: str, sequence: int) -> StoredMessage | None:
        """Return the first message of a subject from a sequence on, from the leader."""
        return await self._get(stream, {"seq": sequence, "next_by_subj": subject})

    async def page(
        self, stream: str, subject: str, sequence: int, limit: int = PAGE_BYTES, count: int = BATCH
    ) -> list[StoredMessage]:
        """Return at most `count` messages of a subject from a sequence on, from any replica.

        There are no more than `limit` bytes hold (1 MiB, unless it is less), and one.
        """
        body = {
            "seq": sequence,
            "next_by_subj": subject,
            "batch": count,
            "max_bytes": min(limit, PAGE_BYTES),
        }
        return (await self._direct(stream, body)).messages

    async def page_or_next(
        self, stream: str, subject: str, sequence: int, count: int = BATCH
    ) -> list[StoredMessage]:
        """Return messages as `page` does; where any replica has none, the leader may."""
        found = await self.page(stream, subject, sequence, count=count)
        if not found:
            message = await self.next(stream, subject, sequence)
            found = [] if message is None else [message]
        return found

    async def lasts(self, stream: str, subjects: Sequence[str]) -> AsyncIterator[StoredMessage]:
        """Yield the last message of each subject that has one, from any replica."""
        body: dict[str, Any] = {"multi_last": [*subjects], "batch": len(subjects)}
        more = bool(subjects)
        while more:
            page = await self._direct(stream, {**body, "max_bytes": PAGE_BYTES})
            for message in page.messages:
                yield message
            more = page.more and bool(page.messages)
            body["seq"] = page.messages[-1].sequence + 1 if page.messages else 0

    async def subjects(self, stream: str, pattern: str) -> list[str]:
        """Return every subject of a pattern that the stream has a message of, from the leader."""
        found: list[str] = []
        while True:
            body = {"subjects_filter": pattern, "offset": len(found)}
            info = await self.request(f"STREAM.INFO.{stream}", body)
            page = info["state"].get("subjects") or {}
            found += page
            if not page or len(found) >= info.get("total", 0):
                return found

    async def put(
        self,
        stream: str,
        subject: str,
        payload: bytes,
        *,
        expected: int,
        behind: str = "",
        same: Callable[[StoredMessage], bool],
        headers: Mapping[str, str] | None = None,
    ) -> int:
        """Store a message if `expected` is the last sequence of its subject; return its own.

        With `behind`, it must be the last sequence of all subjects that this pattern matches.
        An acknowledgement that was lost looks like a conflict; `same` tells whether the last
        message is the one that was to be stored.

        Raises:
            Conflict: the last message is another one.
            StoreUnavailable: there was no answer in time, and it is not known.

        """
        full = {EXPECTED_LAST: str(expected), **(headers or {})}
        if behind:
            full[EXPECTED_LAST + "-Subject"] = behind

        async def attempt(timeout: float) -> int:
            try:
                return sequence_in(await self._ask(subject, payload, timeout, full))
            except Refused as refused:
                if refused.code not in WRONG_LAST:
                    raise
            last = await self.last(stream, behind or subject)
            found = 0 if last is None else last.sequence
            if last is not None and same(last):
                return found
            if found == expected:
                # A leader that has lost the others compares with what it could not store.
                raise Away("another message is under way")
            raise Conflict(last)

        return await self._until_answered(attempt)

    async def put_last(self, subject: str, payload: bytes) -> None:
        """Store a message behind the last of a subject that only this process writes to.

        Raises:
            StoreUnavailable: there was no answer in time, and it is not known.

        """
        await self._until_answered(lambda timeout: self._ask(subject, payload, timeout))

    async def value(
        self, decode: Callable[[StoredMessage], T], bucket: str, subject: str
    ) -> T | None:
        """Return the value of ours that is the last of its subject, from the leader."""
        return self.foreign.read(decode, await self.last(bucket, subject))

    async def put_value(
        self,
        decode: Callable[[StoredMessage], object],
        bucket: str,
        subject: str,
        payload: bytes,
        *,
        revision: int,
        headers: Mapping[str, str] | None = None,
    ) -> int:
        """Store a value where `revision` is the last; what is not ours there is replaced.

        Raises:
            Conflict: another value of ours is the last.

        """
        while True:
            try:
                return await self.put(
                    bucket,
                    subject,
                    payload,
                    expected=revision,
                    same=lambda last: last.data == payload,
                    headers=headers,
                )
            except Conflict as conflict:
                if conflict.last is None or self.foreign.read(decode, conflict.last) is not None:
                    raise
                revision = conflict.last.sequence

    async def purge(self, stream: str, subject: str, until: int | None = None) -> None:
        """Remove every message of a subject, or those up to a sequence."""
        bound = {} if until is None else {"seq": until + 1}
        await self.request(f"STREAM.PURGE.{stream}", {"filter": subject, **bound})

    async def _get(self, stream: str, body: Mapping[str, Any]) -> StoredMessage | None:
        try:
            answer = await self.request(f"STREAM.MSG.GET.{stream}", body)
        except Refused as refused:
            if refused.status == NOT_FOUND:
                return None
            raise
        return from_leader(answer["message"])

    async def _direct(self, stream: str, body: Mapping[str, Any]) -> Page:
        subject, payload = f"{API}.DIRECT.GET.{stream}", orjson.dumps(body)
        return await self._until_answered(
            lambda timeout: direct_get(self._connection, subject, payload, timeout)
        )

    async def _ask(
        self,
        subject: str,
        payload: bytes,
        timeout: float,
        headers: dict[str, str] | None = None,
    ) -> dict[str, Any]:
        self._connection.expect()
        message = await self._connection.request(subject, payload, timeout=timeout, headers=headers)
        answer = answer_in(message)
        error = answer.get("error")
        if error is None:
            return answer
        if error.get("code", 0) >= SERVER_ERROR and error.get("description") != GONE:
            raise Away(str(error.get("description", error)))
        raise Refused(error)

    async def _until_answered(self, attempt: Callable[[float], Awaitable[T]]) -> T:
        now = asyncio.get_running_loop().time
        end = now() + self.patience
        pause = FIRST_PAUSE
        while True:
            try:
                return await attempt(max(0.1, min(ATTEMPT, end - now())))
            except MaxPayloadError as error:
                raise StoreUnavailable(
                    "A message is larger than NATS accepts. Set max_payload to 8MB in the "
                    "configuration of every server."
                ) from error
            except (Error, Away, TimeoutError) as error:
                if self._connection.is_closed or now() + pause >= end:
                    raise self._connection.endpoint.unavailable(error) from error
            await asyncio.sleep(pause)
            pause = min(2 * pause, LONGEST_PAUSE)


def answer_in(message: Msg) -> dict[str, Any]:
    """Return JetStream's answer; somebody else who answers is as good as nobody.

    Raises:
        Away: it is not an answer of JetStream.

    """
    with suppress(ValueError):
        answer = orjson.loads(message.data)
        error = answer.get("error", {}) if isinstance(answer, dict) else None
        if isinstance(error, dict) and all(
            isinstance(error.get(name, 0), int) for name in ("code", "err_code")
        ):
            return dict(answer)
    raise Away("the answer does not come from JetStream")


def sequence_in(answer: Mapping[str, Any]) -> int:
    """Return the stream's number for the message that this answer acknowledges.

    Raises:
        Away: it acknowledges none.

    """
    sequence = answer.get("seq")
    if not isinstance(sequence, int):
        raise Away("the answer does not acknowledge a message")
    return sequence
