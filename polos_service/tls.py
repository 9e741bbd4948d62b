"""The files that TLS is made of: read and checked at the start, and again when they change."""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from threading import Lock
from time import monotonic

from cryptography import x509
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.hazmat.primitives.asymmetric.types import PrivateKeyTypes
from cryptography.hazmat.primitives.serialization import load_pem_private_key

from polos_client.errors import PolosError
from polos_service import logs

SIZE_LIMIT = 1024 * 1024
"""Bytes of a file; the certificates of all public authorities together have a quarter of them."""

CURVES = (ec.SECP256R1, ec.SECP384R1)
"""Curves of the keys that all gRPC clients take; those in Python, C++ or Ruby take no others."""

RESUMABLE = 60.0
"""Seconds for which clients with certificates may resume a TLS session. A resumption does not check
the certificate again: one that has expired would be good for days."""

KEPT = "the service continues with the files it had; correct them, and new connections use them"
"""What the log advises when changed files cannot be used."""

log = logs.get_logger(__name__)


class TlsError(PolosError):
    """A file cannot be used for TLS; the message names it, says why, and holds nothing of it."""


@dataclass(frozen=True, slots=True)
class Pem:
    """What the files hold, in the PEM format, checked.

    Attributes:
        chain: the service's certificate, and those between it and its authority.
        key: the private key of the first certificate.
        client_ca: authorities of client certificates; None: clients need none.

    """

    chain: bytes
    key: bytes
    client_ca: bytes | None


class TlsFiles:
    """The files of a service.

    They are read at each handshake, and compared: modes, times and inodes say less of what was
    swapped, restored or half written, and reading a few KB costs little beside a handshake.
    """

    def __init__(self, chain: Path, key: Path, client_ca: Path | None) -> None:
        """Remember the files; nothing is read."""
        self._paths = [path for path in (chain, key, client_ca) if path is not None]
        self._seen: list[bytes | str] = []
        self._pem: Pem
        self._given = 0.0
        self._reading = Lock()

    def read(self) -> Pem:
        """Return what the files hold.

        Raises:
            TlsError: it cannot be used.

        """
        with self._reading:
            self._seen = [contents(path) for path in self._paths]
            return self._give(self._checked(self._seen))

    def changed(self) -> Pem | None:
        """Return what the files hold if that is new and can be used; any thread may call it.

        What cannot be used is logged, once for each change. With an authority of clients, what
        was given is given again after RESUMABLE: the keys of TLS sessions end with it.
        """
        with self._reading:
            found = [contents(path) for path in self._paths]
            if found != self._seen:
                self._seen = found
                try:
                    return self._give(self._checked(found))
                except TlsError as error:
                    log.warning("tls_files_cannot_be_used", error=str(error), advice=KEPT)
            if self._pem.client_ca is None or monotonic() < self._given + RESUMABLE:
                return None
            return self._give(self._pem)

    def _give(self, pem: Pem) -> Pem:
        self._pem = pem
        self._given = monotonic()
        return pem

    def _checked(self, found: list[bytes | str]) -> Pem:
        chain, key, *more = map(readable, found)
        client_ca = more[0] if more else None
        own = first_certificate(chain, self._paths[0])
        if own.public_key() != private_key(key, self._paths[1]).public_key():
            raise TlsError(
                f"The key in {self._paths[1]} does not belong to the first certificate in "
                f"{self._paths[0]}. The service's own certificate comes first, before those of "
                "its authorities."
            )
        if client_ca is not None:
            first_certificate(client_ca, self._paths[2])
        begins, ends = own.not_valid_before_utc, own.not_valid_after_utc
        if begins <= datetime.now(UTC) < ends:
            log.info("tls_files_loaded", certificate=str(self._paths[0]), expires=str(ends))
        else:
            log.warning("tls_certificate_is_not_valid_now", begins=str(begins), expires=str(ends))
        return Pem(chain, key, client_ca)


def contents(path: Path) -> bytes | str:
    """Return what a file holds, or why it cannot be read."""
    try:
        with open(path, "rb", buffering=0, opener=without_waiting) as file:
            found = os.fstat(file.fileno())
            if not stat.S_ISREG(found.st_mode):
                return f"{path} is not a regular file, which can be read again when it changes."
            if found.st_size > SIZE_LIMIT:
                return f"The file {path} has more than {SIZE_LIMIT} bytes: it is not a PEM file."
            pem = file.read(found.st_size)
    except (OSError, ValueError) as error:
        return f"The file {path} cannot be read: {getattr(error, 'strerror', None) or error}."
    return pem if pem.strip() else f"The file {path} is empty."


def without_waiting(path: str, flags: int) -> int:
    """Open a file; a pipe that nobody writes to would keep the handshakes of all clients."""
    return os.open(path, flags | os.O_NONBLOCK)


def readable(found: bytes | str) -> bytes:
    """Return what a file holds.

    Raises:
        TlsError: it cannot be read.

    """
    if isinstance(found, str):
        raise TlsError(found)
    return found


def first_certificate(pem: bytes, path: Path) -> x509.Certificate:
    """Return the first of the certificates in a file, each of which can be read.

    Raises:
        TlsError: there is none, or one cannot be read.

    """
    if b"-----BEGIN CERTIFICATE-----" not in pem:
        swapped = (
            " It holds a private key: the files may be swapped." if b"PRIVATE KEY" in pem else ""
        )
        raise TlsError(f"The file {path} has no certificate in the PEM format.{swapped}")
    with told(f"A certificate in {path} cannot be read: it is damaged or incomplete."):
        return x509.load_pem_x509_certificates(pem)[0]


def private_key(pem: bytes, path: Path) -> PrivateKeyTypes:
    """Return the private key in a file.

    Raises:
        TlsError: there is none, or it cannot be used.

    """
    if b"PRIVATE KEY-----" not in pem:
        swapped = (
            " It holds a certificate: the files may be swapped." if b"CERTIFICATE" in pem else ""
        )
        raise TlsError(f"The file {path} has no private key in the PEM format.{swapped}")
    with told(f"The private key in {path} cannot be read: it is damaged or incomplete."):
        try:
            key = load_pem_private_key(pem, None)
        except TypeError:  # it is encrypted
            raise TlsError(
                f"The private key in {path} is protected by a password, which the service does not "
                "know. Store it without one: openssl pkey -in KEY -out NEW"
            ) from None
    elliptic = isinstance(key, ec.EllipticCurvePrivateKey) and isinstance(key.curve, CURVES)
    if not (elliptic or isinstance(key, rsa.RSAPrivateKey)):
        raise TlsError(f"gRPC does not support the key in {path}: use RSA, P-256 or P-384.")
    return key


@contextmanager
def told(what: str) -> Iterator[None]:
    """Say this of what cannot be parsed."""
    try:
        yield
    except (UnsupportedAlgorithm, ValueError):
        raise TlsError(what) from None
