"""Where NATS is, and how it is told that it does not answer there."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from polos_client.errors import StoreUnavailable


@dataclass(frozen=True, kw_only=True, slots=True)
class Address:
    """Where NATS is, and what to tell it.

    Attributes:
        servers: URLs of one or more servers of a cluster; they may carry user and password.
        credentials: a file with a JWT and its key.
        nkey: a file with the seed of an nkey.
        patience: seconds that a request is tried for.

    """

    servers: Sequence[str]
    credentials: Path | None = None
    nkey: Path | None = None
    patience: float = 30.0

    def unavailable(self, error: Exception) -> StoreUnavailable:
        """Return the error for a NATS that does not answer; no password is in it."""
        what = str(error) or type(error).__name__
        return StoreUnavailable(
            f"NATS at {self._places} does not answer ({what}). Check that the servers run with "
            "JetStream, that most of them are up, and that address and credentials are right."
        )

    def refused(self, error: Exception) -> StoreUnavailable:
        """Return the error for a NATS that it is no use to ask again; no password is in it."""
        return StoreUnavailable(
            f"NATS at {self._places} cannot be used ({error}). Check user and password in its "
            "address, the credentials file (POLOS_NATS_CREDS) or nkey (POLOS_NATS_NKEY), and for "
            "a certificate of one's own authority, SSL_CERT_FILE."
        )

    @property
    def _places(self) -> str:
        return ", ".join(server.rpartition("@")[2] for server in self.servers)
