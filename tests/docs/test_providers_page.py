"""The page on providers lists those that there are, and names tests that exist."""

from __future__ import annotations

import re

from polos_service.models.built_in import BUILT_IN
from polos_service.models.configured import ProviderConfig
from polos_service.models.preset import Preset
from polos_service.models.remote import Remote
from tests.docs.pages import ROOT

PAGE = (ROOT / "docs" / "providers.md").read_text()


def rows_of(head: str) -> list[str]:
    """Return the rows of every table with this head."""
    columns = head.count("|") - 1
    parts = PAGE.split(f"{head}\n|{'---|' * columns}\n")[1:]
    return [row for part in parts for row in part.split("\n\n")[0].splitlines()]


def presets() -> list[Preset]:
    """Return what is known of each provider over HTTP."""
    made = [factory(ProviderConfig()) for factory in BUILT_IN.values()]
    return [one._preset for one in made if isinstance(one, Remote)]


def test_the_table_of_providers_is_that_of_the_service() -> None:
    rows = [row.strip("|").split("|") for row in rows_of("| provider | serves | APIs | key |")]
    listed = {row[0].strip(): [cell.strip() for cell in row[2:]] for row in rows}
    expected = {
        f"`{one.name}`": [
            ", ".join(f"`{api}`" for api in one.apis),
            f"`{one.key_variable}`" + ("" if one.needs_key else ", optional"),
        ]
        for one in presets()
    }
    assert listed == expected | {"`scripted`": ["", "none"]}


def test_every_row_of_quirks_names_tests_that_exist() -> None:
    tests = "".join(path.read_text() for path in (ROOT / "tests").rglob("test_*.py"))
    there = set(re.findall(r"^(?:async )?def (test_\w+)", tests, re.MULTILINE))
    rows = rows_of("| what providers send | what Polos does | test |")
    assert len(rows) > 40
    named = [re.findall(r"`(test_\w+)`", row.rpartition(" | ")[2]) for row in rows]
    assert [row for row, names in zip(rows, named, strict=True) if not names] == []
    assert sorted({name for names in named for name in names} - there) == []
