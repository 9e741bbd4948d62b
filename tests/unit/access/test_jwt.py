"""JWTs of an issuer: which tokens are good, whose they are, and what is refused."""

from __future__ import annotations

import base64
import hashlib
import hmac
import json
import time
from collections.abc import AsyncIterator
from typing import Any

import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec, ed25519

from polos_client.errors import Unauthenticated
from polos_service.access.jwt import MAX_VERIFIED, Jwts
from polos_service.access.token_parts import TOKEN_LIMIT
from polos_service.config import Settings, SettingsInvalidError
from tests.support.issuer import Issuer, encoded, public, rsa_key, trusting


@pytest.fixture
async def issuer() -> AsyncIterator[Issuer]:
    async with Issuer() as issuer:
        yield issuer


async def refused(jwts: Jwts, token: str) -> str:
    """Return the cause for which a token is refused; nothing of the token may be in the message."""
    with pytest.raises(Unauthenticated) as caught:
        await jwts.caller(token)
    message = str(caught.value)
    assert len(message) < 300
    assert not any(len(part) > 8 and part in message for part in token.split("."))
    return caught.value.metadata["cause"]


async def test_good_token_names_project_principal_scopes_and_end(issuer: Issuer) -> None:
    end = int(time.time()) + 100
    async with trusting(issuer, jwt_leeway=7) as jwts:
        caller = await jwts.caller(issuer.token(exp=end))
    assert (caller.project, caller.principal) == ("a", "alice")
    assert caller.scopes == {"runs:read", "runs:write"}
    assert caller.expires == end + 7
    assert caller.credential == "jwt:key-0:alice"
    assert caller.run_id == ""


async def test_claims_are_found_by_name_or_path(issuer: Issuer) -> None:
    token = issuer.token(
        **{"project": None, "https://polos.example/p": "b", "scope": None},
        realm={"roles": ["polos-user", "other", "polos-root"]},
    )
    named: dict[str, Any] = {
        "jwt_project_claim": "https://polos.example/p",
        "jwt_scopes_claim": "realm.roles",
        "jwt_scopes": {"polos-user": ["runs:read"], "polos-root": ["*"]},
    }
    async with trusting(issuer, **named) as jwts:
        caller = await jwts.caller(token)
    assert caller.project == "b"
    assert caller.scopes == {"runs:read", "*"}


async def test_everything_takes_a_mapping(issuer: Issuer) -> None:
    async with trusting(issuer) as jwts:
        caller = await jwts.caller(issuer.token(scope="* admin agents:read ADMIN"))
    assert caller.scopes == {"admin", "agents:read"}


async def test_project_may_be_fixed(issuer: Issuer) -> None:
    async with trusting(issuer, jwt_project="fixed") as jwts:
        assert (await jwts.caller(issuer.token(project=7))).project == "fixed"


@pytest.mark.parametrize("scope", [None, 7, {"runs:read": True}, ["runs:read", 7]])
async def test_scopes_that_are_no_strings_are_none(issuer: Issuer, scope: Any) -> None:
    async with trusting(issuer) as jwts:
        assert (await jwts.caller(issuer.token(scope=scope))).scopes == frozenset()


@pytest.mark.parametrize(
    ("claims", "cause"),
    [
        ({"exp": None}, "claims"),
        ({"exp": 1}, "expired"),
        ({"exp": str(2**33)}, "malformed"),
        ({"exp": True}, "malformed"),
        ({"exp": 10**30}, "malformed"),
        ({"exp": -1}, "malformed"),
        ({"exp": [2**33]}, "malformed"),
        ({"exp": float("nan")}, "malformed"),
        ({"exp": float("inf")}, "malformed"),
        ({"nbf": 2**33}, "not_yet"),
        ({"nbf": "soon"}, "malformed"),
        ({"iat": 2**33}, "not_yet"),
        ({"iat": {}}, "malformed"),
        ({"aud": None}, "audience"),
        ({"aud": "other"}, "audience"),
        ({"aud": []}, "audience"),
        ({"aud": ["other", "polos2", "POLOS"]}, "audience"),
        ({"aud": ["polos", 7]}, "audience"),
        ({"aud": {"polos": 1}}, "audience"),
        ({"iss": None}, "issuer"),
        ({"iss": "https://other.example"}, "issuer"),
        ({"iss": ["https://other.example"]}, "issuer"),
        ({"project": None}, "claims"),
        ({"project": ""}, "claims"),
        ({"project": ["a"]}, "claims"),
        ({"project": "a\nb"}, "claims"),
        ({"project": "a" * 257}, "claims"),
        ({"sub": None}, "claims"),
        ({"sub": 7}, "claims"),
    ],
)
async def test_claims_are_checked(issuer: Issuer, claims: dict[str, Any], cause: str) -> None:
    async with trusting(issuer) as jwts:
        assert await refused(jwts, issuer.token(**claims)) == cause


async def test_fractions_of_seconds_and_lists_of_audiences_are_good(issuer: Issuer) -> None:
    async with trusting(issuer, jwt_audience="first, second") as jwts:
        token = issuer.token(exp=time.time() + 9.5, aud=["other", "second"])
        assert (await jwts.caller(token)).principal == "alice"


