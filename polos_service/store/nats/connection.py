"""The connection to NATS: where it leads, and a client that comes back by itself.

The client of nats-py is mended where it would give up for good, or send a password in plain text.
"""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Self

from nats.aio.client import Client
from nats.aio.msg import Msg
from nats.errors import Error, InvalidUserCredentialsError
from nats.protocol.parser import PERMISSIONS_ERR
from nkeys import NkeysError

from polos_client.errors import StoreUnavailable
from polos_service.logs import get_logger

REFUSED = ("authorization violation", "authentication expired", "authentication revoked")
"""How a server refuses credentials, in lower case."""

UNUSABLE = (
    ssl.SSLCertVerificationError,
    FileNotFoundError,
    PermissionError,
    InvalidUserCredentialsError,
    NkeysError,
)
"""Errors of credentials that cannot be used, and of a server that cannot be trusted."""

CLOSE_TIMEOUT = 1.0
"""Seconds that the end of the connection is waited for."""

FLUSH_TIMEOUT = 2
"""Seconds in which what was published last must have been sent, before the connection is closed."""

log = get_logger(__name__)


@dataclass(frozen=True, kw_only=True, slots=True)
class Endpoint:
    """Where NATS is, and how to log in there.

    Attributes:
        servers: URLs of one or more servers of a cluster; they may carry user and password.
        credentials: a file with a JWT and its key.
        nkey: a file with the seed of an nkey.
        patience: seconds for which a request is tried.

    """

    servers: Sequence[str]
    credentials: Path | None = None
    nkey: Path | None = None
    patience: float = 30.0

    def unavailable(self, error: Exception) -> StoreUnavailable:
        """Return the error for a NATS that does not answer; it contains no password."""
        what = str(error) or type(error).__name__
        return StoreUnavailable(
            f"NATS at {self._shown} does not respond ({what}). Check that the servers run with "
            "JetStream, that most of them are up, and that address and credentials are correct."
        )

    def refused(self, error: Exception) -> StoreUnavailable:
        """Return the error for a NATS that refuses for good; it contains no password."""
        return StoreUnavailable(
            f"NATS at {self._shown} cannot be used ({error}). Check user and password in its "
            "address, the credentials file (POLOS_NATS_CREDS) or nkey (POLOS_NATS_NKEY), and "
            "SSL_CERT_FILE if the server's certificate is from a private authority."
        )

    @property
    def _shown(self) -> str:
        return ", ".join(server.rpartition("@")[2] for server in self.servers)


class Unencrypted(Error):
    """A server at a `tls://` address offers no TLS; it was sent nothing."""

    def __str__(self) -> str:
        return "the address says tls://, but the server offers no TLS"


class Away(Exception):
    """JetStream cannot answer now: it has no leader, say, or no room."""


class Connection(Client):
    """A client that comes back whatever a server says. Made by `open`.

    Attributes:
        endpoint: where it leads.

    """

    def __init__(self, endpoint: Endpoint) -> None:
        super().__init__()
        self.endpoint = endpoint
        self._established = False
        self._failure: Exception | None = None
        self._on_return: list[Callable[[], None]] = []

    @classmethod
    async def open(cls, endpoint: Endpoint) -> Self:
        """Connect.

        Raises:
            StoreUnavailable: no server answered in time; at once if it refused the credentials.

        """
        client = cls(endpoint)
        try:
            async with asyncio.timeout(endpoint.patience):
                await client._connect_to(endpoint)
        except (TimeoutError, OSError, ValueError, Error, NkeysError) as error:
            await client.leave()
            if hopeless(error):
                raise endpoint.refused(error) from error
            raise endpoint.unavailable(client._failure or error) from error
        client._established = True
        return client

    async def leave(self) -> None:
        """Send what was published, and disconnect."""
        if self._transport is None:  # it never got as far, and cannot be closed
            return
        with suppress(Error, TimeoutError):
            if self.is_connected:
                await self.flush(timeout=FLUSH_TIMEOUT)
        if not self.is_connected:
            # What could not be sent would make `close` fail half-way, and leave its tasks.
            self._pending, self._pending_data_size = [], 0
        # After a failed TLS handshake, it would wait for ever.
        with suppress(TimeoutError):
            async with asyncio.timeout(CLOSE_TIMEOUT):
                await self.close()

    def on_return(self, call: Callable[[], None]) -> None:
        """Call this whenever the connection is back: what was published meanwhile was missed."""
        self._on_return.append(call)

    def expect(self) -> None:
        """Check that there is a connection.

        Without one the client would keep what is sent, and send it when whoever did so has
        given up: an append, say, or a subscription that nobody ends.

        Raises:
            Away: it is lost.

        """
        if not self.is_connected:
            raise Away("the connection is lost")

    async def _connect_to(self, endpoint: Endpoint) -> None:
        await self.connect(
            servers=list(endpoint.servers),
            name="polos",
            user_credentials=None if endpoint.credentials is None else str(endpoint.credentials),
            nkeys_seed=None if endpoint.nkey is None else str(endpoint.nkey),
            max_reconnect_attempts=-1,
            reconnect_time_wait=1,
            ping_interval=5,
            connect_timeout=2,
            error_cb=self._failed,
            disconnected_cb=self._lost,
            reconnected_cb=self._returned,
        )

    async def _failed(self, error: Exception) -> None:
        if self._established or self._failure is None:  # the first attempts fail alike
            log.warning("nats_error", error=str(error) or type(error).__name__)
        self._failure = error
        if not self._established and hopeless(error):
            raise error  # ends the client's first attempts, of which there would be more

    async def _lost(self) -> None:
        if not self.is_closed:
            log.warning("nats_disconnected")

    async def _returned(self) -> None:
        log.info("nats_reconnected")
        for call in self._on_return:
            call()

    async def _process_err(self, err_msg: str) -> None:
        """Connect anew where the client would close for good.

        So it would when credentials expire or are replaced on a server that is reloaded.
        """
        if PERMISSIONS_ERR in err_msg:
            await super()._process_err(err_msg)
        else:
            await self._process_op_err(Error(f"nats: {err_msg}"))

    # An error in any of these would end the task that reads from the connection.

    async def _process_headers(self, headers: bytes) -> dict[str, str] | None:
        """Treat headers that cannot be decoded as none."""
        try:
            found: dict[str, str] | None = await super()._process_headers(headers)
        except (ValueError, IndexError):
            return None
        return found

    def _build_message(
        self, sid: int, subject: bytes, reply: bytes, data: bytes, headers: dict[str, str] | None
    ) -> Msg | None:
        """Treat a subject that is not UTF-8 as one that matches none of ours."""
        subject, reply = (part.decode(errors="replace").encode() for part in (subject, reply))
        message: Msg | None = super()._build_message(sid, subject, reply, data, headers)
        return message

    async def _process_connect_init(self) -> None:
        """Close the socket of an attempt that fails: a server that hangs would never do it."""
        try:
            await super()._process_connect_init()
        except BaseException:
            if self._transport is not None:
                self._transport.close()  # type: ignore[no-untyped-call]
            raise

    def _connect_command(self) -> bytes:
        """Send nothing to a server that should encrypt and does not."""
        server = self._current_server
        encrypted = self._server_info.get("tls_required", False)
        if server is not None and server.uri.scheme == "tls" and not encrypted:
            raise Unencrypted
        return bytes(super()._connect_command())


def hopeless(error: Exception) -> bool:
    """Whether no later attempt would get further than this one."""
    if isinstance(error, (*UNUSABLE, Unencrypted)):
        return True
    return isinstance(error, Error) and any(word in str(error).lower() for word in REFUSED)
