"""The client of NATS, mended where it would give up, or tell a password to anybody."""

from __future__ import annotations

import ssl

from nats.aio.client import Client
from nats.aio.msg import Msg
from nats.errors import Error, InvalidUserCredentialsError
from nats.protocol.parser import PERMISSIONS_ERR
from nkeys import NkeysError

REFUSED = ("authorization violation", "authentication expired", "authentication revoked")
"""What a server's refusal of credentials says, in lower case."""

UNUSABLE = (
    ssl.SSLCertVerificationError,
    FileNotFoundError,
    PermissionError,
    InvalidUserCredentialsError,
    NkeysError,
)
"""Errors of credentials that cannot be used, and of a server that cannot be trusted."""


class Unencrypted(Error):
    """A server at a `tls://` address offers no TLS; nothing was told to it."""

    def __str__(self) -> str:
        return "the address says tls://, but the server offers no TLS"


class Away(Exception):
    """JetStream cannot answer now: it has no leader, say, or no room."""


class Connection(Client):
    """A client that comes back whatever a server says, and keeps credentials to TLS."""

    def expect(self) -> None:
        """Look that there is a connection.

        Without one the client would keep what is sent, and send it when whoever did so has
        given up: an append, say, or a subscription that nobody ends.

        Raises:
            Away: it is lost.

        """
        if not self.is_connected:
            raise Away("the connection is lost")

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
        """Take headers that cannot be decoded for none."""
        try:
            found: dict[str, str] | None = await super()._process_headers(headers)
        except (ValueError, IndexError):
            return None
        return found

    def _build_message(
        self, sid: int, subject: bytes, reply: bytes, data: bytes, headers: dict[str, str] | None
    ) -> Msg | None:
        """Take a subject that is not UTF-8 as one that none of ours is like."""
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
        """Tell nothing to a server that should encrypt and does not."""
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
