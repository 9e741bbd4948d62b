"""The AccessStore port: small values by name, which all replicas share and hear of.

The values are bytes to a store: API keys, and the key that run tokens are signed with.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

from polos_service.store import RunStore
from polos_service.store.usage import UsageStore


@dataclass(frozen=True, kw_only=True, slots=True)
class AccessEntry:
    """A value.

    Attributes:
        name: at most 128 characters, of letters, digits, `.`, `_` and `-`.
        value: at most 64 KiB.
        revision: greater than that of every value that was put before, whatever its name.

    """

    name: str
    value: bytes
    revision: int


class Changed(Exception):
    """Somebody else has put a value under this name since it was read."""


class AccessStore(Protocol):
    """Values by name. Every method may raise StoreUnavailable."""

    async def entries(self, after: int) -> Sequence[AccessEntry]:
        """Return the newest values whose revision is greater than `after`, oldest first.

        Some of them at a time: only an empty answer says that there are no more. A store of many
        processes returns what another one has put within a second.
        """
        ...

    async def put(self, name: str, value: bytes, revision: int) -> int:
        """Put a value in place of the one with this revision, 0 for none; return the new revision.

        The value is durable when this returns. Putting the value that is there changes nothing.

        Raises:
            Changed: the name has another value, or none.

        """
        ...


class Store(RunStore, Protocol):
    """Everything that a service stores."""

    @property
    def access(self) -> AccessStore:
        """The values that access is decided by."""
        ...

    @property
    def usage(self) -> UsageStore:
        """What projects spend."""
        ...
