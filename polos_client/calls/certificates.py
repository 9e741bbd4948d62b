"""Certificates: the PEM files that a client trusts and shows, read again when they change."""

from __future__ import annotations

import logging
import os
import ssl
from pathlib import Path
from typing import NoReturn

import grpc

from polos_client.errors import DefinitionError

_BEGIN = b"-----BEGIN CERTIFICATE-----"
"""How a certificate begins in a PEM file."""

_FLIGHTS = 4
"""How often each side of a handshake of TLS 1.2 has its turn, at most."""

_log = logging.getLogger(__name__)

_Stamp = tuple[tuple[int, int, int] | None, ...]
"""What tells that a file has changed, for each file; None: it is missing."""


class Certificates:
    """The files of one client, which may live longer than what is in them.

    Attributes:
        ca: the certificates of the authorities to trust; None: those that grpc brings.
        cert: the client's own certificate and what leads to its authority; None: it has none.
        key: the private key of `cert`; None: it is in the same file.

    """

    def __init__(self, ca: Path | None, cert: Path | None = None, key: Path | None = None) -> None:
        """Read the files.

        Raises:
            DefinitionError: one cannot be read or used, or the key is not that of `cert`.

        """
        self.ca = ca
        self.cert = cert
        self.key = key
        self._files = [file for file in (ca, cert, key) if file is not None]
        self._stamp = self._find_stamp()
        self._credentials = self._read()

    def current(self) -> grpc.ChannelCredentials:
        """Return what the files hold now: the same object for as long as they do not change.

        Files that cannot be used, for example because they are half written, change nothing.
        """
        stamp = self._find_stamp()
        if stamp != self._stamp:
            self._stamp = stamp  # taken before the files are read: a later change is seen
            try:
                self._credentials = self._read()
            except DefinitionError as error:
                _log.warning("%s; the client keeps the certificates that it had", error)
        return self._credentials

    def context(self) -> ssl.SSLContext:
        """Return the same for the `ssl` module."""
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        if self.ca is None:
            context.load_default_certs()
        else:
            context.load_verify_locations(self.ca)
        if self.cert is not None:
            self._load_own(context)
        return context

    def find_own_fault(self) -> str | None:
        """Return what is wrong with the validity of `cert`, by a handshake in memory."""
        if self.cert is None:
            return None
        server, client = (
            ssl.SSLContext(kind) for kind in (ssl.PROTOCOL_TLS_SERVER, ssl.PROTOCOL_TLS_CLIENT)
        )
        for context in (server, client):
            context.check_hostname = False
            context.maximum_version = ssl.TLSVersion.TLSv1_2  # the client hears of a refusal
            self._load_own(context)
        client.verify_mode = ssl.CERT_NONE
        server.verify_mode = ssl.CERT_REQUIRED
        server.verify_flags |= ssl.VERIFY_X509_PARTIAL_CHAIN  # the certificate vouches for itself
        server.load_verify_locations(self.cert)
        there, back = ssl.MemoryBIO(), ssl.MemoryBIO()
        ends = client.wrap_bio(back, there), server.wrap_bio(there, back, server_side=True)
        for _ in range(_FLIGHTS):
            for end in ends:
                try:
                    end.do_handshake()
                except ssl.SSLWantReadError:
                    pass
                except ssl.SSLCertVerificationError as error:
                    return error.verify_message
        return None

    def _load_own(self, context: ssl.SSLContext) -> None:
        assert self.cert is not None  # noqa: S101 - for the type checker
        context.load_cert_chain(self.cert, self.key, _refuse_encrypted)

    def _find_stamp(self) -> _Stamp:
        return tuple(map(_stamp_of, self._files))

    def _read(self) -> grpc.ChannelCredentials:
        trusted = None if self.ca is None else _certificates(self.ca)
        if self.cert is None:
            return grpc.ssl_channel_credentials(trusted)
        chain = _certificates(self.cert)
        try:
            self._load_own(ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT))
            key = (self.key or self.cert).read_bytes()
        except (OSError, ValueError) as error:
            told = getattr(error, "reason", None) or error
            raise DefinitionError(
                f"the client certificate {str(self.cert)!r} cannot be used with the key "
                f"{str(self.key or self.cert)!r}: {told}"
            ) from None
        return grpc.ssl_channel_credentials(trusted, key, chain)


def path_of(given: str | os.PathLike[str]) -> Path:
    """Return where a file is; a leading `~` is the user's home.

    Raises:
        DefinitionError: it is not a path.

    """
    try:
        return Path(given).expanduser()
    except (RuntimeError, TypeError) as error:
        raise DefinitionError(f"{given!r:.80} is not the path of a PEM file: {error}") from None


def _certificates(path: Path) -> bytes:
    try:
        found = path.read_bytes()
    except (OSError, ValueError) as error:
        raise DefinitionError(f"the certificates for TLS cannot be read: {error}") from None
    if _BEGIN not in found:
        raise DefinitionError(f"the file {str(path)!r} has no certificate in the PEM format")
    return found


def _stamp_of(path: Path) -> tuple[int, int, int] | None:
    try:
        found = path.stat()
    except (OSError, ValueError):
        return None
    return found.st_mtime_ns, found.st_ino, found.st_size


def _refuse_encrypted() -> NoReturn:
    """Refuse to be asked for a password; by default OpenSSL asks on the terminal."""
    raise ValueError("the key is encrypted; gRPC supports only keys without a password")
