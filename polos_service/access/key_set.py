"""The public keys of an issuer: a JWK set (RFC 7517) as what signatures are checked with."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

from cryptography.hazmat.primitives.asymmetric.ec import EllipticCurvePublicKey
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey
from cryptography.hazmat.primitives.asymmetric.rsa import RSAPublicKey
from jwt import PyJWK, PyJWTError

from polos_service.access.fetching import FetchError
from polos_service.access.token_parts import KID_LIMIT

RSA = ("RS256", "RS384", "RS512", "PS256", "PS384", "PS512")
"""The algorithms of RSA keys."""

CURVES = {"P-256": "ES256", "P-384": "ES384", "P-521": "ES512"}
"""The algorithm of each curve: RFC 7518, section 3.4."""

MAX_KEYS = 100
"""Keys of a set at most."""

RSA_BITS = range(2048, 8192 + 1)
"""Sizes of RSA keys: smaller ones are forbidden (RFC 7518, section 3.3), larger ones are slow."""

MODULUS_LETTERS = 1366
"""Letters of base64url that 8192 bits take: a larger number is not even made."""

PublicKey = RSAPublicKey | EllipticCurvePublicKey | Ed25519PublicKey

Keys = Mapping[tuple[str, str], PublicKey]
"""Keys by id and algorithm. The id is empty if a set of one key gives it none."""


def parse_keys(document: bytes, allowed: Sequence[str]) -> Keys:
    """Return the keys of a JWK set that can be used with the allowed algorithms.

    A key that is for something else, or unusable, is left out, as RFC 7517, section 5, asks for.
    It takes up to 20 ms.

    Args:
        document: the set, as JSON.
        allowed: names of asymmetric algorithms.

    Raises:
        FetchError: it is not a JWK set, has more than MAX_KEYS keys, or none that can be used.

    """
    listed = parse_object(document, "the key set").get("keys")
    if not isinstance(listed, list) or len(listed) > MAX_KEYS:
        raise FetchError(f"the key set has no list of at most {MAX_KEYS} keys")
    keys: dict[tuple[str, str], PublicKey] = {}
    for described in listed:
        kid = _kid(described, alone=len(listed) == 1)
        if kid is None:
            continue
        for algorithm, key in _usable(described, allowed).items():
            keys.setdefault((kid, algorithm), key)
    if not keys:
        raise FetchError("the key set has no key that can be used with POLOS_JWT_ALGORITHMS")
    return keys


def parse_object(document: bytes, what: str) -> Mapping[str, Any]:
    """Return a JSON object.

    Raises:
        FetchError: it is not one.

    """
    try:
        value = json.loads(document)
    except (ValueError, RecursionError):
        value = None
    if not isinstance(value, dict):
        raise FetchError(f"{what} is not a JSON object")
    return value


def _kid(described: Any, *, alone: bool) -> str | None:
    """Return a key's id; None if it can be no key that a token names."""
    if not isinstance(described, dict):
        return None
    kid = described.get("kid", "" if alone else None)
    return kid if isinstance(kid, str) and len(kid) <= KID_LIMIT else None


def _usable(described: Mapping[str, Any], allowed: Sequence[str]) -> Mapping[str, PublicKey]:
    """Return the key by the algorithms that it may be used with."""
    match described:
        case {"use": use} if use != "sig":
            return {}
        case {"key_ops": ops} if not isinstance(ops, list) or "verify" not in ops:
            return {}
        case {"kty": "RSA", "n": str(modulus)} if len(modulus) <= MODULUS_LETTERS:
            fitting: Sequence[str] = RSA
        case {"kty": "EC", "crv": str(curve)} if curve in CURVES:
            fitting = (CURVES[curve],)
        case {"kty": "OKP", "crv": "Ed25519"}:
            fitting = ("EdDSA",)
        case _:
            return {}
    named = described.get("alg")
    algorithms = [one for one in fitting if one in allowed and named in (None, one)]
    key = _built(described, algorithms[0]) if algorithms else None
    return {} if key is None else dict.fromkeys(algorithms, key)


def _built(described: Mapping[str, Any], algorithm: str) -> PublicKey | None:
    """Return the key, or None if it is broken, private, or an RSA key of another size."""
    if "d" in described:
        return None
    try:
        key = PyJWK(dict(described), algorithm).key
    except (PyJWTError, ValueError, TypeError, OverflowError):
        return None
    if isinstance(key, RSAPublicKey):
        return key if key.key_size in RSA_BITS else None
    return key if isinstance(key, EllipticCurvePublicKey | Ed25519PublicKey) else None
