"""An issuer of JWTs over real HTTP, with real keys, that misbehaves on demand.

    async with Issuer() as issuer:
        token = issuer.token(project="a", scope="runs:read")
        issuer.rotate()
        issuer.key_set = issuer.answer(status=500)

Each path has a handler that a test may replace. `issuer.fetches` counts what was fetched, by path.
"""

from __future__ import annotations

import base64
import contextlib
import json
import ssl
import time
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from functools import cache
from typing import Any, Self

import jwt
from aiohttp import web
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa
from jwt.algorithms import ECAlgorithm, OKPAlgorithm, RSAAlgorithm

from polos_service.access.issuer_keys import IssuerKeys
from polos_service.access.jwt import Jwts
from polos_service.config import Settings

DISCOVERY = "/.well-known/openid-configuration"
KEY_SET = "/keys"
AUDIENCE = "polos"

Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]


@cache
def rsa_key(number: int = 0, bits: int = 2048) -> rsa.RSAPrivateKey:
    """Return a key; the same one for the same number: making one takes long."""
    del number
    return rsa.generate_private_key(public_exponent=65537, key_size=bits)


def public(key: Any, kid: str | None, **members: Any) -> dict[str, Any]:
    """Return the JWK of a public key."""
    kinds = (
        (rsa.RSAPrivateKey, RSAAlgorithm),
        (ec.EllipticCurvePrivateKey, ECAlgorithm),
        (ed25519.Ed25519PrivateKey, OKPAlgorithm),
    )
    algorithm: Any = next(one for kind, one in kinds if isinstance(key, kind))
    named = {} if kid is None else {"kid": kid}
    return {**algorithm.to_jwk(key.public_key(), as_dict=True), **named, **members}


def encoded(value: Any) -> str:
    """Return base64url of bytes, of a text, or of a value as JSON."""
    if not isinstance(value, bytes | str):
        value = json.dumps(value)
    data = value.encode() if isinstance(value, str) else value
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode()


class Issuer:
    """The server; an async context manager."""

    def __init__(self, tls: ssl.SSLContext | None = None) -> None:
        """Make one, with a certificate if `tls` has one."""
        self._tls = tls
        self.url = ""
        self.fetches: Counter[str] = Counter()
        self.keys: dict[str, Any] = {"key-0": rsa_key()}
        self.kid = "key-0"
        self.discovery: Handler = self._discovery
        self.key_set: Handler = self._key_set
        self._runner: web.AppRunner | None = None

    def rotate(self) -> str:
        """Replace the key by another one; return its id."""
        self.kid = f"key-{len(self.keys)}-{time.monotonic_ns()}"
        self.keys = {self.kid: rsa_key(1)}
        return self.kid

    def claims(self, **claims: Any) -> dict[str, Any]:
        """Return the claims of a good token; None takes one away."""
        now = int(time.time())
        good = {"iss": self.url, "aud": AUDIENCE, "sub": "alice", "iat": now, "exp": now + 600}
        good |= {"project": "a", "scope": "runs:read runs:write openid"} | claims
        return {name: value for name, value in good.items() if value is not None}

    def token(self, **claims: Any) -> str:
        """Return a token that is good but for these claims."""
        return self.sign(self.claims(**claims))

    def sign(self, claims: Any, kid: str = "", key: Any = None, **header: Any) -> str:
        """Sign anything with RS256: what it is need be neither claims nor JSON."""
        kid = kid or self.kid
        head = {"alg": "RS256", "typ": "JWT", "kid": kid, **header}
        signed = f"{encoded(head)}.{encoded(claims)}"
        signature = RSAAlgorithm(RSAAlgorithm.SHA256).sign(
            signed.encode(), key or self.keys.get(kid, rsa_key(2))
        )
        return f"{signed}.{encoded(signature)}"

    async def token_of(self, kind: str, scopes: Sequence[str]) -> str:
        """Return a token of a kind in the table of access, for the project `mine`."""
        wrong: dict[str, dict[str, Any]] = {
            "JWT: expired": {"exp": 1},
            "JWT: other audience": {"aud": "other"},
            "JWT: other issuer": {"iss": "https://issuer.example"},
        }
        claims = self.claims(project="mine", scope=list(scopes)) | wrong.get(kind, {})
        return self.sign(claims, key=rsa_key(2) if kind == "JWT: other key" else None)

    def signed_by(self, algorithm: str, key: Any, kid: str, **claims: Any) -> str:
        """Return a token that is signed in another way."""
        return jwt.encode(self.claims(**claims), key, algorithm, headers={"kid": kid})

    def answer(self, body: Any = b"", status: int = 200, **headers: str) -> Handler:
        """Return a handler that answers this; what is not bytes becomes JSON."""
        data = body if isinstance(body, bytes) else json.dumps(body).encode()

        async def handler(_: web.Request) -> web.Response:
            named = {name.replace("_", "-"): value for name, value in headers.items()}
            return web.Response(body=data, status=status, headers=named)

        return handler

    async def __aenter__(self) -> Self:
        app = web.Application()
        app.router.add_get(DISCOVERY, self._counted(lambda: self.discovery))
        app.router.add_get(KEY_SET, self._counted(lambda: self.key_set))
        self._runner = web.AppRunner(app, shutdown_timeout=0)
        await self._runner.setup()
        site = web.TCPSite(self._runner, "127.0.0.1", 0, ssl_context=self._tls)
        await site.start()
        scheme = "http" if self._tls is None else "https"
        self.url = f"{scheme}://127.0.0.1:{self._runner.addresses[0][1]}"
        return self

    async def __aexit__(self, *_: object) -> None:
        assert self._runner is not None
        await self._runner.cleanup()

    def _counted(self, handler: Callable[[], Handler]) -> Handler:
        async def handle(request: web.Request) -> web.StreamResponse:
            self.fetches[request.path] += 1
            return await handler()(request)

        return handle

    async def _discovery(self, _: web.Request) -> web.Response:
        return web.json_response({"issuer": self.url, "jwks_uri": f"{self.url}{KEY_SET}"})

    async def _key_set(self, _: web.Request) -> web.Response:
        keys = [public(key, kid, use="sig") for kid, key in self.keys.items()]
        return web.json_response({"keys": keys})


@contextlib.asynccontextmanager
async def trusting(
    issuer: Issuer, *, refresh: float = 60.0, **settings: Any
) -> AsyncIterator[Jwts]:
    """Verify tokens of the issuer."""
    named = {"jwt_issuer": issuer.url, "jwt_audience": AUDIENCE, **settings}
    chosen = Settings(**named)
    keys = IssuerKeys(issuer.url, chosen.jwt_jwks_url, chosen.jwt_algorithms, refresh)
    keys.start()
    try:
        yield Jwts(chosen, keys)
    finally:
        await keys.close()
