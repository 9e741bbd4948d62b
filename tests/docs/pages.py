"""What the documentation's pages are made of: blocks of code, shown and hidden.

A page is read as one session. Its Python blocks run in order and share their names, with `await`
wherever they like. A block that begins with `# name.py` is a file: one that calls `asyncio.run` is
run as a program, another is imported. A comment `<!-- python ... -->` is a block that readers do
not see, for assertions. A block of `text` right after a Python block is what that one prints.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
README = ROOT / "README.md"
DOCS = ROOT / "docs"
PAGES = [README, *sorted(DOCS.glob("*.md")), *sorted(DOCS.glob("guides/*.md"))]

BLOCK = re.compile(
    r"^(?P<tested><!-- tested -->\n)?```(?P<language>\w+)\n(?P<shown>.*?)^```$"
    r"|^<!-- (?P<hidden>\w+)\n(?P<code>.*?)^-->$",
    re.MULTILINE | re.DOTALL,
)


@dataclass(frozen=True)
class Block:
    """A block of code of a page.

    `line` is the number of its first line, and `prints` what stands below it as its output.
    """

    language: str
    code: str
    line: int
    tested: bool
    hidden: bool
    prints: str | None

    @property
    def file(self) -> str | None:
        """The name of the file that it is, if it is one."""
        match = re.match(r"# (\w+\.py)\n", self.code)
        return match[1] if match else None

    @property
    def is_program(self) -> bool:
        """Whether it is a file that is run, not imported."""
        return self.file is not None and "asyncio.run(" in self.code


def blocks(text: str) -> Iterator[Block]:
    """Yield the blocks of a page."""
    found = list(BLOCK.finditer(text))
    for match, after in zip(found, [*found, None][1:], strict=True):
        code = match["shown"] if match["hidden"] is None else match["code"]
        is_output = after is not None and after["language"] == "text"
        between = text[match.end() : after.start()] if after else ""
        yield Block(
            language=match["language"] or match["hidden"],
            code=code,
            line=text[: match.end()].count("\n") - code.count("\n") + 1,
            tested=match["tested"] is not None,
            hidden=match["hidden"] is not None,
            prints=after["shown"] if after and is_output and not between.strip() else None,
        )


def blocks_of(page: Path, language: str) -> list[Block]:
    """Return the blocks of a page in a language."""
    return [block for block in blocks(page.read_text()) if block.language == language]


def write_files(page: Path, folder: Path) -> None:
    """Write the files that a page shows into a folder."""
    for block in blocks_of(page, "python"):
        if block.file:
            (folder / block.file).write_text(block.code)
