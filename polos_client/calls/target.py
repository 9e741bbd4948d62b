"""Where a service is, whether the way there is encrypted, and with which key to call it."""

from __future__ import annotations

import ipaddress
import os
import re
import ssl
from dataclasses import dataclass, field
from pathlib import Path
from urllib.parse import urlsplit

import grpc

from polos_client.errors import DefinitionError

DEFAULT_ADDRESS = "127.0.0.1:50051"
"""Where a client looks for the service if nobody says anything else."""

Tls = bool | str | os.PathLike[str] | grpc.ChannelCredentials
"""How to encrypt: see `PolosClient`."""

_ADDRESS = re.compile(r"(unix|dns):\S+|(\[[\w:.%]+\]|[^\s:/\[\]]+):(?P<port>\d{1,5})")
_PORTS = 65536
_URL_PORTS = {"http": 80, "https": 443}
_SWITCHES = {"1": True, "true": True, "0": False, "false": False}
_API_KEY = re.compile(r"[!-~]+")
_BEGIN = b"-----BEGIN CERTIFICATE-----"


@dataclass(frozen=True, kw_only=True, slots=True)
class Target:
    """A service, and how to call it.

    Attributes:
        address: as grpc takes it: `host:port`, `unix:path` or `dns:///host:port`.
        credentials: for TLS; None: plaintext.
        api_key: sent with each call; None: none is sent.

    """

    address: str
    credentials: grpc.ChannelCredentials | None = None
    api_key: str | None = field(default=None, repr=False)


def find_target(
    address: str | None, *, api_url: str | None, tls: Tls | None, api_key: str | None
) -> Target:
    """Return the service that the arguments name; what they leave out the environment says.

    Raises:
        DefinitionError: a value cannot be used, or two contradict each other; or the key would
            travel in plaintext beyond this machine.

    """
    if address and api_url:
        raise DefinitionError("address and api_url were given; they mean the same, so pass one")
    environ = os.environ
    named = address or api_url or environ.get("POLOS_ADDRESS") or environ.get("POLOS_API_URL")
    scheme, place = _split(named or DEFAULT_ADDRESS)
    wanted = _tls_of_environment() if tls is None else tls
    if wanted is not None and scheme and (scheme == "https") is (wanted is False):
        raise DefinitionError(
            f"{named} says {'TLS' if scheme == 'https' else 'plaintext'}, and tls (or POLOS_TLS) "
            "says the opposite"
        )
    credentials = _credentials(scheme == "https" if wanted is None else wanted)
    key = api_key or environ.get("POLOS_API_KEY") or None
    if key is not None:
        _check_key(key, place, encrypted=credentials is not None)
    return Target(address=place, credentials=credentials, api_key=key)


def _split(named: str) -> tuple[str, str]:
    """Return the scheme of a URL, or none, and the address."""
    if str(named).startswith(("http://", "https://")):
        return _split_url(str(named))
    found = _ADDRESS.fullmatch(str(named))
    if found is None or int(found["port"] or 0) >= _PORTS:
        raise DefinitionError(
            f"the address {named!r} must be HOST:PORT, or a URL like https://HOST:PORT"
        )
    return "", found[0]


def _split_url(named: str) -> tuple[str, str]:
    try:
        url = urlsplit(named)
        port = _URL_PORTS[url.scheme] if url.port is None else url.port
    except ValueError as error:
        raise DefinitionError(f"the URL {named!r} cannot be used: {error}") from None
    if "@" in url.netloc:  # not shown: it may hold a password
        raise DefinitionError("the URL has a user or a password; pass api_key instead")
    if not url.hostname or url.path not in ("", "/") or url.query or url.fragment:
        raise DefinitionError(f"the URL {named!r} must be like https://HOST:PORT, without a path")
    host = f"[{url.hostname}]" if ":" in url.hostname else url.hostname
    return url.scheme, f"{host}:{port}"


def _tls_of_environment() -> Tls | None:
    said = os.environ.get("POLOS_TLS")
    return _SWITCHES.get(said.lower(), said) if said else None


def _credentials(tls: Tls) -> grpc.ChannelCredentials | None:
    if isinstance(tls, grpc.ChannelCredentials):
        return tls
    if tls is False:
        return None
    path = ssl.get_default_verify_paths().cafile if tls is True else tls
    return grpc.ssl_channel_credentials(_certificates(path) if path else None)


def _certificates(path: str | os.PathLike[str]) -> bytes:
    try:
        found = Path(path).expanduser().read_bytes()
    except (OSError, ValueError) as error:
        raise DefinitionError(f"the certificates for TLS cannot be read: {error}") from None
    if _BEGIN not in found:
        raise DefinitionError(f"the file {os.fspath(path)!r} has no certificate in the PEM format")
    return found


def _check_key(key: object, place: str, *, encrypted: bool) -> None:
    if not (isinstance(key, str) and _API_KEY.fullmatch(key)):
        raise DefinitionError("the API key must be printable ASCII text without spaces")
    if not (encrypted or _is_local(place)):
        raise DefinitionError(
            f"the API key would travel to {place} in plaintext; use https:// or pass tls=True"
        )


def _is_local(place: str) -> bool:
    """Return whether the address is on this machine."""
    if place.startswith("unix:"):
        return True
    host = place.removeprefix("dns:").rpartition("/")[2].rpartition(":")[0].strip("[]")
    try:
        return host == "localhost" or ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False
