"""Whom certificates of clients stand for, as a real handshake tells of them."""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator, Mapping
from datetime import UTC, datetime, timedelta
from functools import cache
from typing import Any

import grpc
import grpc.aio
import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec

from polos_client.errors import Unauthenticated
from polos_service.access.certificates import Certificates
from polos_service.access.credentials import Peer
from polos_service.access_settings import ClientIdentity

SPIFFE = "spiffe://prod.example/team-a/app"

IDENTITIES = {
    name: ClientIdentity.model_validate(identity)
    for name, identity in {
        "spiffe://prod.example/team-b/*": {"project": "b", "scopes": ["runs:read"]},
        SPIFFE: {"project": "a", "scopes": ["*"], "principal": "app"},
        "*.team-c.example": {"project": "c", "scopes": []},
        "robot@*": {"project": "d", "scopes": ["runs:read", "runs:write"]},
        "legacy": {"project": "e", "scopes": ["agents:read"]},
    }.items()
}


@cache
def authority() -> tuple[x509.Certificate, ec.EllipticCurvePrivateKey]:
    """Return the certificate and key of an authority."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "authority")])
    certificate = (
        builder(name, key, days=1)
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        .sign(key, hashes.SHA256())
    )
    return certificate, key


def builder(
    subject: x509.Name, key: ec.EllipticCurvePrivateKey, days: float
) -> x509.CertificateBuilder:
    now = datetime.now(UTC)
    issuer = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "authority")])
    return (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(issuer)
        .public_key(key.public_key())
        .serial_number(0xABC)
        .not_valid_before(now - timedelta(days=2))
        .not_valid_after(now + timedelta(days=days))
    )


def issued(common: str, *names: x509.GeneralName, days: float = 1) -> tuple[bytes, bytes]:
    """Return a certificate and its key, as PEM."""
    key = ec.generate_private_key(ec.SECP256R1())
    attributes = [x509.NameAttribute(x509.NameOID.COMMON_NAME, common)] if common else []
    building = builder(x509.Name(attributes), key, days)
    if names:
        building = building.add_extension(x509.SubjectAlternativeName(names), critical=False)
    pem = building.sign(authority()[1], hashes.SHA256()).public_bytes(serialization.Encoding.PEM)
    private = key.private_bytes(
        serialization.Encoding.PEM,
        serialization.PrivateFormat.PKCS8,
        serialization.NoEncryption(),
    )
    return pem, private


def peer(common: str, *names: x509.GeneralName, days: float = 1) -> Peer:
    """Return what gRPC says of a peer with this certificate."""
    return {"x509_pem_cert": [issued(common, *names, days=days)[0]]}


@contextlib.asynccontextmanager
async def shaken(pem: bytes, private: bytes) -> AsyncIterator[Mapping[str, Any]]:
    """Connect with a certificate, and return what the server's gRPC says of the peer."""
    seen: dict[str, Any] = {}

    async def handle(request: bytes, context: grpc.aio.ServicerContext[bytes, bytes]) -> bytes:
        seen.update(context.auth_context())
        return request

    root = authority()[0].public_bytes(serialization.Encoding.PEM)
    chain, key = issued("localhost", x509.DNSName("localhost"))
    server = grpc.aio.server()
    method: Any = grpc.unary_unary_rpc_method_handler(handle)
    generic = grpc.method_handlers_generic_handler("a.B", {"C": method})
    server.add_generic_rpc_handlers((generic,))
    credentials = grpc.ssl_server_credentials([(key, chain)], root, require_client_auth=True)
    port = server.add_secure_port("localhost:0", credentials)
    await server.start()
    channel = grpc.aio.secure_channel(
        f"localhost:{port}", grpc.ssl_channel_credentials(root, private, pem)
    )
    try:
        async with channel:
            call: Any = channel.unary_unary("/a.B/C")
            await call(b"")
            yield seen
    finally:
        await server.stop(0)


async def test_handshake_names_the_caller() -> None:
    certificates = Certificates(IDENTITIES)
    names = (x509.DNSName("host.example"), x509.UniformResourceIdentifier(SPIFFE))
    async with shaken(*issued("legacy", *names)) as seen:
        caller = certificates.caller(seen)
    assert caller is not None
    assert (caller.project, caller.principal) == ("a", "app")
    assert caller.scopes == {"*"}
    assert caller.credential == "certificate:abc"
    assert caller.expires is not None
    assert caller.expires > datetime.now(UTC).timestamp()


@pytest.mark.parametrize(
    ("names", "project", "principal"),
    [
        ([x509.UniformResourceIdentifier("spiffe://prod.example/team-b/x")], "b", None),
        ([x509.DNSName("api.team-c.example")], "c", "api.team-c.example"),
        ([x509.RFC822Name("robot@example.org")], "d", "robot@example.org"),
        ([], "e", "legacy"),
    ],
)
def test_names_are_matched(
    names: list[x509.GeneralName], project: str, principal: str | None
) -> None:
    caller = Certificates(IDENTITIES).caller(peer("legacy", *names))
    assert caller is not None
    assert caller.project == project
    assert principal in (None, caller.principal)


@pytest.mark.parametrize(
    "names",
    [
        [x509.DNSName("host.example")],  # the common name does not count beside it
        [x509.UniformResourceIdentifier("spiffe://prod.example/team-b/x/y")],
        [x509.UniformResourceIdentifier("spiffe://prod.example/team-b/")],
        [x509.UniformResourceIdentifier("spiffe://prod.example/team-a/app/x")],
        [x509.UniformResourceIdentifier("xspiffe://prod.example/team-a/app")],
        [x509.DNSName("team-c.example")],
        [x509.DNSName("api.team-c.example.evil.example")],
        [x509.RFC822Name("other@example.org")],
        [x509.UniformResourceIdentifier("legacy\n")],
    ],
)
def test_other_names_are_nobody(names: list[x509.GeneralName]) -> None:
    with pytest.raises(Unauthenticated) as caught:
        Certificates(IDENTITIES).caller(peer("legacy", *names))
    assert caught.value.metadata["cause"] == "unknown"


def test_what_is_no_certificate_is_nobody() -> None:
    certificates = Certificates(IDENTITIES)
    assert certificates.caller({}) is None
    assert certificates.caller({"x509_common_name": [b"legacy"]}) is None
    with pytest.raises(Unauthenticated):
        certificates.caller({"x509_pem_cert": [b"garbage"]})


def test_certificate_expires_on_a_connection_that_stays_open() -> None:
    certificates = Certificates(IDENTITIES)
    with pytest.raises(Unauthenticated) as caught:
        certificates.caller(peer("legacy", days=-1))
    assert caught.value.metadata["cause"] == "expired"


def test_certificates_are_remembered_within_a_bound(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("polos_service.access.certificates.MAX_KNOWN", 2)
    certificates = Certificates(IDENTITIES)
    for _ in range(3):
        certificates.caller(peer("legacy"))
    assert len(certificates._known) == 2
