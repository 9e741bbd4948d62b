"""The version in pyproject.toml and those in the changelog go together."""

from __future__ import annotations

import re
import tomllib
from pathlib import Path

from packaging.version import Version

ROOT = Path(__file__).resolve().parents[2]


def test_the_version_is_the_newest_of_the_changelog_or_in_development_after_it() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    changelog = (ROOT / "CHANGELOG.md").read_text()
    released = [Version(one) for one in re.findall(r"^## \[(\d\S*)\]", changelog, re.MULTILINE)]
    assert released == sorted(released, reverse=True)
    version = Version(project["version"])
    assert version == released[0] or (version.is_devrelease and version > released[0])
