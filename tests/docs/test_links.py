"""Every link of the documentation to a file of this repository leads somewhere."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from tests.docs.pages import ROOT

NAMES = ("bench", "docs", "docs/adr", "docs/guides", "docs/reference", "examples", "examples/*")
FOLDERS = [ROOT, *(ROOT / name for name in NAMES)]
PAGES = sorted(page for folder in FOLDERS for page in folder.glob("*.md"))
LINK = re.compile(r"\[[^\]]*\]\(([^)\s]+)\)")
CODE = re.compile(r"^```.*?^```$", re.MULTILINE | re.DOTALL)


def links(page: Path) -> list[str]:
    """Return what a page links to, but for other sites."""
    found = LINK.findall(CODE.sub("", page.read_text()))
    return [link for link in found if not re.match(r"\w+:", link)]


def anchors(page: Path) -> set[str]:
    """Return the anchors of a page's headings, as GitHub makes them."""
    titles = re.findall(r"^#+ (.+)$", CODE.sub("", page.read_text()), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", title.lower()).replace(" ", "-") for title in titles}


def broken(page: Path, link: str) -> str | None:
    """Return what is wrong with a link; None if nothing is."""
    path, _, anchor = link.partition("#")
    target = (page.parent / path).resolve() if path else page
    if not target.is_relative_to(ROOT) or not target.exists():
        return f"{link}: there is no such file"
    if anchor and anchor not in anchors(target):
        return f"{link}: the page has no such heading"
    return None


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_links_lead_somewhere(page: Path) -> None:
    assert [wrong for link in links(page) if (wrong := broken(page, link))] == []


def test_broken_links_are_found(tmp_path: Path) -> None:
    readme = ROOT / "README.md"
    assert broken(readme, "docs/concepts.md#run") is None
    assert broken(readme, "docs/nothing.md") == "docs/nothing.md: there is no such file"
    assert (
        broken(readme, "docs/concepts.md#no") == "docs/concepts.md#no: the page has no such heading"
    )


def test_pages_of_the_documentation_are_reached_from_the_readme() -> None:
    reached, waiting = set(), [ROOT / "README.md"]
    while waiting:
        page = waiting.pop()
        if page not in PAGES or page in reached:
            continue
        reached.add(page)
        waiting += [(page.parent / link.partition("#")[0]).resolve() for link in links(page)]
    assert {page for page in PAGES if "adr" not in page.parts} - reached == set()
