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
        places = ", ".join(server.rpartition("@")[2] for server in self.servers)
        what = str(error) or type(error).__name__
        return StoreUnavailable(
            f"NATS at {places} does not answer ({what}). Check that the servers run with "
            "JetStream, that most of them are up, and that address and credentials are right."
        )
