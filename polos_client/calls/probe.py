"""What keeps a client from a service: found out by a connection of its own, after grpc failed.

grpc tells little: a client certificate that the service demands, and TLS where plaintext was
expected, both look like "Socket closed".
"""

from __future__ import annotations

import base64
import os
import socket
import ssl
from dataclasses import dataclass
from urllib.parse import unquote, urlsplit

from polos_client.calls.certificates import Certificates
from polos_client.calls.place import Place
from polos_client.calls.proxies import Proxy
from polos_client.calls.status import START

TIMEOUT = 1.0
"""Seconds that each step of a probe may take: a connection, a handshake, a first answer."""

_PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + bytes([0, 0, 0, 4, 0, 0, 0, 0, 0])
"""How a client of HTTP/2 begins: RFC 9113, section 3.4, with empty settings."""

_HEAD_LIMIT = 16 * 1024
"""Bytes of a proxy's answer that are read at most."""

_NOT_TLS = {"WRONG_VERSION_NUMBER", "HTTP_REQUEST", "UNKNOWN_PROTOCOL", "RECORD_LAYER_FAILURE"}
"""What OpenSSL says of a peer that answers a handshake with something else."""

_OWN_ALERTS = {"access denied", "handshake failure", "unknown ca"}
"""Alerts that are about a client's certificate though they do not name it."""

PLAIN = (
    "does it speak TLS? `polos serve` alone is plaintext: name it HOST:PORT or http://HOST:PORT, "
    "without tls"
)
"""What to do where a service does not speak TLS."""

_TRUST = "pass tls=PATH (--tls-ca, POLOS_TLS) with a certificate that is trusted here"
"""What to do where the authority of a service's certificate is unknown."""

_MATCH = "name the service as its certificate does"
"""What to do where a service's certificate is for another name."""

_RENEW = "the service needs a certificate that is valid today"
"""What to do where a service's certificate has ended."""

_OWN = "pass client_cert and client_key (--client-cert, POLOS_CLIENT_CERT)"
"""What to do where a client's certificate is missing or refused."""

_NAME = "check the name, or set POLOS_ADDRESS"
"""What to do where a name cannot be resolved."""

_VERIFICATION = {
    9: ("it is not valid yet", "check the clocks"),
    10: ("it has expired", _RENEW),
    18: ("an unknown CA: it is self-signed", _TRUST),
    19: ("an unknown CA has signed it", _TRUST),
    20: ("an unknown CA has signed it", _TRUST),
    21: ("an unknown CA has signed it", _TRUST),
    23: ("it is revoked", _RENEW),
    62: ("it is for another name", _MATCH),
    64: ("it is for another IP address", _MATCH),
}
"""What is wrong with a certificate, by OpenSSL's code (`x509_vfy.h`), and what to do."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Fault:
    """What keeps a client from a service.

    Attributes:
        what: as a part of a sentence.
        advice: what to do.
        final: whether it is the configuration: no later attempt helps.
        inferred: whether that is only inferred, from a connection that was closed.
        unnamed: whether a name cannot be resolved.

    """

    what: str
    advice: str
    final: bool = False
    inferred: bool = False
    unnamed: bool = False


class _FaultError(Exception):
    def __init__(self, what: str, advice: str = START, **signs: bool) -> None:
        super().__init__(what)
        self.fault = Fault(what=what, advice=advice, **signs)


def find_fault(
    place: Place, certificates: Certificates | None, proxy: Proxy | None, *, encrypted: bool
) -> Fault | None:
    """Return what keeps a client from a place; None: nothing that could be found.

    Blocks for some times `TIMEOUT`, and for as long as a name takes.

    Args:
        place: where the service should be.
        certificates: what the client trusts and shows; None: unknown.
        proxy: what it goes through.
        encrypted: whether it speaks TLS.

    """
    try:
        with _connect(place, proxy) as link:
            link.settimeout(TIMEOUT)
            if proxy is not None:
                _tunnel(link, place, proxy)
            if not encrypted:
                _check_plaintext(link)
            elif certificates is not None:
                _check_tls(link, certificates, place.host or "localhost")
    except _FaultError as found:
        return found.fault
    except socket.gaierror as error:
        name = place.host if proxy is None else proxy.host
        what = f"the name {name!r} cannot be resolved (DNS): {error.strerror}"
        return Fault(what=what, advice=_NAME if proxy is None else _through(proxy), unnamed=True)
    except (OSError, ValueError) as error:
        what = "no answer" if isinstance(error, TimeoutError) else _told(error)
        if proxy is None:
            return Fault(what=what, advice=START)
        return Fault(what=f"the proxy: {what}", advice=_through(proxy))
    return None


def _told(error: OSError | ValueError) -> str:
    return str(getattr(error, "strerror", None) or error).lower()


def _connect(place: Place, proxy: Proxy | None) -> socket.socket:
    if place.path is not None:
        link = socket.socket(socket.AF_UNIX)
        link.settimeout(TIMEOUT)
        try:
            link.connect(place.path)
        except BaseException:
            link.close()
            raise
        return link
    where = (place.host, place.port) if proxy is None else (proxy.host, proxy.port)
    return socket.create_connection(where, TIMEOUT)


def _tunnel(link: socket.socket, place: Place, proxy: Proxy) -> None:
    """Ask the proxy for the way to the place, as grpc does."""
    host = f"[{place.host}]" if ":" in str(place.host) else place.host
    link.sendall(
        f"CONNECT {host}:{place.port} HTTP/1.0\r\nHost: {host}:{place.port}\r\n"
        f"{_proxy_authorization(proxy)}\r\n".encode()
    )
    head = b""
    while b"\r\n\r\n" not in head and len(head) < _HEAD_LIMIT and (more := link.recv(4096)):
        head += more
    status = head.split(b"\r\n", 1)[0].decode("ascii", "replace").split(" ", 1)
    if not status[0].startswith("HTTP/"):
        raise _FaultError("the proxy does not answer as an HTTP proxy does", _through(proxy))
    if not status[-1].startswith("2"):
        said = "".join(letter for letter in status[-1][:80] if letter.isprintable())
        final = status[-1].startswith("4")  # 5: what is behind the proxy may come back
        raise _FaultError(f"the proxy refuses the connection: {said}", _through(proxy), final=final)


def _through(proxy: Proxy) -> str:
    return f"check {proxy.variable}, or name the host in no_proxy"


def _proxy_authorization(proxy: Proxy) -> str:
    url = urlsplit(os.environ.get(proxy.variable, ""))
    user, at, _ = url.netloc.rpartition("@")
    if not at:
        return ""
    return f"Proxy-Authorization: Basic {base64.b64encode(unquote(user).encode()).decode()}\r\n"


def _check_plaintext(link: socket.socket) -> None:
    """Find out whether the peer speaks TLS."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    context.set_alpn_protocols(["h2"])
    try:
        context.wrap_socket(link).close()
    except ssl.SSLError as error:
        if "ALERT" not in str(error.reason):
            return
    except OSError:
        return
    raise _FaultError(
        "the service speaks TLS, and the call was in plaintext",
        "name it https://HOST:PORT, or pass tls (--tls, --tls-ca, POLOS_TLS)",
        final=True,
    )


