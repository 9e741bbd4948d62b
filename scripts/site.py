"""Build the documentation as a site that needs no server.

Run as `python -m scripts.site`, with the target folder if it is a different one.

The pages keep their places: README.md is the first one. Links to files that are not pages become
downloads, and links to folders become text. Any warning of Sphinx ends the build.
"""

from __future__ import annotations

import inspect
import re
import shutil
import sys
import tempfile
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from types import ModuleType

from sphinx.cmd.build import main as sphinx

import polos
import polos.sync
import polos.testing
from scripts.docs_source import ROOT

SITE = ROOT / "site"
SETTINGS = ROOT / "scripts" / "site_settings"
API = Path("docs/reference/python.md")

CHAPTERS = {
    "Start": [
        "concepts",
        "agents-and-tools",
        "structured-output",
        "workflows",
        "trees",
        "streaming",
        "sync",
        "providers",
    ],
    "Guides": [
        "guides/conversation",
        "guides/images",
        "guides/batches",
        "guides/testing",
        "guides/several-files",
        "guides/proxy",
        "guides/from-sse",
        "from-polos",
        "guides/troubleshooting",
    ],
    "Run it": [
        "operations",
        "security",
        "reliability",
        "performance",
        "determinism",
        "changing-workflows",
    ],
    "Look up": [
        "reference/python",
        "cli",
        "reference/events",
        "reference/errors",
        "reference/configuration",
        "other-languages",
    ],
    "Change it": ["architecture", "adr/*"],
}
"""The pages of docs/ in the order of the site's contents; a page that is missing is a warning."""

BESIDE = {
    "Start": [
        "examples/README",
        "examples/support/README",
        "examples/research/README",
        "examples/nightly/README",
    ],
    "Change it": ["CONTRIBUTING", "bench/README", "SECURITY", "CHANGELOG"],
}
"""Pages from elsewhere, by the chapter that they follow."""

LINK = re.compile(r"\[([^\]]*)\]\(([^)\s:#]+)(#[^)\s]*)?\)")


def pages() -> Iterator[Path]:
    """Yield the pages that exist as files, relative to the project's folder."""
    for name in ("README", *(one for names in BESIDE.values() for one in names)):
        yield Path(f"{name}.md")
    yield from (page.relative_to(ROOT) for page in sorted((ROOT / "docs").rglob("*.md")))


def contents() -> Iterator[str]:
    """Yield the tables of contents, which stand hidden on the first page."""
    for chapter, names in CHAPTERS.items():
        entries = [f"docs/{name}" for name in names] + BESIDE.get(chapter, [])
        options = f":hidden:\n:glob:\n:caption: {chapter}\n"
        yield f"```{{toctree}}\n{options}\n" + "\n".join(entries) + "\n```"


def collect(folder: Path) -> None:
    """Write all pages into a folder, and what they show."""
    there = set(pages())
    for page in there:
        text = (ROOT / page).read_text()
        target = folder / page
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_text(LINK.sub(partial(linked, folder, page), text))
    with (folder / "README.md").open("a") as first:
        first.write("\n" + "\n\n".join(contents()) + "\n")
    (folder / API).write_text("\n\n".join(api()) + "\n")


def linked(folder: Path, page: Path, link: re.Match[str]) -> str:
    """Return a link as the site can have it, and copy the file to which it leads."""
    target = (ROOT / page.parent / link[2]).resolve()
    if target.is_dir():
        return link[1]
    if target.is_file() and target.suffix != ".md":
        copy = folder / target.relative_to(ROOT)
        copy.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(target, copy)
    return link[0]


def api() -> Iterator[str]:
    """Yield the parts of the reference of the Python API, from its docstrings."""
    yield "# The Python API"
    yield "The public names. Everything else in the packages may change without notice."
    for module in (polos, polos.sync, polos.testing):
        yield f"## {module.__name__}"
        for name in sorted(module.__all__, key=str.lower):
            directive = f"auto{kind(getattr(module, name))}"
            yield f"```{{eval-rst}}\n.. {directive}:: {module.__name__}.{name}\n```"


def kind(value: object) -> str:
    """Return what Sphinx calls a value."""
    if isinstance(value, ModuleType):
        return "module"
    if inspect.isclass(value):
        return "exception" if issubclass(value, BaseException) else "class"
    return "function" if inspect.isfunction(value) else "data"


def main(site: Path) -> int:
    """Build the site in a folder and return the exit code."""
    shutil.rmtree(site, ignore_errors=True)
    with tempfile.TemporaryDirectory() as folder:
        collect(Path(folder))
        options = ("-W", "--keep-going", "-q", "-E", "-c", str(SETTINGS))
        code = int(sphinx([*options, "-d", f"{folder}/.doctrees", folder, str(site)]))
    if code == 0:
        print(f"Open {site}/README.html in a browser.")
    return code


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1]) if len(sys.argv) > 1 else SITE))
