"""Credentials: what callers send in place of a good key, and channels whose calls have it."""

from __future__ import annotations

import base64
import json
from collections.abc import Callable
from typing import Any, Self

from fuzz.calls import Metadata
from tests.support.access import BOOTSTRAP, OPERATOR


def jwt(header: object, payload: object, signature: bytes) -> str:
    """Return what looks like a JWT."""
    parts = [json.dumps(header).encode(), json.dumps(payload).encode(), signature]
    return ".".join(base64.urlsafe_b64encode(part).rstrip(b"=").decode() for part in parts)


UNKNOWN = "polos_" + "0" * 16 + "_" + "1" * 64
"""A key that is well-formed, and that nobody has created."""

TOKENS = (
    *("", " ", "polos", "polos_", "polos__", "polos_boot_", BOOTSTRAP[:-1], BOOTSTRAP + "0"),
    *(BOOTSTRAP.upper(), UNKNOWN, UNKNOWN * 50, "a.b.c", "..", "." * 1000, "x" * 6000),
    jwt({"alg": "none"}, {"sub": "root", "scope": "*"}, b""),
    jwt({"alg": "RS256", "kid": "k"}, {"iss": "https://issuer.example", "exp": 2**40}, b"x" * 256),
    jwt({"alg": "HS256", "crit": ["x"], "jwk": {"kty": "oct"}}, ["not", "an", "object"], b"x"),
    jwt([], None, b"\xff" * 64),
)
"""What no service takes."""

BAD: tuple[Metadata, ...] = (
    (),
    *((("authorization", f"Bearer {token}"),) for token in TOKENS),
    *((("authorization", text),) for text in ("", "Bearer", BOOTSTRAP, f"Basic {BOOTSTRAP}")),
    (("authorization", f"Bearer {UNKNOWN}"), *OPERATOR),
    (("authorization-bin", BOOTSTRAP.encode()),),
)
"""What callers send who may not call."""

MIXED: tuple[Metadata, ...] = (*BAD, *(OPERATOR,) * len(BAD))
"""What callers send of whom every other one has the good key."""


class KeyedChannel:
    """A channel whose calls have the good key, unless they have credentials of their own."""

    def __init__(self, channel: Any) -> None:
        self._channel = channel
        self.unary_unary = keyed(channel.unary_unary)
        self.unary_stream = keyed(channel.unary_stream)
        self.stream_unary = keyed(channel.stream_unary)
        self.stream_stream = keyed(channel.stream_stream)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._channel, name)

    def __enter__(self) -> Self:
        self._channel.__enter__()
        return self

    def __exit__(self, *error: object) -> None:
        self._channel.__exit__(*error)

    async def __aenter__(self) -> Self:
        await self._channel.__aenter__()
        return self

    async def __aexit__(self, *error: object) -> None:
        await self._channel.__aexit__(*error)


def keyed(make: Callable[..., Any]) -> Callable[..., Any]:
    """Return what makes callables of a channel; they send the key."""

    def made(*arguments: Any, **options: Any) -> Callable[..., Any]:
        call = make(*arguments, **options)

        def called(*requests: Any, metadata: Any = None, **more: Any) -> Any:
            sent = tuple(metadata or ())
            own = any(name == "authorization" for name, _ in sent)
            return call(*requests, metadata=sent if own else (*sent, *OPERATOR), **more)

        return called

    return made
