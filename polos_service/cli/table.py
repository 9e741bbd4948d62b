"""A table for a person; lines with tabs for a program."""

from __future__ import annotations

import sys
from collections.abc import Sequence

SHORT = 12
"""Characters of a cell that stay on one line, however narrow the terminal is."""


def print_table(columns: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
    """Print rows: on a terminal with headings, in a pipe with tabs and nothing else.

    The first column stays whole: it is what other commands take.
    """
    if not sys.stdout.isatty():
        sys.stdout.writelines("\t".join(map(flat, row)) + "\n" for row in rows)
        return
    # Loaded late: a pipe needs none of it.
    from rich.table import Table  # noqa: PLC0415
    from rich.text import Text  # noqa: PLC0415

    from polos_service.cli.view import terminal  # noqa: PLC0415

    table = Table(box=None, padding=(0, 2, 0, 0))
    for index, heading in enumerate(columns):
        longest = max(len(heading), *(len(row[index]) for row in rows), 0)
        least = longest if index == 0 else min(longest, SHORT)
        table.add_column(heading, min_width=least, overflow="fold")
    for row in rows:
        table.add_row(*(Text(flat(cell)) for cell in row))
    terminal().print(table)


def flat(text: str) -> str:
    """Return the text on one line, without what steers a terminal."""
    return " ".join("".join(one if one.isprintable() else " " for one in text).split())
