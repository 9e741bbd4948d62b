"""Sphinx: the documentation as a site, without warnings and with the whole Python API."""

from __future__ import annotations

import asyncio
import re
import sys
from pathlib import Path

import polos

ROOT = Path(__file__).resolve().parents[2]


async def test_site_is_built_without_a_warning_and_its_links_lead_somewhere(tmp_path: Path) -> None:
    building = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "scripts.site", tmp_path / "site"),
        cwd=ROOT,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.STDOUT,
    )
    said, _ = await building.communicate()
    assert building.returncode == 0, said.decode()
    api = (tmp_path / "site/docs/reference/python.html").read_text()
    told = set(re.findall(r'id="(?:module-)?polos\.(\w+)', api))
    assert set(polos.__all__) - told == set()
    assert "polos.events.stream_workflow" in api
    assert [link for page in (tmp_path / "site").rglob("*.html") for link in broken(page)] == []


def broken(page: Path) -> list[str]:
    """Return the links of a page to files of the site that do not exist."""
    links = re.findall(r'(?:href|src)="(?!\w+:)([^"#?]+)', page.read_text())
    return [f"{page}: {link}" for link in links if not (page.parent / link).exists()]
