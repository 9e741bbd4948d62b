"""The keys of an issuer: rotation, made-up keys, and issuers that misbehave."""

from __future__ import annotations

import asyncio
import gzip
import json
import ssl
import time
from collections.abc import AsyncIterator, Callable
from typing import Any

import pytest
import trustme
from aiohttp import web
from cryptography.hazmat.primitives.asymmetric import ec
from structlog.testing import capture_logs

from polos_client.errors import StoreUnavailable, Unauthenticated
from polos_service.access import fetching, issuer_keys
from polos_service.access.fetching import DOCUMENT_BYTES, FetchError
from polos_service.access.issuer_keys import MAX_WAITING
from polos_service.access.key_set import MAX_KEYS, parse_keys
from polos_service.access_settings import ALGORITHMS
from tests.support.issuer import KEY_SET, Issuer, encoded, public, rsa_key, trusting
from tests.support.service import until


@pytest.fixture
async def issuer() -> AsyncIterator[Issuer]:
    async with Issuer() as issuer:
        yield issuer


@pytest.fixture
def hasty(monkeypatch: pytest.MonkeyPatch) -> None:
    """Fetch as often as anybody asks."""
    monkeypatch.setattr(issuer_keys, "REFETCH_SECONDS", 0.02)
    monkeypatch.setattr(issuer_keys, "RETRY_SECONDS", 0.02)


@pytest.mark.usefixtures("hasty")
async def test_first_token_of_a_new_key_is_good(issuer: Issuer) -> None:
    async with trusting(issuer) as jwts:
        old = issuer.token()
        await jwts.caller(old)
        issuer.rotate()
        new = issuer.token()
        callers = await asyncio.gather(*(jwts.caller(new) for _ in range(50)))
        assert {caller.principal for caller in callers} == {"alice"}
        assert issuer.fetches[KEY_SET] <= 3
        with pytest.raises(Unauthenticated):  # though it was verified before
            await jwts.caller(old)


@pytest.mark.usefixtures("hasty")
async def test_key_that_is_withdrawn_ends_with_the_next_fetch(issuer: Issuer) -> None:
    async with trusting(issuer) as jwts:
        token = issuer.token()
        caller = await jwts.caller(token)
        assert not jwts.withdrawn(caller.credential)
        issuer.rotate()
        jwts.keys._refresh = 0.01
        jwts.keys._asked.set()
        await until(lambda: jwts.withdrawn(caller.credential), "the key is withdrawn")
        with pytest.raises(Unauthenticated):
            await jwts.caller(token)