def _check_tls(link: socket.socket, certificates: Certificates, host: str) -> None:
    """Begin as grpc does, and raise what is wrong."""
    context = certificates.context()
    context.set_alpn_protocols(["h2"])
    asked = _note_request(context)
    try:
        with context.wrap_socket(link, server_hostname=host) as encrypted:
            if encrypted.selected_alpn_protocol() != "h2":
                raise _FaultError("the server speaks TLS, but not HTTP/2 (ALPN h2)", final=True)
            encrypted.sendall(_PREFACE)
            if not encrypted.recv(1):  # a service sends its settings at once
                raise _closed(certificates, asked=bool(asked))
    except ssl.SSLCertVerificationError as error:
        reason, advice = _VERIFICATION.get(error.verify_code, ("it is not valid", _RENEW))
        what = f"the service's certificate is refused: {reason} ({error.verify_message})"
        raise _FaultError(what, advice, final=True) from None
    except (ssl.SSLEOFError, ConnectionError):
        raise _closed(certificates, asked=bool(asked)) from None
    except ssl.SSLError as error:
        raise _of_tls(str(error.reason), certificates) from None


def _note_request(context: ssl.SSLContext) -> list[object]:
    """Return a list that is not empty once the peer has asked for a certificate."""
    asked: list[object] = []

    def note(
        _link: object,
        direction: str,
        _version: object,
        _kind: object,
        message: object,
        _data: bytes,
    ) -> None:
        if direction == "read" and getattr(message, "name", "") == "CERTIFICATE_REQUEST":
            asked.append(message)

    # grpc's own server closes without an alert: nothing else tells why.
    context._msg_callback = note  # type: ignore[attr-defined] # noqa: SLF001
    return asked


def _closed(certificates: Certificates, *, asked: bool) -> _FaultError:
    if not asked:
        return _FaultError("the connection was closed in or after the TLS handshake")
    return _of_own(certificates, "the service closed the connection", inferred=True)


def _of_own(certificates: Certificates, said: str, **signs: bool) -> _FaultError:
    if certificates.cert is None:
        what = "the service requires a client certificate, and none was given"
    else:
        reason = certificates.find_own_fault() or said
        what = f"the service refuses the client certificate {str(certificates.cert)!r}: {reason}"
    return _FaultError(what, _OWN, final=True, **signs)


def _of_tls(reason: str, certificates: Certificates) -> _FaultError:
    if reason in _NOT_TLS:
        return _FaultError("the server does not speak TLS", PLAIN, final=True)
    alert = reason.partition("ALERT_")[2].lower().replace("_", " ")
    if "certificate" in alert or alert in _OWN_ALERTS:
        return _of_own(certificates, alert)
    return _FaultError(f"the TLS handshake failed: {alert or reason}", PLAIN, final=bool(alert))
