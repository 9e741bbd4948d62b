"""Where a client goes, encrypted or not, and with which key: from arguments and variables."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import grpc
import pytest
import trustme

from polos_client.calls.client import PolosClient
from polos_client.calls.target import Target, find_target
from polos_client.errors import DefinitionError

VARIABLES = ("POLOS_ADDRESS", "POLOS_API_URL", "POLOS_API_KEY", "POLOS_TLS")


@pytest.fixture(autouse=True)
def _no_variables(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in VARIABLES:
        monkeypatch.delenv(name, raising=False)


@pytest.fixture
def certificates(tmp_path: Path) -> Path:
    """Return a file with the certificate of an authority."""
    path = tmp_path / "ca.pem"
    trustme.CA().cert_pem.write_to_path(path)
    return path


def find(address: str | None = None, **options: Any) -> Target:
    return find_target(address, **{"api_url": None, "tls": None, "api_key": None, **options})


@pytest.mark.parametrize(
    ("given", "address", "encrypted"),
    [
        ("here:1", "here:1", False),
        ("http://here:1", "here:1", False),
        ("http://here", "here:80", False),
        ("https://here", "here:443", True),
        ("https://Here:8443/", "here:8443", True),
        ("https://[::1]:1", "[::1]:1", True),
    ],
)
def test_an_address_or_a_url_says_where_and_how(given: str, address: str, encrypted: Any) -> None:
    for target in (find(given), find(api_url=given)):
        assert target.address == address
        assert (target.credentials is not None) is encrypted


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ("https://", "must be like https://HOST:PORT, without a path"),
        ("https://here/v1", "must be like https://HOST:PORT, without a path"),
        ("https://here?x=1", "must be like https://HOST:PORT, without a path"),
        ("https://here:x", "the URL 'https://here:x' cannot be used"),
        ("https://here:99999", "cannot be used: Port out of range"),
        ("https://me:secret@here", "the URL has a user or a password; pass api_key instead"),
    ],
)
def test_a_url_that_cannot_be_used_is_refused(given: str, message: str) -> None:
    with pytest.raises(DefinitionError, match=re.escape(message)) as caught:
        find(given)
    assert "secret" not in str(caught.value)


def test_arguments_go_before_variables_and_address_before_url(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    assert find().address == "127.0.0.1:50051"
    monkeypatch.setenv("POLOS_API_URL", "https://url:1")
    assert find().address == "url:1"
    monkeypatch.setenv("POLOS_ADDRESS", "address:1")
    assert find() == Target(address="address:1")
    assert find(api_url="http://here:1").address == "here:1"
    with pytest.raises(DefinitionError, match="they mean the same, so pass one"):
        find("here:1", api_url="http://here:1")


def test_tls_is_said_by_argument_or_variable(
    monkeypatch: pytest.MonkeyPatch, certificates: Path
) -> None:
    credentials = grpc.ssl_channel_credentials()
    assert find("here:1", tls=credentials).credentials is credentials
    for tls in (True, certificates, str(certificates)):
        assert find("here:1", tls=tls).credentials is not None
    for said, encrypted in (("true", True), ("1", True), ("False", False), ("0", False)):
        monkeypatch.setenv("POLOS_TLS", said)
        assert (find("here:1").credentials is not None) is encrypted
    monkeypatch.setenv("POLOS_TLS", str(certificates))
    assert find("here:1").credentials is not None
    assert find("here:1", tls=False).credentials is None


@pytest.mark.parametrize(("url", "tls"), [("http://here", True), ("https://here", False)])
def test_tls_that_contradicts_the_url_is_refused(url: str, tls: Any) -> None:
    with pytest.raises(DefinitionError, match=re.escape(f"{url} says")):
        find(url, tls=tls)


def test_certificates_that_cannot_be_used_are_refused(tmp_path: Path) -> None:
    with pytest.raises(DefinitionError, match=r"cannot be read: .*nowhere"):
        find("here:1", tls=tmp_path / "nowhere")
    (tmp_path / "empty.pem").touch()
    with pytest.raises(DefinitionError, match=r"empty\.pem' has no certificate in the PEM format"):
        find("here:1", tls=tmp_path / "empty.pem")


@pytest.mark.parametrize(
    "address",
    ["localhost:1", "127.0.0.1:1", "[::1]:1", "unix:/tmp/a", "dns:///localhost:1", "https://far"],
)
def test_a_key_goes_over_tls_or_to_this_machine(
    address: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert find(address, api_key="k").api_key == "k"
    monkeypatch.setenv("POLOS_API_KEY", "from-the-environment")
    assert find(address).api_key == "from-the-environment"


@pytest.mark.parametrize("address", ["far:1", "10.0.0.1:1", "http://far", "dns:///far:1"])
def test_a_key_does_not_go_to_another_machine_in_plaintext(address: str) -> None:
    with pytest.raises(DefinitionError, match=r"would travel to .* in plaintext") as caught:
        find(address, api_key="secret")
    assert "secret" not in str(caught.value)


@pytest.mark.parametrize("key", ["two words", "line\n", "schlüssel", 7])
def test_a_key_that_cannot_travel_is_refused(key: Any) -> None:
    with pytest.raises(DefinitionError, match="must be printable ASCII text without spaces"):
        find(api_key=key)


def test_the_arguments_of_the_original_sdk_are_taken() -> None:
    client = PolosClient("http://127.0.0.1:8080", "secret", "project")
    assert client.address == "127.0.0.1:8080"
    named = PolosClient(api_url="http://127.0.0.1:8080", api_key="secret", project_id="project")
    assert named.address == client.address
    assert "secret" not in repr(find(api_key="secret"))


def test_a_deployment_is_ignored_with_a_warning() -> None:
    with pytest.warns(UserWarning, match=r"deployment_id='blue' is ignored") as caught:
        PolosClient("here:1", deployment_id="blue")
    assert [one.filename for one in caught] == [__file__]
