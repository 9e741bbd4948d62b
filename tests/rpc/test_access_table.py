"""Every method with every kind of credentials: docs/security.md has what comes out."""

from __future__ import annotations

from pathlib import Path

import pytest

from polos_service.access import signing
from scripts.docs_access import CERTIFICATES, TOKENS, with_access_tables
from tests.support.access_scene import playing
from tests.support.issuer import Issuer

SECURITY = Path(__file__).parents[2] / "docs" / "security.md"


@pytest.fixture(autouse=True)
def immediately(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let revoked run tokens be refused at once."""
    monkeypatch.setattr(signing, "HEARD", 0.0)


async def test_every_method_answers_to_every_kind_of_token_as_documented(tmp_path: Path) -> None:
    async with Issuer() as issuer, playing(tmp_path, issuer, mutual=False) as scene:
        await scene.compare(TOKENS)


async def test_every_method_answers_to_every_kind_of_certificate_as_documented(
    tmp_path: Path,
) -> None:
    """A key or a JWT counts before the certificate with which it is sent."""
    others = ("malformed", "other scope", "other project", "run token", "right", "JWT: right")
    async with Issuer() as issuer, playing(tmp_path, issuer, mutual=True) as scene:
        await scene.compare((*CERTIFICATES, *others))


def test_the_tables_in_the_documentation_are_those_of_today() -> None:
    page = SECURITY.read_text()
    assert page == with_access_tables(page), "run `make docs`"
