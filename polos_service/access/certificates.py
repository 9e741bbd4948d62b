"""Whom the certificate of a client stands for. TLS has verified it before."""

from __future__ import annotations

import re
import time
from collections.abc import Callable, Mapping, Sequence

from cryptography import x509

from polos_client.errors import Unauthenticated
from polos_client.wire import NAME_LIMIT
from polos_service.access.credentials import Peer
from polos_service.access_settings import ClientIdentity
from polos_service.caller import Caller

CERTIFICATE = "x509_pem_cert"
"""The property of gRPC's auth_context with the client's certificate, as PEM."""

CREDENTIAL = "certificate:"
"""How the `credential` of a caller with a certificate begins; its serial number follows."""

MAX_KNOWN = 10_000
"""Certificates at most whose callers are remembered: about 3 KB each."""


class Certificates:
    """Finds callers by their certificates."""

    def __init__(
        self, identities: Mapping[str, ClientIdentity], now: Callable[[], float] = time.time
    ) -> None:
        """Take the callers by the names in their certificates; `*` makes a name a pattern.

        Args:
            identities: callers by name.
            now: the time in seconds since the epoch.

        """
        self._identities = identities
        self._now = now
        self._patterns = [
            (re.compile("[^/@]+".join(map(re.escape, name.split("*")))), identity)
            for name, identity in identities.items()
        ]
        self._known: dict[bytes, Caller | None] = {}

    def caller(self, peer: Peer) -> Caller | None:
        """Return whom the peer's certificate stands for; None if there is none.

        Raises:
            Unauthenticated: it cannot be read, names nobody that the settings know, or has expired
                since the connection was made.

        """
        pem = next(iter(peer.get(CERTIFICATE, ())), b"")
        if not pem:
            return None
        if pem not in self._known:
            while len(self._known) >= MAX_KNOWN:
                del self._known[next(iter(self._known))]
            self._known[pem] = self._described(pem)
        caller = self._known[pem]
        if caller is None:
            raise Unauthenticated(
                "The client's certificate has no name that POLOS_CLIENT_IDENTITIES knows.",
                cause="unknown",
            )
        if caller.expires is not None and caller.expires <= self._now():
            raise Unauthenticated(
                "The client's certificate has expired. Connect with a new one.", cause="expired"
            )
        return caller

    def _described(self, pem: bytes) -> Caller | None:
        try:
            certificate = x509.load_pem_x509_certificate(pem)
            names = names_of(certificate)
        except ValueError:
            return None
        found = next(filter(None, map(self._identity, names)), None)
        if found is None:
            return None
        name, identity = found
        return Caller(
            project=identity.project,
            principal=identity.principal or name,
            scopes=frozenset(identity.scopes),
            credential=f"{CREDENTIAL}{certificate.serial_number:x}",
            expires=certificate.not_valid_after_utc.timestamp(),
        )

    def _identity(self, name: str) -> tuple[str, ClientIdentity] | None:
        """Return the name with whom it stands for: as it is, or else by the first pattern."""
        if name in self._identities:
            return name, self._identities[name]
        for pattern, identity in self._patterns:
            if pattern.fullmatch(name):
                return name, identity
        return None


def names_of(certificate: x509.Certificate) -> Sequence[str]:
    """Return the names in a certificate: URIs, DNS names, email addresses; else common names.

    Names are left out that are longer than NAME_LIMIT or cannot be printed.

    Raises:
        ValueError: it has an extension that cannot be read.

    """
    try:
        extension = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName)
    except x509.ExtensionNotFound:
        names: list[str] = []
    else:
        kinds = (x509.UniformResourceIdentifier, x509.DNSName, x509.RFC822Name)
        names = [name for kind in kinds for name in extension.value.get_values_for_type(kind)]
    if not names:
        common = certificate.subject.get_attributes_for_oid(x509.NameOID.COMMON_NAME)
        names = [str(one.value) for one in common]
    return [name for name in names if name.isprintable() and len(name) <= NAME_LIMIT]
