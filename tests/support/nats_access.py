"""Certificates and JWTs for a nats-server, made on the spot."""

from __future__ import annotations

import base64
import hashlib
import json
import os
from pathlib import Path
from typing import Any

import nkeys
import trustme

ANY = -1
"""A limit that is none."""

LIMITS = "subs data payload imports exports conn leaf mem_storage disk_storage streams consumer"
"""The limits of an account; one that is left out is 0."""


def key(prefix: int) -> nkeys.KeyPair:
    """Return a new key pair of a user, an account or an operator."""
    return nkeys.from_seed(nkeys.encode_seed(os.urandom(32), prefix))


def name(pair: nkeys.KeyPair) -> str:
    return bytes(pair.public_key).decode()


def encoded(part: bytes) -> str:
    return base64.urlsafe_b64encode(part).decode().rstrip("=")


def jwt(
    issuer: nkeys.KeyPair,
    subject: nkeys.KeyPair,
    claims: dict[str, Any],
    expires: int | None = None,
) -> str:
    """Return claims about a subject, signed by its issuer."""
    body: dict[str, Any] = {"iat": 1, "iss": name(issuer), "sub": name(subject), "name": "polos"}
    if expires is not None:
        body["exp"] = expires
    body["nats"] = {"version": 2, **claims}
    digest = hashlib.sha256(json.dumps(body).encode()).digest()
    body["jti"] = base64.b32encode(digest).decode().rstrip("=")
    header = {"typ": "JWT", "alg": "ed25519-nkey"}
    signed = ".".join(encoded(json.dumps(part).encode()) for part in (header, body))
    return f"{signed}.{encoded(issuer.sign(signed.encode()))}"


def operated(folder: Path) -> tuple[Path, nkeys.KeyPair]:
    """Write a server's configuration with an operator's account, and return both."""
    operator = key(nkeys.PREFIX_BYTE_OPERATOR)
    account, system = key(nkeys.PREFIX_BYTE_ACCOUNT), key(nkeys.PREFIX_BYTE_ACCOUNT)
    limits = dict.fromkeys(LIMITS.split(), ANY)
    theirs = jwt(operator, account, {"type": "account", "limits": {**limits, "wildcards": True}})
    servers = jwt(operator, system, {"type": "account"})
    config = folder / "nats.conf"
    config.write_text(
        f"operator: {jwt(operator, operator, {'type': 'operator'})}\n"
        f"system_account: {name(system)}\nresolver: MEMORY\n"
        f"resolver_preload: {{ {name(account)}: {theirs}, {name(system)}: {servers} }}\n"
    )
    return config, account


def credentials(file: Path, account: nkeys.KeyPair, expires: int | None = None) -> Path:
    """Write the credentials of a new user, good until a time in seconds since the epoch."""
    user = key(nkeys.PREFIX_BYTE_USER)
    claims = {"type": "user", "subs": ANY, "data": ANY, "payload": ANY}
    file.write_text(
        f"-----BEGIN NATS USER JWT-----\n{jwt(account, user, claims, expires)}\n"
        "------END NATS USER JWT------\n\n"
        f"-----BEGIN USER NKEY SEED-----\n{bytes(user.seed).decode()}\n"
        "------END USER NKEY SEED------\n"
    )
    return file


def certified(folder: Path) -> tuple[Path, Path, Path]:
    """Make an authority, and a certificate for 127.0.0.1 that it signed, with its key."""
    paths = [folder / name for name in ("ca.pem", "crt.pem", "key.pem")]
    authority = trustme.CA()
    issued = authority.issue_cert("127.0.0.1")
    blobs = (authority.cert_pem, issued.cert_chain_pems[0], issued.private_key_pem)
    for path, blob in zip(paths, blobs, strict=True):
        blob.write_to_path(path)
    return paths[0], paths[1], paths[2]
