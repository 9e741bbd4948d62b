"""Certificates in files, and a fake service over TLS that may demand one."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

import grpc
import trustme

PAST = datetime(2020, 1, 1)  # noqa: DTZ001 - trustme takes no zone
"""When a certificate ended that is expired."""


@dataclass(frozen=True)
class Pair:
    """A certificate and its key, in files."""

    cert: Path
    key: Path


def write_pair(folder: Path, name: str, leaf: trustme.LeafCert) -> Pair:
    """Write a certificate and its key; files that are there are replaced."""
    pair = Pair(folder / f"{name}.pem", folder / f"{name}.key")
    pair.key.write_bytes(leaf.private_key_pem.bytes())
    pair.cert.write_bytes(chain(leaf))
    return pair


def write_ca(folder: Path, name: str, authority: trustme.CA) -> Path:
    """Write the certificate of an authority."""
    path = folder / f"{name}.pem"
    authority.cert_pem.write_to_path(path)
    return path


def chain(leaf: trustme.LeafCert) -> bytes:
    return b"".join(one.bytes() for one in leaf.cert_chain_pems)


def server_credentials(
    leaf: trustme.LeafCert, *, clients: trustme.CA | None = None
) -> grpc.ServerCredentials:
    """Return what a service shows; `clients` has to sign the certificates of its callers."""
    pair = (leaf.private_key_pem.bytes(), chain(leaf))
    if clients is None:
        return grpc.ssl_server_credentials([pair])
    return grpc.ssl_server_credentials([pair], clients.cert_pem.bytes(), require_client_auth=True)
