"""The connection to NATS: every request is bounded in time, and tried again until then."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from contextlib import suppress
from typing import Any, TypeVar

import orjson
from nats.aio.msg import Msg
from nats.aio.subscription import Subscription
from nats.errors import Error, MaxPayloadError
from nkeys import NkeysError

from polos_client.errors import StoreUnavailable
from polos_service.logs import get_logger
from polos_service.store.nats.address import Address
from polos_service.store.nats.batch import PAGE, Page, direct
from polos_service.store.nats.connection import Away, Connection, hopeless
from polos_service.store.nats.foreign import Foreign
from polos_service.store.nats.stored import Stored, from_leader

T = TypeVar("T")

API = "$JS.API"

ATTEMPT = 2.0
"""Seconds until a request without an answer is sent again."""

FIRST_PAUSE, LONGEST_PAUSE = 0.02, 0.5
"""Seconds between two attempts; they double from the first to the longest."""

CLOSE = 1.0
"""Seconds that the end of the connection is waited for."""

NOT_FOUND = 404
SERVER_ERROR = 500
WRONG_LAST = (10071, 10164)
"""Error codes of a publish whose expected last sequence is not that of its subject."""

log = get_logger(__name__)


class Conflict(StoreUnavailable):
    """Another message is the last of the subject. `last` is it; None if there is none."""

    def __init__(self, last: Stored | None) -> None:
        super().__init__("Another replica wrote to NATS at the same time. Try again.")
        self.last = last


class Refused(StoreUnavailable):
    """JetStream refused a request for good; `code` is its number for why."""

    def __init__(self, error: Mapping[str, Any]) -> None:
        super().__init__(f"NATS refused it: {error.get('description', error)}.")
        self.status = error.get("code", 0)
        self.code = error.get("err_code", 0)


class Link:
    """A connection that comes back by itself. Made by `open`.

    Attributes:
        foreign: what every message goes through that is read.

    """

    def __init__(self, address: Address) -> None:
        self.foreign = Foreign()
        self._address = address
        self._client = Connection()
        self._opened = False
        self._back: list[Callable[[], None]] = []
        self._failure: Exception | None = None

    @property
    def patience(self) -> float:
        """Seconds that a request is tried for."""
        return self._address.patience

    @classmethod
    async def open(cls, address: Address) -> Link:
        """Connect.

        Raises:
            StoreUnavailable: no server answered in time; at once if it refused the credentials.

        """
        link = cls(address)
        try:
            async with asyncio.timeout(address.patience):
                await link._connect()
        except (TimeoutError, OSError, ValueError, Error, NkeysError) as error:
            await link.close()
            if hopeless(error):
                raise address.refused(error) from error
            raise address.unavailable(link._failure or error) from error
        link._opened = True
        return link

    async def _connect(self) -> None:
        address = self._address
        await self._client.connect(
            servers=list(address.servers),
            name="polos",
            user_credentials=None if address.credentials is None else str(address.credentials),
            nkeys_seed=None if address.nkey is None else str(address.nkey),
            max_reconnect_attempts=-1,
            reconnect_time_wait=1,
            ping_interval=5,
            connect_timeout=2,
            error_cb=self._failed,
            disconnected_cb=self._lost,
            reconnected_cb=self._returned,
        )

    async def close(self) -> None:
        """Send what was published, and disconnect."""
        client = self._client
        if client._transport is None:  # noqa: SLF001 - it never got as far, and cannot be closed
            return
        with suppress(Error, TimeoutError):
            if client.is_connected:
                await client.flush(timeout=2)
        if not client.is_connected:
            # What could not be sent would make `close` fail half-way, and leave its tasks.
            client._pending, client._pending_data_size = [], 0  # noqa: SLF001
        # Behind a TLS handshake that failed, it would wait for ever.
        with suppress(TimeoutError):
            await asyncio.wait_for(client.close(), CLOSE)

    async def ask_once(self, what: str, body: Mapping[str, Any] | None = None) -> dict[str, Any]:
        """Return JetStream's answer to a request that is not repeated.

        Raises:
            Away, Error, TimeoutError: there was no answer.
            Refused: it cannot be done.

        """
        return await self._ask(f"{API}.{what}", orjson.dumps(body or {}), ATTEMPT)

    def on_return(self, call: Callable[[], None]) -> None:
        """Call this whenever the connection is back: what was published meanwhile was missed."""
        self._back.append(call)

    def inbox(self) -> str:
        """Return a subject that nobody else uses."""
        return self._client.new_inbox()

    async def subscribe(self, subject: str, call: Callable[[Msg], Awaitable[None]]) -> Subscription:
        """Call for every message of a subject that is published from now on."""
        return await self._until_answered(lambda _: self._subscribe(subject, call))

    async def publish(self, subject: str, payload: bytes, reply: str = "") -> None:
        """Publish once, without knowing whether it arrives."""
        try:
            await self._client.publish(subject, payload, reply=reply)
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

    async def last(self, stream: str, subject: str) -> Stored | None:
        """Return the last message of a subject, from the stream's leader."""
        return await self._get(stream, {"last_by_subj": subject})

    async def next(self, stream: str, subject: str, sequence: int) -> Stored | None:
        """Return the first message of a subject from a sequence on, from the leader."""
        return await self._get(stream, {"seq": sequence, "next_by_subj": subject})

    async def batch(self, stream: str, body: Mapping[str, Any]) -> list[Stored]:
        """Return what a direct get brings, from any replica: it may lack the newest.

        There are no more messages than `max_bytes` hold (1 MiB, unless `body` says less), and one.
        """
        return (await self._page(stream, {"max_bytes": PAGE, **body})).messages

    async def lasts(self, stream: str, subjects: Sequence[str]) -> AsyncIterator[Stored]:
        """Yield the last message of each subject that has one, a page at a time."""
        body: dict[str, Any] = {"multi_last": [*subjects], "batch": len(subjects)}
        more = bool(subjects)
        while more:
            page = await self._page(stream, {**body, "max_bytes": PAGE})
            for message in page.messages:
                yield message
            more = page.more and bool(page.messages)
            body["seq"] = page.messages[-1].sequence + 1 if page.messages else 0

    async def _page(self, stream: str, body: Mapping[str, Any]) -> Page:
        payload = orjson.dumps(body)
        return await self._until_answered(
            lambda timeout: direct(self._client, f"{API}.DIRECT.GET.{stream}", payload, timeout)
        )

    async def put(
        self,
        stream: str,
        subject: str,
        payload: bytes,
        *,
        expected: int,
        same: Callable[[Stored], bool],
        headers: Mapping[str, str] | None = None,
    ) -> int:
        """Store a message if `expected` is the last sequence of its subject; return its own.

        An acknowledgement that was lost looks like a conflict; `same` tells whether the
        last message is the one that was to be stored.

        Raises:
            Conflict: the last message is another one.
            StoreUnavailable: there was no answer in time, and it is not known.

        """
        full = {"Nats-Expected-Last-Subject-Sequence": str(expected), **(headers or {})}

        async def attempt(timeout: float) -> int:
            try:
                return sequence_in(await self._ask(subject, payload, timeout, full))
            except Refused as refused:
                if refused.code not in WRONG_LAST:
                    raise
            last = await self.last(stream, subject)
            found = 0 if last is None else last.sequence
            if last is not None and same(last):
                return found
            if found == expected:
                # A leader that has lost the others compares with what it could not store.
                raise Away("another message is under way")
            raise Conflict(last)

        return await self._until_answered(attempt)

    async def purge(self, stream: str, subject: str, until: int | None = None) -> None:
        """Remove every message of a subject, or those up to a sequence."""
        bound = {} if until is None else {"seq": until + 1}
        await self.request(f"STREAM.PURGE.{stream}", {"filter": subject, **bound})

    async def _get(self, stream: str, body: Mapping[str, Any]) -> Stored | None:
        try:
            answer = await self.request(f"STREAM.MSG.GET.{stream}", body)
        except Refused as refused:
            if refused.status == NOT_FOUND:
                return None
            raise
        return from_leader(answer["message"])

    async def _ask(
        self,
        subject: str,
        payload: bytes,
        timeout: float,
        headers: dict[str, str] | None = None,
    ) -> dict[str, Any]:
        self._client.expect()
        message = await self._client.request(subject, payload, timeout=timeout, headers=headers)
        answer = answer_in(message)
        error = answer.get("error")
        if error is None:
            return answer
        if error.get("code", 0) >= SERVER_ERROR:
            raise Away(str(error.get("description", error)))
        raise Refused(error)

    async def _subscribe(
        self, subject: str, call: Callable[[Msg], Awaitable[None]]
    ) -> Subscription:
        self._client.expect()
        return await self._client.subscribe(subject, cb=call)

    async def _until_answered(self, attempt: Callable[[float], Awaitable[T]]) -> T:
        now = asyncio.get_running_loop().time
        end = now() + self._address.patience
        pause = FIRST_PAUSE
        while True:
            try:
                return await attempt(max(0.1, min(ATTEMPT, end - now())))
            except MaxPayloadError as error:
                raise StoreUnavailable(
                    "A message is larger than NATS takes. Set max_payload to 8MB in the "
                    "configuration of every server."
                ) from error
            except (Error, Away, TimeoutError) as error:
                if self._client.is_closed or now() + pause >= end:
                    raise self._address.unavailable(error) from error
            await asyncio.sleep(pause)
            pause = min(2 * pause, LONGEST_PAUSE)

    async def _failed(self, error: Exception) -> None:
        self._failure = error
        log.warning("nats_error", error=str(error) or type(error).__name__)
        if not self._opened and hopeless(error):
            raise error  # ends the client's first attempts, of which there would be more

    async def _lost(self) -> None:
        if not self._client.is_closed:
            log.warning("nats_disconnected")

    async def _returned(self) -> None:
        log.info("nats_reconnected")
        for call in self._back:
            call()


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
