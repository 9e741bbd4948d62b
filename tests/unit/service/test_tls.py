"""The files of TLS: what cannot be used is told in a sentence, and never replaces what can."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import pytest
import trustme
from cryptography.hazmat.primitives.asymmetric import ed25519
from cryptography.hazmat.primitives.serialization import (
    BestAvailableEncryption,
    Encoding,
    NoEncryption,
    PrivateFormat,
    load_pem_private_key,
)
from structlog.testing import capture_logs

from polos_service import tls
from polos_service.tls import SIZE_LIMIT, Pem, TlsError, TlsFiles
from tests.support.tls import HOST, PAST, Files, chain_of

REFUSED = "tls_files_cannot_be_used"


@pytest.fixture
def files(tmp_path: Path) -> Files:
    return Files(tmp_path)


def read(files: Files) -> Pem:
    return TlsFiles(files.cert, files.key, files.client_ca).read()


def test_whole_files_are_given_as_they_are(files: Files) -> None:
    pem = read(files)
    assert pem.chain == files.cert.read_bytes()
    assert pem.key == files.key.read_bytes()
    assert pem.client_ca == files.client_ca.read_bytes()
    assert TlsFiles(files.cert, files.key, None).read().client_ca is None


def test_key_and_certificate_may_be_in_one_file(files: Files) -> None:
    files.cert.write_bytes(files.key.read_bytes() + files.cert.read_bytes())
    assert TlsFiles(files.cert, files.cert, None).read().key == files.cert.read_bytes()


@pytest.mark.parametrize("key_type", list(trustme.KeyType))
def test_keys_that_all_clients_take_are_used(files: Files, key_type: trustme.KeyType) -> None:
    files.write(files.authority.issue_cert(HOST, key_type=key_type))
    assert read(files).key == files.key.read_bytes()


def swap(files: Files) -> None:
    chain, key = files.cert.read_bytes(), files.key.read_bytes()
    files.cert.write_bytes(key)
    files.key.write_bytes(chain)


def encrypt(files: Files, form: PrivateFormat) -> None:
    key = load_pem_private_key(files.key.read_bytes(), None)
    files.key.write_bytes(key.private_bytes(Encoding.PEM, form, BestAvailableEncryption(b"pw")))


def exotic(files: Files) -> None:
    key = ed25519.Ed25519PrivateKey.generate()
    files.key.write_bytes(key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()))


def pipe(path: Path) -> None:
    path.unlink()
    os.mkfifo(path)


def folder(path: Path) -> None:
    path.unlink()
    path.mkdir()


def truncate(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:200])


@pytest.mark.parametrize(
    ("damage", "words"),
    [
        (lambda files: files.cert.unlink(), "service.pem cannot be read: No such file"),
        (lambda files: files.key.unlink(), "service.key cannot be read: No such file"),
        (lambda files: files.client_ca.unlink(), "clients.pem cannot be read: No such file"),
        (lambda files: files.cert.write_bytes(b""), "service.pem is empty"),
        (lambda files: files.key.write_bytes(b"\n"), "service.key is empty"),
        (lambda files: files.client_ca.write_bytes(b""), "clients.pem is empty"),
        (lambda files: folder(files.cert), "service.pem cannot be read: Is a directory"),
        (lambda files: pipe(files.key), "service.key is not a regular file"),
        (lambda files: truncate(files.cert), "service.pem cannot be read: it is damaged"),
        (lambda files: truncate(files.key), "service.key cannot be read: it is damaged"),
        (lambda files: truncate(files.client_ca), "clients.pem cannot be read: it is damaged"),
        (lambda files: files.cert.write_bytes(b"\xff\0"), "service.pem has no certificate"),
        (lambda files: files.key.write_bytes(b"\xff\0"), "service.key has no private key"),
        (lambda files: files.key.write_bytes(b"x" * (SIZE_LIMIT + 1)), "it is not a PEM file"),
        (swap, "service.pem has no certificate in the PEM format. It holds a private key"),
        (
            lambda files: files.key.write_bytes(files.cert.read_bytes()),
            "service.key has no private key in the PEM format. It holds a certificate",
        ),
        (lambda files: encrypt(files, PrivateFormat.PKCS8), "protected by a password"),
        (lambda files: encrypt(files, PrivateFormat.TraditionalOpenSSL), "protected by a password"),
        (
            lambda files: files.cert.write_bytes(chain_of(files.authority.issue_cert(HOST))),
            "does not belong to the first certificate",
        ),
        (exotic, "use RSA, P-256 or P-384"),
    ],
)
def test_what_cannot_be_used_is_told_by_its_path(
    files: Files, damage: Callable[[Files], None], words: str
) -> None:
    secret = files.key.read_text().splitlines()[1]
    damage(files)
    with pytest.raises(TlsError) as caught:
        read(files)
    assert words in str(caught.value)
    assert secret not in str(caught.value)


def test_an_authority_before_the_certificate_is_told_as_the_wrong_order(files: Files) -> None:
    files.cert.write_bytes(files.authority.cert_pem.bytes() + files.cert.read_bytes())
    with pytest.raises(TlsError, match="own certificate comes first"):
        read(files)


def test_an_expired_certificate_is_used_with_a_warning(files: Files) -> None:
    files.write(files.authority.issue_cert(HOST, not_after=PAST))
    with capture_logs() as logs:
        assert read(files).chain == files.cert.read_bytes()
    assert [one["event"] for one in logs] == ["tls_certificate_is_not_valid_now"]


class Watched:
    """Files that were read, and what is told of their changes."""

    def __init__(self, files: Files) -> None:
        self._tls = TlsFiles(files.cert, files.key, files.client_ca)
        self._tls.read()

    def look(self) -> tuple[Pem | None, list[str]]:
        """Return what a handshake finds, and which of the events it logs."""
        with capture_logs() as logs:
            pem = self._tls.changed()
        return pem, [one["event"] for one in logs]


def test_files_that_stay_or_are_written_again_have_not_changed(files: Files) -> None:
    watched = Watched(files)
    assert watched.look() == (None, [])
    files.cert.write_bytes(files.cert.read_bytes())
    os.utime(files.key)
    assert watched.look() == (None, [])


@pytest.mark.parametrize(
    "damage",
    [
        lambda files: files.cert.unlink(),
        lambda files: files.key.write_bytes(b""),
        lambda files: truncate(files.client_ca),
        lambda files: pipe(files.key),
        lambda files: folder(files.cert),
        swap,
        lambda files: files.cert.write_bytes(chain_of(files.authority.issue_cert(HOST))),
    ],
)
def test_what_cannot_be_used_is_logged_once_and_replaced_by_what_can(
    files: Files, damage: Callable[[Files], None]
) -> None:
    watched = Watched(files)
    damage(files)
    assert watched.look() == (None, [REFUSED])
    assert watched.look() == (None, [])
    for path in (files.cert, files.key):
        if path.exists() and not path.is_file():
            (path.rmdir if path.is_dir() else path.unlink)()
    files.client_ca.write_bytes(files.clients.cert_pem.bytes())
    new = files.authority.issue_cert(HOST)
    files.write(new)
    pem, told = watched.look()
    assert pem is not None
    assert pem.chain == chain_of(new)
    assert told == ["tls_files_loaded"]
    assert watched.look() == (None, [])


def test_sessions_of_clients_with_certificates_end(
    files: Files, monkeypatch: pytest.MonkeyPatch
) -> None:
    with_clients, without = Watched(files), TlsFiles(files.cert, files.key, None)
    pem = without.read()
    monkeypatch.setattr(tls, "RESUMABLE", 0.0)
    assert without.changed() is None
    assert with_clients.look()[0] is not None
    files.cert.unlink()
    kept, told = with_clients.look()
    assert kept is not None
    assert (kept.chain, told) == (pem.chain, [REFUSED])


def test_each_change_to_what_cannot_be_used_is_logged(files: Files) -> None:
    watched = Watched(files)
    for damage in (b"a", b"b", b"a"):
        files.key.write_bytes(damage)
        assert watched.look() == (None, [REFUSED])
        assert watched.look() == (None, [])


def test_a_folder_that_is_swapped_by_a_symbolic_link_is_noticed(tmp_path: Path) -> None:
    """Kubernetes mounts a secret so: files are links into a folder, itself a link."""
    first, second = tmp_path / "..1", tmp_path / "..2"
    first.mkdir()
    second.mkdir()
    old, new = Files(first), Files(second)
    data = tmp_path / "..data"
    data.symlink_to(first.name)
    for name in ("service.pem", "service.key", "clients.pem"):
        (tmp_path / name).symlink_to(f"..data/{name}")
    watched = TlsFiles(*(tmp_path / name for name in ("service.pem", "service.key", "clients.pem")))
    assert watched.read().chain == old.cert.read_bytes()
    (tmp_path / "..data_tmp").symlink_to(second.name)
    (tmp_path / "..data_tmp").rename(data)
    changed = watched.changed()
    assert changed is not None
    assert changed.chain == new.cert.read_bytes()
    assert watched.changed() is None
