"""A table for a person; lines with tabs for a program."""

from __future__ import annotations

import sys
from collections.abc import Sequence

import typer

GAP = 2
"""Spaces between columns, and before a row that is a paragraph."""

TIE = "\N{NO-BREAK SPACE}"
"""What stands between the words of a cell that stays on one line, until lines are broken."""

SHORT = 12
"""Characters of a cell that stay on one line, however narrow the terminal is."""


def print_table(columns: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
    """Print rows: on a terminal with headings, in a pipe with tabs and nothing else.

    The first column stays whole: it is what other commands take. Where the terminal is too narrow
    for the columns, each row is a paragraph.
    """
    if not sys.stdout.isatty():
        sys.stdout.writelines("\t".join(map(flat, row)) + "\n" for row in rows)
        return
    # Loaded late: a pipe needs none of it.
    from rich.table import Table  # noqa: PLC0415
    from rich.text import Text  # noqa: PLC0415

    from polos_service.cli.view import terminal  # noqa: PLC0415

    console = terminal()
    table = Table(box=None, padding=(0, GAP, 0, 0))
    needed = 0
    for index, heading in enumerate(columns):
        longest = max(len(heading), *(len(row[index]) for row in rows), 0)
        least = longest if index == 0 else min(longest, SHORT)
        table.add_column(heading, min_width=least, overflow="fold")
        needed += least + GAP
    if needed > console.width + GAP:
        for row in rows:
            console.print(Text(flat(row[0]), "bold"), soft_wrap=True)
            told = Text(paragraph(columns[1:], row[1:]))
            for line in told.wrap(console, console.width - GAP):
                console.print(" " * GAP + line.plain.replace(TIE, " "), markup=False)
        return
    for row in rows:
        table.add_row(*(Text(flat(cell)) for cell in row))
    console.print(table)


def paragraph(columns: Sequence[str], row: Sequence[str]) -> str:
    """Return what a row has, each cell with its heading; a cell stays on one line if it is short.

    What has no value is left out.
    """
    told = [f"{head.lower()} {flat(cell)}" for head, cell in zip(columns, row, strict=True) if cell]
    kept = [one.replace(" ", TIE) if len(one) <= 2 * SHORT else one for one in told]
    return " · ".join(kept)


def flat(text: str) -> str:
    """Return the text on one line, without what steers a terminal."""
    return " ".join("".join(one if one.isprintable() else " " for one in text).split())


def print_text(text: str) -> None:
    """Print text; on a terminal, break its lines between words."""
    if not sys.stdout.isatty():
        typer.echo(text)
        return
    from rich.text import Text  # noqa: PLC0415

    from polos_service.cli.view import terminal  # noqa: PLC0415

    terminal().print(Text(text))
