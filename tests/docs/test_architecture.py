"""The page for people who change the code names what exists, and leaves no room out."""

from __future__ import annotations

import re

from tests.docs.pages import ROOT

PAGE = (ROOT / "docs/architecture.md").read_text()
NAMED = {name for name in re.findall(r"`([\w/.]+)`", PAGE) if "/" in name or (ROOT / name).is_dir()}
PACKAGES = ("polos_client", "polos_service", "polos_service/store")


def test_every_file_and_folder_that_it_names_exists() -> None:
    assert len(NAMED) > 40
    assert [name for name in sorted(NAMED) if not (ROOT / name).exists()] == []


def test_every_room_of_the_code_is_named() -> None:
    rooms = {
        str(path.parent.relative_to(ROOT))
        for package in PACKAGES
        for path in (ROOT / package).glob("*/__init__.py")
    }
    assert {room for room in rooms if not any(room in name for name in NAMED)} == set()
