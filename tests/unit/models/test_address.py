"""A provider's base URL: what is sent, what is shown, and what is refused."""

from __future__ import annotations

import base64
from dataclasses import replace

import pytest
from pydantic import SecretStr

from polos.v1.error_pb2 import FailureReason
from polos_service.errors import StepError
from polos_service.models.address import Address
from tests.support.mock_answers import say, status
from tests.support.mock_provider import MockProvider
from tests.support.models import KEY, REQUEST, Heard, assert_tells_no_secret, failure, openai


def with_user(url: str, user: str) -> str:
    return url.replace("//", f"//{user}@")


@pytest.mark.parametrize(
    ("user", "sent"),
    [
        (f"me:{KEY}", f"me:{KEY}"),
        ("me", "me:"),
        (":only-a-password", ":only-a-password"),
        ("m%40e:p%3A%2Fw", "m@e:p:/w"),
        ("m\u00fc:\u00df", "m\u00fc:\u00df"),
    ],
)
async def test_user_and_password_are_sent_as_basic_authentication(
    provider: MockProvider, user: str, sent: str
) -> None:
    provider.reply(say("x"))
    model = openai(base_url=with_user(provider.url, user))
    assert (await model.answer(REQUEST, Heard())).text == "x"
    await model.close()
    (scheme, _, told) = provider.requests[0].headers["authorization"].partition(" ")
    assert (scheme, base64.b64decode(told).decode()) == ("Basic", sent)
    assert "@" not in provider.requests[0].headers["host"]


async def test_a_key_goes_before_user_and_password(provider: MockProvider) -> None:
    provider.reply(say("x"))
    model = openai(base_url=with_user(provider.url, "me:secret"), api_key=SecretStr("the-key"))
    await model.answer(REQUEST, Heard())
    await model.close()
    assert provider.requests[0].headers["authorization"] == "Bearer the-key"


async def test_user_and_password_of_an_agents_own_address_are_sent_there_alone(
    provider: MockProvider,
) -> None:
    provider.reply(say("x"))
    provider.reply(say("x"))
    model = openai(base_url=provider.url)
    await model.answer(replace(REQUEST, base_url=with_user(provider.url, "me:secret")), Heard())
    await model.answer(REQUEST, Heard())
    await model.close()
    sent = [
        request.headers.get("authorization", "none").split()[0] for request in provider.requests
    ]
    assert sent == ["Basic", "none"]


@pytest.mark.parametrize("code", [400, 401, 404, 500])
async def test_user_and_password_are_never_shown(provider: MockProvider, code: int) -> None:
    body = {"error": {"message": f"somebody-else or {KEY}? No."}}
    provider.reply(status(code, body, x_request_id="somebody-else"))
    model = openai(base_url=with_user(provider.url, f"somebody-else:{KEY}"))
    error = await failure(model)
    await model.close()
    assert "somebody" not in f"{error!r} {vars(error)}"
    assert provider.url.split("/")[2] in error.message


def test_an_address_shows_nothing_in_its_representation() -> None:
    assert KEY not in repr(Address.of(f"http://me:{KEY}@host/v1"))


@pytest.mark.parametrize(
    ("url", "host"),
    [
        ("http://[::1]:1234/v1", "[::1]:1234"),
        ("http://host./v1", "host."),
        (" https://host:443/v1/ ", "host"),
        ("http://b\u00fccher.example/v1", "xn--bcher-kva.example"),
        ("http://a_b:1/v1", "a_b:1"),
        ("http://me:pw@h:80/v1", "h"),
    ],
)
def test_odd_addresses_are_understood(url: str, host: str) -> None:
    assert Address.of(url).host == host


@pytest.mark.parametrize(
    "url",
    [
        "",
        "host",
        "ftp://host/v1",
        "http://",
        "http:///v1",
        "http://:80/v1",
        f"http://me:{KEY}@/v1",
        f"http://me:{KEY}@a b/v1",
        f"http://me:{KEY}@host:port/v1",
        "http://host:0/v1",
        "http://host:65536/v1",
        "http://host:-1/v1",
        "http://h\\x/v1",
        "http://h%00/v1",
        "http://h/\x00",
        "http://[::1",
        "http://[::1%25eth0]/v1",
        "http://\u2603.example/v1",
        "http://\ud800/v1",
        "http://h/\ud800",
        "http://999.1.1.1/v1",
        "http://" + "a" * 70_000,
    ],
)
def test_what_is_not_an_address_is_refused_and_not_repeated(url: str) -> None:
    with pytest.raises(StepError, match="not an http:// or https:// address") as raised:
        Address.of(url)
    assert raised.value.reason == FailureReason.FAILURE_REASON_MODEL_BAD_REQUEST
    assert KEY not in str(vars(raised.value))


@pytest.mark.parametrize("host", ["a..b", "xn--a", "-a-", "a" * 70, "no.such.host.invalid"])
async def test_a_host_that_cannot_be_reached_is_a_failure_of_the_model_call(host: str) -> None:
    model = openai(base_url=f"http://{host}/v1")
    with pytest.raises(StepError) as raised:
        await model.answer(REQUEST, Heard())
    await model.close()
    assert_tells_no_secret(raised.value)
    assert raised.value.reason == FailureReason.FAILURE_REASON_MODEL_UNAVAILABLE
    assert host in raised.value.message