async def test_keys_are_fetched_again_without_being_asked(
    issuer: Issuer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(issuer_keys, "REFETCH_SECONDS", 0.01)
    async with trusting(issuer, refresh=0.05):
        await until(lambda: issuer.fetches[KEY_SET] >= 4, "four fetches")


async def test_made_up_keys_cost_one_fetch_and_good_callers_wait_for_nobody(
    issuer: Issuer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(issuer_keys, "REFETCH_SECONDS", 0.5)
    async with trusting(issuer) as jwts:
        await jwts.caller(issuer.token())
        working = issuer.key_set
        issuer.key_set = issuer.answer(status=500)
        before = issuer.fetches[KEY_SET]
        claims = encoded(issuer.claims())
        heads = ({"alg": "RS256", "kid": f"made-up-{number}"} for number in range(1000))
        made_up = [f"{encoded(head)}.{claims}.{encoded(b'x')}" for head in heads]
        begun = time.monotonic()
        calls = [asyncio.create_task(jwts.caller(token)) for token in made_up]
        await until(lambda: sum(call.done() for call in calls) >= 1000 - MAX_WAITING, "refusals")
        assert (await jwts.caller(issuer.token(sub="bob"))).principal == "bob"
        results = await asyncio.gather(*calls, return_exceptions=True)
        assert all(isinstance(result, Unauthenticated) for result in results)
        lasted = time.monotonic() - begun
        assert issuer.fetches[KEY_SET] - before <= 2 + lasted / 0.5
        issuer.rotate()
        issuer.key_set = working
        assert (await jwts.caller(issuer.token())).principal == "alice"


@pytest.mark.usefixtures("hasty")
async def test_service_starts_without_its_issuer(issuer: Issuer) -> None:
    working, issuer.discovery = issuer.discovery, issuer.answer(status=503)
    with capture_logs() as logged:
        async with trusting(issuer) as jwts:
            with pytest.raises(StoreUnavailable) as caught:
                await jwts.caller(issuer.token())
            assert caught.value.retry_after
            issuer.discovery = working
            await until(lambda: bool(jwts.keys.current), "the keys are there")
            assert (await jwts.caller(issuer.token())).principal == "alice"
    warnings = [entry for entry in logged if entry["event"] == "issuer_keys_not_fetched"]
    assert len(warnings) == 1  # and not one for each attempt
    assert warnings[0]["why"].endswith("answers HTTP 503")
    assert warnings[0]["advice"] == "no JWT is accepted yet"


async def slow(request: web.Request) -> web.StreamResponse:
    """Answer a byte at a time, without end."""
    response = web.StreamResponse()
    await response.prepare(request)
    while True:
        await response.write(b" ")
        await asyncio.sleep(0.01)


def misbehaving() -> dict[str, tuple[Callable[[Issuer], Any], str]]:
    """Return answers of the key set, with what the log says of them."""
    return {
        "error": (lambda one: one.answer(status=500), "answers HTTP 500"),
        "file": (
            lambda one: one.answer(status=302, Location="file:///etc/passwd"),
            "redirect (302), which is not followed",
        ),
        "host": (
            lambda one: one.answer(status=307, Location="http://127.0.0.2/keys"),
            "redirect (307), which is not followed",
        ),
        "slow": (lambda _: slow, "did not answer in full within 0.2 s"),
        "large": (lambda one: one.answer(b" " * (DOCUMENT_BYTES + 1)), "has more than"),
        "bomb": (
            lambda one: one.answer(gzip.compress(b" " * 10_000_000), Content_Encoding="gzip"),
            "is compressed",
        ),
        "page": (lambda one: one.answer(b"<html>"), "is not a JSON object"),
        "deep": (lambda one: one.answer(b"[" * 100_000), "is not a JSON object"),
        "list": (lambda one: one.answer([1]), "is not a JSON object"),
        "keys": (lambda one: one.answer({"keys": {}}), "has no list of at most"),
        "many": (
            lambda one: one.answer({"keys": [{"kid": str(n)} for n in range(MAX_KEYS + 1)]}),
            "has no list of at most",
        ),
        "none": (lambda one: one.answer({"keys": []}), "has no key that can be used"),
        "oct": (
            lambda one: one.answer({"keys": [{"kty": "oct", "k": "c2VjcmV0", "kid": "key-0"}]}),
            "has no key that can be used",
        ),
    }


@pytest.mark.usefixtures("hasty")
@pytest.mark.parametrize("name", misbehaving())
async def test_keys_stay_while_the_issuer_misbehaves(
    issuer: Issuer, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(fetching, "FETCH_SECONDS", 0.2)
    handler, said = misbehaving()[name]
    with capture_logs() as logged:
        async with trusting(issuer, refresh=0.05) as jwts:
            await jwts.caller(issuer.token())
            issuer.key_set = handler(issuer)
            await until(lambda: any(said in str(entry.get("why")) for entry in logged), "a warning")
            assert (await jwts.caller(issuer.token(sub="bob"))).principal == "bob"
    assert not any(entry["event"] == "issuer_keys_failed" for entry in logged)


@pytest.mark.usefixtures("hasty")
@pytest.mark.parametrize(
    ("told", "said"),
    [
        ({"issuer": "https://other.example"}, "names another issuer"),
        ({"issuer": None}, "names another issuer"),
        ({"jwks_uri": "http://10.0.0.1/keys"}, "has no jwks_uri that is"),
        ({"jwks_uri": "file:///etc/passwd"}, "has no jwks_uri that is"),
        ({"jwks_uri": "https://user:secret@issuer.example/"}, "has no jwks_uri that is"),
        ({"jwks_uri": ["https://issuer.example/"]}, "has no jwks_uri that is"),
        ({"jwks_uri": None}, "has no jwks_uri that is"),
    ],
)
async def test_discovery_must_be_of_this_issuer(
    issuer: Issuer, told: dict[str, Any], said: str
) -> None:
    issuer.discovery = issuer.answer(
        {"issuer": issuer.url, "jwks_uri": f"{issuer.url}{KEY_SET}", **told}
    )
    with capture_logs() as logged:
        async with trusting(issuer):
            await until(lambda: any("why" in entry for entry in logged), "a warning")
    assert any(said in entry.get("why", "") for entry in logged)
    assert "secret" not in json.dumps(logged)
    assert not issuer.fetches[KEY_SET]


@pytest.mark.usefixtures("hasty")
async def test_certificate_of_the_issuer_is_checked(monkeypatch: pytest.MonkeyPatch) -> None:
    authority = trustme.CA()
    trusted = ssl.create_default_context()
    tls = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    authority.issue_cert("127.0.0.1").configure_cert(tls)
    monkeypatch.setattr(fetching, "trusted", lambda: trusted)
    with capture_logs() as logged:
        async with Issuer(tls) as issuer, trusting(issuer) as jwts:
            await until(lambda: any("why" in entry for entry in logged), "a warning")
            assert "its certificate is not accepted" in logged[0]["why"]
            authority.configure_trust(trusted)
            await until(lambda: bool(jwts.keys.current), "the keys are there")
            assert (await jwts.caller(issuer.token())).principal == "alice"


async def test_given_url_needs_no_discovery(issuer: Issuer) -> None:
    async with trusting(issuer, jwt_jwks_url=f"{issuer.url}{KEY_SET}") as jwts:
        await jwts.caller(issuer.token())
    assert set(issuer.fetches) == {KEY_SET}


async def test_loopback_needs_no_proxy(issuer: Issuer, monkeypatch: pytest.MonkeyPatch) -> None:
    for variable in ("HTTP_PROXY", "http_proxy", "ALL_PROXY", "all_proxy"):
        monkeypatch.setenv(variable, "http://127.0.0.1:9")
    async with trusting(issuer) as jwts:
        await jwts.caller(issuer.token())


def kids(*described: Any, allowed: Any = ALGORITHMS) -> set[tuple[str, str]]:
    """Return what of a key set can be used."""
    try:
        return set(parse_keys(json.dumps({"keys": described}).encode(), allowed))
    except FetchError:
        return set()


def test_only_keys_that_check_signatures_are_taken() -> None:
    good = public(rsa_key(), "a", alg="RS256")
    private = public(rsa_key(), "a", d="AQAB")
    curve = ec.generate_private_key(ec.SECP256R1())
    assert kids(good) == {("a", "RS256")}
    assert kids(public(curve, "c"), {"kty": "future"}, 7, good) == {("c", "ES256"), ("a", "RS256")}
    assert kids({**good, "use": "enc"}) == set()
    assert kids({**good, "key_ops": ["encrypt"]}) == set()
    assert kids({**good, "alg": "HS256"}) == set()
    assert kids({**good, "alg": ["RS256"]}) == set()
    assert kids({**good, "n": "AQAB"}) == set()
    assert kids({**good, "n": good["n"] * 100}) == set()
    assert kids({**good, "e": "AA"}) == set()
    assert kids({**good, "e": 3}) == set()
    assert kids({**public(curve, "c"), "x": "AAAA"}) == set()
    assert kids({**public(curve, "c"), "crv": "secp256k1"}) == set()
    assert kids(private) == set()
    assert kids(public(rsa_key(9, 1024), "a")) == set()
    assert kids(good, allowed=["ES256"]) == set()


def test_key_without_an_id_must_be_the_only_one() -> None:
    nameless = public(rsa_key(), None, alg="RS256")
    assert kids(nameless) == {("", "RS256")}
    assert kids(nameless, public(rsa_key(1), "b", alg="RS256")) == {("b", "RS256")}
    assert kids({**nameless, "kid": 7}) == set()


def test_set_of_as_many_keys_as_may_be_is_read_soon() -> None:
    document = json.dumps({"keys": [public(rsa_key(), str(n)) for n in range(MAX_KEYS)]}).encode()
    begun = time.thread_time()
    assert len(parse_keys(document, ALGORITHMS)) == 6 * MAX_KEYS
    assert time.thread_time() - begun < 1