async def test_clocks_may_differ_by_the_leeway(issuer: Issuer) -> None:
    now = int(time.time())
    async with trusting(issuer, jwt_leeway=60) as jwts:
        early = issuer.token(iat=now + 30, nbf=now + 30, exp=now - 30)
        assert (await jwts.caller(early)).principal == "alice"
        assert await refused(jwts, issuer.token(exp=now - 90)) == "expired"
        assert await refused(jwts, issuer.token(nbf=now + 90)) == "not_yet"


async def test_token_that_expires_is_refused_though_it_was_verified(issuer: Issuer) -> None:
    async with trusting(issuer, jwt_leeway=0) as jwts:
        token = issuer.token()
        caller = await jwts.caller(token)
        assert caller.expires is not None
        jwts._now = lambda: caller.expires or 0.0
        assert await refused(jwts, token) == "expired"


@pytest.mark.parametrize("algorithm", ["RS512", "PS256", "ES256", "ES384", "EdDSA"])
async def test_asymmetric_algorithms_are_good(issuer: Issuer, algorithm: str) -> None:
    keys: dict[str, Any] = {
        "RS512": rsa_key(),
        "PS256": rsa_key(),
        "ES256": ec.generate_private_key(ec.SECP256R1()),
        "ES384": ec.generate_private_key(ec.SECP384R1()),
        "EdDSA": ed25519.Ed25519PrivateKey.generate(),
    }
    issuer.keys = {"k": keys[algorithm]}
    token = issuer.signed_by(algorithm, keys[algorithm], "k")
    async with trusting(issuer) as jwts:
        assert (await jwts.caller(token)).principal == "alice"
    async with trusting(issuer, jwt_algorithms=["RS256", "ES512"]) as jwts:
        assert await refused(jwts, token) == "malformed"


def unsigned(issuer: Issuer, header: dict[str, Any], signature: bytes = b"x") -> str:
    """Return a token with this header and signature."""
    return f"{encoded(header)}.{encoded(issuer.claims())}.{encoded(signature)}"


@pytest.mark.parametrize("name", ["none", "None", "NONE", "nOnE", "", "HS256", "HS384", "ES256K"])
async def test_other_algorithms_are_impossible(issuer: Issuer, name: str) -> None:
    async with trusting(issuer) as jwts:
        token = unsigned(issuer, {"alg": name, "kid": "key-0"})
        assert await refused(jwts, token) == "malformed"
        assert await refused(jwts, f"{token.rpartition('.')[0]}.") == "malformed"
    for forbidden in ("none", "HS256"):
        with pytest.raises(ValueError, match="jwt_algorithms"):
            Settings(jwt_algorithms=[forbidden])  # type: ignore[list-item]  # on purpose


async def test_public_key_is_no_secret_to_sign_with(issuer: Issuer) -> None:
    number = rsa_key().public_key()
    pem = number.public_bytes(
        serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo
    )
    async with trusting(issuer) as jwts:
        for algorithm in ("HS256", "RS256"):
            head = encoded({"alg": algorithm, "kid": "key-0"})
            signed = f"{head}.{encoded(issuer.claims())}"
            signature = hmac.new(pem, signed.encode(), hashlib.sha256).digest()
            expected = "malformed" if algorithm == "HS256" else "unknown"
            assert await refused(jwts, f"{signed}.{encoded(signature)}") == expected


