"""URLs that an operator or an issuer names, and what may be fetched from them."""

from __future__ import annotations

import ipaddress
from urllib.parse import urlsplit


def address_problem(url: str, *, loopback: bool = True) -> str:
    """Return why nothing may be fetched from a URL; empty if something may.

    Args:
        url: where a document is said to be.
        loopback: whether `http://` is accepted on this machine.

    """
    try:
        parts = urlsplit(url)
        port = parts.port
    except ValueError:
        return "is not a URL"
    if parts.scheme not in ("http", "https") or not parts.hostname or port == 0:
        return "is not an https:// URL"
    if not (url.isascii() and url.isprintable()) or " " in url:
        return "is not an https:// URL"
    if parts.username is not None or parts.fragment:
        return "has a user, a password or a fragment"
    if parts.scheme == "http" and not (loopback and is_loopback(url)):
        return "is not an https:// URL; http:// is accepted on this machine only"
    return ""


def is_loopback(url: str) -> bool:
    """Return whether a URL is one of this machine, as it is written: no name is resolved."""
    host = urlsplit(url).hostname or ""
    try:
        return host == "localhost" or ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False
