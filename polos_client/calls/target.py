"""Where a service is, whether the way there is encrypted, and with which key to call it."""

from __future__ import annotations

import os
import re
import ssl
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from urllib.parse import urlsplit

import grpc

from polos_client.calls.certificates import Certificates, path_of
from polos_client.calls.credential import ApiKey, checked_key
from polos_client.calls.place import Place
from polos_client.errors import DefinitionError

DEFAULT_ADDRESS = "127.0.0.1:50051"
"""Where a client looks for the service if nobody says anything else."""

Tls = bool | str | os.PathLike[str] | grpc.ChannelCredentials
"""How to encrypt: see `PolosClient`."""

FilePath = str | os.PathLike[str]
"""The path of a file; a leading `~` is the user's home."""

_ADDRESS = re.compile(r"(unix|dns):\S+|(\[[\w:.%]+\]|[^\s:/\[\]]+):(?P<port>\d{1,5})")
"""An address that is not a URL; `port` is None where grpc finds it itself."""

_PORTS = 65536
"""How many ports there are."""

_URL_PORTS = {"http": 80, "https": 443}
"""The port of a URL that names none, by scheme."""

_SWITCHES = {"1": True, "true": True, "0": False, "false": False}
"""What POLOS_TLS may say in lower case; all else is a path."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Target:
    """A service, and how to call it.

    Attributes:
        address: as grpc takes it: `host:port`, `unix:path` or `dns:///host:port`.
        credentials: for TLS; None: plaintext.
        api_key: sent with each call, or a function that returns it; None: none is sent.

    """

    address: str
    credentials: Certificates | grpc.ChannelCredentials | None = None
    api_key: ApiKey | None = field(default=None, repr=False)


def find_target(
    address: str | None,
    *,
    api_url: str | None = None,
    tls: Tls | None = None,
    client_cert: FilePath | None = None,
    client_key: FilePath | None = None,
    api_key: ApiKey | None = None,
) -> Target:
    """Return the service that the arguments name; the environment says what they leave out.

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
    if scheme and wanted is not None and (scheme == "https") is not (wanted is not False):
        raise DefinitionError(
            f"{named} says {'TLS' if scheme == 'https' else 'plaintext'}, and tls (or POLOS_TLS) "
            "says the opposite"
        )
    if wanted is None and scheme:
        wanted = scheme == "https"
    credentials = _credentials(wanted, client_cert, client_key)
    key = api_key or environ.get("POLOS_API_KEY") or _key_of_file()
    if key is not None:
        if not callable(key):
            checked_key(key)
        if credentials is None and not Place.of(place).is_local:
            raise DefinitionError(
                f"the API key would travel to {place} in plaintext; use https:// or pass tls=True"
            )
    return Target(address=place, credentials=credentials, api_key=key)


def key_in_file(file: FilePath) -> Callable[[], str]:
    """Return a function that reads a key from a file, as the file is then.

    Raises:
        DefinitionError: it cannot be read now, or has no key.

    """
    read = partial(_read_key, path_of(file))
    read()
    return read


def _read_key(path: Path) -> str:
    try:
        return checked_key(path.read_text("ascii").strip())
    except (OSError, ValueError) as error:
        told = getattr(error, "strerror", None) or "is not ASCII text"  # not what the file has
        raise DefinitionError(f"the API key in {str(path)!r} cannot be read: {told}") from None


def _key_of_file() -> ApiKey | None:
    file = os.environ.get("POLOS_API_KEY_FILE")
    return key_in_file(file) if file else None


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


def _credentials(
    tls: Tls | None, client_cert: FilePath | None, client_key: FilePath | None
) -> Certificates | grpc.ChannelCredentials | None:
    given = client_cert or client_key
    if given and (tls is False or isinstance(tls, grpc.ChannelCredentials)):
        raise DefinitionError(
            "client_cert and client_key are for TLS with the certificates in files; "
            f"tls, POLOS_TLS or the URL says {'plaintext' if tls is False else 'otherwise'}"
        )
    if tls is False or isinstance(tls, grpc.ChannelCredentials):
        return tls or None
    cert = client_cert or (None if given else os.environ.get("POLOS_CLIENT_CERT"))
    key = client_key or (None if given else os.environ.get("POLOS_CLIENT_KEY"))
    if key and not cert:
        raise DefinitionError("client_key (or POLOS_CLIENT_KEY) was given without client_cert")
    if tls is None and not cert:
        return None
    if tls is None or tls is True:
        tls = ssl.get_default_verify_paths().cafile
    return Certificates(
        ca=path_of(tls) if tls else None,
        cert=path_of(cert) if cert else None,
        key=path_of(key) if key else None,
    )
