"""Credential: what a client shows with each call, a fixed key or what a function returns."""

from __future__ import annotations

import asyncio
import inspect
import re
import time
import weakref
from collections.abc import Awaitable, Callable
from typing import cast

from polos_client import wire
from polos_client.calls.daemon import in_daemon
from polos_client.errors import DefinitionError, Unauthenticated

ApiKey = str | Callable[[], str | Awaitable[str]]
"""A key, or a function that returns the current one: see `PolosClient`."""

Metadata = tuple[tuple[str, str], ...]
"""What is sent with a call."""

KEPT = 30.0
"""Seconds for which a key that a function has returned is used for further calls."""

PATIENCE = 10.0
"""Seconds that a function may take to return a key."""

_KEY = re.compile(r"[!-~]+")
"""A key that a header can carry: printable ASCII without spaces."""


def checked_key(key: object) -> str:
    """Return a key that can be sent.

    Raises:
        DefinitionError: it cannot.

    """
    if not (isinstance(key, str) and _KEY.fullmatch(key)):
        raise DefinitionError("the API key must be printable ASCII text without spaces")
    return key


class Credential:
    """The key of a client, in all its event loops.

    Attributes:
        renewable: whether another key may come after this one.

    """

    def __init__(self, key: ApiKey | None) -> None:
        """Remember the key; a function is not called yet."""
        self._ask = key if callable(key) else None
        self.renewable = self._ask is not None
        self._metadata: Metadata = _metadata_of(key) if isinstance(key, str) else ()
        self._asked = float("-inf")
        self._locks: weakref.WeakKeyDictionary[asyncio.AbstractEventLoop, asyncio.Lock] = (
            weakref.WeakKeyDictionary()
        )

    async def metadata(self) -> Metadata:
        """Return what a call is sent with.

        Raises:
            Unauthenticated: the function raised, took too long, or returned no key.

        """
        if self._ask is None or self._is_fresh():
            return self._metadata
        async with self._locks.setdefault(asyncio.get_running_loop(), asyncio.Lock()):
            if not self._is_fresh():
                self._metadata = _metadata_of(await _asked(self._ask))
                self._asked = time.monotonic()
            return self._metadata

    def renew(self, refused: Metadata | None) -> None:
        """Let the function be asked again, unless it was since the call that was refused.

        Args:
            refused: what that call was sent with; None: unknown.

        """
        if refused is None or refused == self._metadata:
            self._asked = float("-inf")

    def _is_fresh(self) -> bool:
        return time.monotonic() - self._asked < KEPT


def _metadata_of(key: str) -> Metadata:
    return ((wire.AUTHORIZATION_KEY, f"Bearer {key}"),)


async def _asked(ask: Callable[[], str | Awaitable[str]]) -> str:
    """Return the key that the function returns; one that may block is called in a thread."""
    call = getattr(ask, "__call__", ask)  # noqa: B004 - an object with an async method counts
    try:
        async with asyncio.timeout(PATIENCE):
            if inspect.iscoroutinefunction(ask) or inspect.iscoroutinefunction(call):
                answer: object = ask()
            else:
                answer = await asyncio.wrap_future(in_daemon(ask))
            if inspect.isawaitable(answer):
                answer = await answer
        return checked_key(cast("str", answer))
    except TimeoutError as error:
        raise _failed(f"returned nothing within {PATIENCE:g} s") from error
    except DefinitionError as error:
        raise _failed("returned no key: it must be printable ASCII text without spaces") from error
    except Exception as error:
        raise _failed(f"raised {type(error).__name__}") from error  # its text may have the key


def _failed(what: str) -> Unauthenticated:
    return Unauthenticated(f"the function that was given as api_key {what}", cause="callback")
