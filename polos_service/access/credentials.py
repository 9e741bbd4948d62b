"""What the kinds of credentials have in common."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Protocol

from polos_service.caller import Caller

Metadata = Iterable[tuple[str, str | bytes]]
"""Keys, in lower case, and values of a call's metadata."""

Peer = Mapping[str, Iterable[bytes]]
"""What TLS says of the peer, as gRPC's `auth_context` has it; empty without TLS."""

KEY_PREFIX = "polos_"
"""How an API key begins."""

RUN_TOKEN_PREFIX = "polosrun_"  # noqa: S105 - a public prefix, not a secret
"""How a run token begins. A bearer token with neither prefix is a JWT."""


class Verifier(Protocol):
    """Finds who has a bearer token of one kind."""

    async def caller(self, token: str) -> Caller:
        """Return who has the token.

        This is called once for each call, and cheap for a token that was verified before. The
        caller's `credential` names kind and token, as in `jwt:SUBJECT`; `expires` is when the token
        ends.

        Raises:
            Unauthenticated: the token is not good. Its metadata has the `cause`, which is one of
                those that error.proto lists. Its message contains no part of a secret.
            StoreUnavailable: whether it is good cannot be told now.

        """
        ...


class PeerVerifier(Protocol):
    """Finds who has a client certificate. TLS has verified the certificate before."""

    def caller(self, peer: Peer) -> Caller | None:
        """Return who has the certificate; None if the peer has none that names a caller."""
        ...