async def test_key_of_one_algorithm_is_not_used_with_another(
    issuer: Issuer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("polos_service.access.issuer_keys.REFETCH_SECONDS", 0.01)
    curve = ec.generate_private_key(ec.SECP256R1())
    issuer.keys = {"rsa": rsa_key(), "curve": curve}
    async with trusting(issuer) as jwts:
        await jwts.caller(issuer.signed_by("ES256", curve, "curve"))
        wrong = issuer.sign(issuer.claims(), "curve", rsa_key())
        assert await refused(jwts, wrong) == "unknown"


async def test_headers_that_name_keys_are_never_followed(issuer: Issuer) -> None:
    async with trusting(issuer) as jwts:
        await jwts.caller(issuer.token())
        before = sum(issuer.fetches.values())
        own = rsa_key(3)
        for header in (
            {"jku": f"{issuer.url}/evil"},
            {"x5u": f"{issuer.url}/evil"},
            {"jwk": public(own, "key-0")},
            {"x5c": ["AAAA"]},
        ):
            token = issuer.sign(issuer.claims(), "key-0", own, **header)
            assert await refused(jwts, token) == "unknown"
        assert sum(issuer.fetches.values()) == before


@pytest.mark.parametrize(
    "header",
    [
        {"crit": ["exp"]},
        {"crit": []},
        {"typ": "logout+jwt"},
        {"typ": 7},
        {"kid": 7},
        {"kid": ["key-0"]},
        {"kid": "k" * 257},
        {"kid": "key-0\0"},
        {"kid": "\x1b[31m"},
        {"kid": "\ud800"},
        {"alg": ["RS256"]},
    ],
)
async def test_headers_that_are_not_understood_are_refused(
    issuer: Issuer, header: dict[str, Any]
) -> None:
    async with trusting(issuer) as jwts:
        token = unsigned(issuer, {"alg": "RS256", "kid": "key-0", **header})
        assert await refused(jwts, token) == "malformed"


@pytest.mark.parametrize("kid", ["../keys", "/etc/passwd", "' OR 1=1 --"])
async def test_key_id_is_only_ever_compared(
    issuer: Issuer, kid: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("polos_service.access.issuer_keys.REFETCH_SECONDS", 0.01)
    async with trusting(issuer) as jwts:
        assert await refused(jwts, issuer.sign(issuer.claims(), kid)) == "unknown"
    assert set(issuer.fetches) == {"/.well-known/openid-configuration", "/keys"}


async def test_names_are_not_repeated(issuer: Issuer) -> None:
    claims = json.dumps(issuer.claims())
    twice = claims[:-1] + ', "sub": "bob"}'
    nested = claims[:-1] + ', "x": {"a": 1, "a": 2}}'
    async with trusting(issuer) as jwts:
        assert await refused(jwts, issuer.sign(twice)) == "malformed"
        assert await refused(jwts, issuer.sign(nested)) == "malformed"
        head = '{"alg": "none", "kid": "key-0", "alg": "RS256"}'
        token = f"{encoded(head)}.{encoded(claims)}.{encoded(b'x')}"
        assert await refused(jwts, token) == "malformed"


@pytest.mark.parametrize(
    "payload",
    [
        *("", "null", "[]", '"x"', "{", "\ufeff{}", b"\xff\xfe{}"),
        *("[" * 5000, '{"a":' * 900 + "1" + "}" * 900, "1" * 5000),
    ],
)
async def test_claims_that_are_no_object_are_refused(issuer: Issuer, payload: Any) -> None:
    async with trusting(issuer) as jwts:
        assert await refused(jwts, issuer.sign(payload)) in ("malformed", "issuer")


async def test_base64_has_one_spelling(issuer: Issuer) -> None:
    token = issuer.token()
    head, claims, signature = token.split(".")
    last = "BCDEFGHIJKLMNOP"["AQgw".index(signature[-1])] if signature[-1] in "AQgw" else "B"
    async with trusting(issuer) as jwts:
        await jwts.caller(token)
        for other in (
            f"{head}=.{claims}.{signature}",
            f"{head}.{claims}.{signature}==",
            f"{head}.{claims}.{signature[:-1]}{last}",
            f"{head}.{claims}\n.{signature}",
            f"{head}.{claims}.{signature}.",
            f"{head}.{claims}",
            f"{head}.{claims}.",
            f".{claims}.{signature}",
            f"{head}..{signature}",
            base64.b64encode(b"\xfb\xff" + b"x" * 40).decode() + f".{claims}.{signature}",
            "é.é.é",
            "..",
            "",
        ):
            with pytest.raises(Unauthenticated) as caught:
                await jwts.caller(other)
            assert caught.value.metadata["cause"] == "malformed", other


async def test_large_token_costs_next_to_nothing(issuer: Issuer) -> None:
    async with trusting(issuer) as jwts:
        assert await refused(jwts, issuer.token(x="x" * TOKEN_LIMIT)) == "malformed"
        assert await refused(jwts, "a" * 1024 * 1024) == "malformed"


async def test_verified_tokens_are_remembered_within_a_bound(
    issuer: Issuer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("polos_service.access.jwt.MAX_VERIFIED", 3)
    async with trusting(issuer) as jwts:
        for number in range(5):
            await jwts.caller(issuer.token(sub=f"user-{number}"))
        assert len(jwts._verified) == 3
    assert MAX_VERIFIED >= 1000


async def test_settings_need_an_audience_and_https(monkeypatch: pytest.MonkeyPatch) -> None:
    for variable, value, said in (
        ("POLOS_JWT_ISSUER", "https://issuer.example", "needs POLOS_JWT_AUDIENCE"),
        ("POLOS_JWT_ISSUER", "", "is not an https:// URL"),
        ("POLOS_JWT_ISSUER", "http://issuer.example", "is not an https:// URL"),
        ("POLOS_JWT_ISSUER", "https://user:secret@issuer.example", "has a user, a password"),
        ("POLOS_JWT_ISSUER", "file:///etc/passwd", "is not an https:// URL"),
        ("POLOS_JWT_JWKS_URL", "http://10.0.0.1/keys", "is not an https:// URL"),
        ("POLOS_JWT_ALGORITHMS", '["HS256"]', "POLOS_JWT_ALGORITHMS"),
        ("POLOS_JWT_SCOPES", '{"x": ["runs:fly"]}', "POLOS_JWT_SCOPES"),
        ("POLOS_CLIENT_IDENTITIES", '{"x": {"project": "a"}}', "POLOS_CLIENT_IDENTITIES"),
    ):
        with monkeypatch.context() as patch:
            patch.setenv(variable, value)
            with pytest.raises(SettingsInvalidError, match=said) as caught:
                Settings.load()
            assert "secret" not in str(caught.value)
