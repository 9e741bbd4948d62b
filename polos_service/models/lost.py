"""Why no answer came: what the packages below raise, as the end of a sentence."""

from __future__ import annotations

import re
import ssl
from http import HTTPStatus

import aiohttp
from aiohttp.http import HttpProcessingError

CONNECT_SECONDS = 10.0
"""Bound on making a connection; a provider that is up takes well below one second."""


class LostError(Exception):
    """The connection could not be made, or failed.

    Attributes:
        what: what happened, as the end of a sentence; may quote the provider.
        retryable: whether it may not happen the next time.
        malformed: whether what came is not valid HTTP.

    """

    def __init__(self, what: str, *, retryable: bool = True, malformed: bool = False) -> None:
        super().__init__(what)
        self.what = what
        self.retryable = retryable
        self.malformed = malformed


SIMPLE = (
    (aiohttp.ClientConnectorDNSError, "the name of the host cannot be resolved"),
    (TimeoutError, f"no connection was made within {CONNECT_SECONDS:g} s"),
    (aiohttp.ServerDisconnectedError, "the connection was closed without an answer"),
    (ConnectionRefusedError, "the connection was refused"),
    (ConnectionResetError, "the connection was reset"),
)
"""What happened, by the class of the error."""

FLEETING = (ssl.SSLEOFError, ssl.SSLZeroReturnError)
"""Failures of TLS that are those of the connection below it."""

PLAINTEXT = ("WRONG_VERSION_NUMBER", "RECORD_LAYER_FAILURE")
"""What OpenSSL says of a server that does not speak TLS."""

_QUOTE = re.compile(r"\n|: b['\"]")
"""Where the message of the parser begins to quote what came."""


def lost_by(error: BaseException, proxy: str = "") -> LostError:
    """Return what an error of aiohttp, or of what it stands on, comes to.

    Args:
        error: any; what can be wrong with a header or a host is no closed list.
        proxy: HOST:PORT of the proxy that is used; empty if there is none.

    """
    match error:
        case ssl.SSLError() | aiohttp.ClientSSLError():
            return _tls(error)
        case aiohttp.ClientProxyConnectionError():
            return LostError(f"the proxy {proxy} cannot be reached ({_simple(error)})")
        case aiohttp.ClientHttpProxyError():
            fails = error.status >= HTTPStatus.INTERNAL_SERVER_ERROR
            return LostError(f"the proxy {proxy} answered HTTP {error.status}", retryable=fails)
        case aiohttp.ClientResponseError() | HttpProcessingError():
            # The parser says what is wrong, and quotes what came.
            return LostError(_QUOTE.split(error.message)[0].rstrip(" :"), malformed=True)
        case aiohttp.ClientError() | OSError():
            return LostError(_simple(error))
    return LostError(f"the request cannot be sent ({type(error).__name__})", retryable=False)


def _simple(error: BaseException) -> str:
    cause = error.os_error if isinstance(error, aiohttp.ClientConnectorError) else error.__cause__
    found = (what for kind, what in SIMPLE if isinstance(error, kind) or isinstance(cause, kind))
    return next(found, "the connection failed")


def _tls(error: BaseException) -> LostError:
    """Return what a failure of TLS comes to: most will be the same the next time."""
    cause: BaseException = error
    if isinstance(error, aiohttp.ClientConnectorCertificateError):
        cause = error.certificate_error
    elif isinstance(error, aiohttp.ClientConnectorError):
        cause = error.os_error
    if isinstance(cause, ssl.SSLCertVerificationError):
        why = cause.verify_message
        return LostError(f"its TLS certificate is not accepted ({why})", retryable=False)
    if isinstance(cause, FLEETING):
        return LostError("the connection was closed in the TLS handshake")
    why = getattr(cause, "reason", None) or type(cause).__name__
    hint = "; the base URL may need http:// instead of https://" if why in PLAINTEXT else ""
    return LostError(f"the TLS handshake failed ({why}){hint}", retryable=False)
