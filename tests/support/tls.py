"""Certificates of authorities that a test makes, and files of them."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import grpc
import trustme

HOST = "127.0.0.1"
"""What certificates of services are for."""

PAST = datetime.now(UTC) - timedelta(days=1)
"""When a certificate has expired."""


def chain_of(certificate: trustme.LeafCert) -> bytes:
    """Return a certificate and those between it and its authority."""
    return b"".join(one.bytes() for one in certificate.cert_chain_pems)


class Files:
    """The three files of a service, in a folder; `settings` names them.

    Attributes:
        authority: who has issued the certificate.
        clients: who issues certificates of clients.

    """

    def __init__(self, folder: Path) -> None:
        self.cert = folder / "service.pem"
        self.key = folder / "service.key"
        self.client_ca = folder / "clients.pem"
        self.authority = trustme.CA()
        self.clients = trustme.CA()
        self.write(self.authority.issue_cert(HOST))
        self.client_ca.write_bytes(self.clients.cert_pem.bytes())

    def write(self, certificate: trustme.LeafCert) -> None:
        """Write a certificate of the service, and its key."""
        self.cert.write_bytes(chain_of(certificate))
        self.key.write_bytes(certificate.private_key_pem.bytes())

    @property
    def settings(self) -> dict[str, Any]:
        """Settings of TLS without client certificates."""
        return {"tls_cert": self.cert, "tls_key": self.key}

    @property
    def mutual(self) -> dict[str, Any]:
        """Settings of TLS with client certificates."""
        return {**self.settings, "tls_client_ca": self.client_ca}

    def trusting(self, client: trustme.LeafCert | None = None) -> grpc.ChannelCredentials:
        """Return a client's credentials: it trusts the authority, and may have a certificate."""
        return trusting(self.authority, client)


def trusting(
    authority: trustme.CA, client: trustme.LeafCert | None = None
) -> grpc.ChannelCredentials:
    """Return the credentials of a client that trusts an authority, and may have a certificate."""
    if client is None:
        return grpc.ssl_channel_credentials(authority.cert_pem.bytes())
    return grpc.ssl_channel_credentials(
        authority.cert_pem.bytes(), client.private_key_pem.bytes(), chain_of(client)
    )
