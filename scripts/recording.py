"""Record `make demo` on a terminal of its own, and draw it as an animated SVG: `make recording`.

The picture shows what the program printed and when, with three changes: it begins with the command,
pauses longer than PAUSE are cut to that, and what takes longer than LENGTH is played faster.
"""

from __future__ import annotations

import fcntl
import os
import pty
import select
import struct
import subprocess
import termios
import time
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import groupby
from operator import itemgetter
from pathlib import Path
from xml.sax.saxutils import escape

import pyte
from pyte.screens import Char

ROOT = Path(__file__).resolve().parent.parent
PICTURE = ROOT / "docs" / "demo.svg"
COMMAND = ["make", "--silent", "demo"]
COLUMNS, ROWS = 84, 34
PAUSE = 1.5
"""Seconds after which something has to happen in the picture."""

LENGTH = 15.0
"""Seconds that the picture takes at most, without its end."""

FRAME = 0.1
"""Seconds between two states of the screen, at least."""

LAST = 8.0
"""Seconds for which the end stays."""

LIMIT = 300.0
"""Seconds that the program may take."""

WIDTH, HEIGHT, MARGIN = 8.4, 18, 14
"""Pixels: a column, a row, and the frame around them."""

COLOURS = {
    "default": "#d6deeb",
    "black": "#5c6773",
    "brightblack": "#7f8c98",
    "red": "#ff6b6b",
    "green": "#7fd88f",
    "brown": "#f2c55c",
    "blue": "#7aa2f7",
    "magenta": "#c792ea",
    "cyan": "#7fdbca",
    "white": "#ffffff",
}
BACKGROUND = "#101820"
FONT = "ui-monospace,SFMono-Regular,Menlo,Consolas,'DejaVu Sans Mono',monospace"

Line = tuple[tuple[int, str, str], ...]
"""Pieces of a row: the column of each, its text and its attributes."""

Frame = tuple[float, dict[int, Line]]
"""Seconds since the beginning, and the rows from then on that are not empty."""


@dataclass(frozen=True)
class Span:
    """A row's content, and the seconds from which and until which it is shown."""

    row: int
    line: Line
    begin: float
    end: float


def printed() -> Iterator[tuple[float, bytes]]:
    """Run the program on a terminal; yield what it prints, each with the seconds until then."""
    ours, theirs = pty.openpty()
    fcntl.ioctl(theirs, termios.TIOCSWINSZ, struct.pack("HHHH", ROWS, COLUMNS, 0, 0))
    environment = {k: v for k, v in os.environ.items() if "OPENAI" not in k}
    environment |= {"TERM": "xterm-256color", "COLORTERM": ""}
    began = time.monotonic()
    process = subprocess.Popen(
        COMMAND, cwd=ROOT, env=environment, stdin=theirs, stdout=theirs, stderr=theirs
    )
    os.close(theirs)
    try:
        while time.monotonic() - began < LIMIT and select.select([ours], [], [], LIMIT)[0]:
            try:
                yield time.monotonic() - began, os.read(ours, 1 << 16)
            except OSError:  # the other end is closed
                break
    finally:
        process.kill()
    if code := process.wait():
        raise SystemExit(f"{' '.join(COMMAND)} ended with {code}")


def frames() -> Iterator[Frame]:
    """Yield what the screen shows, whenever it changes."""
    screen = pyte.Screen(COLUMNS, ROWS)
    stream = pyte.ByteStream(screen)
    stream.feed(b"\x1b[32m$\x1b[0m make demo\r\n")
    shown, at, before = rows(screen), 0.0, 0.0
    yield at, shown
    for seconds, output in printed():
        at += min(seconds - before, PAUSE)
        before = seconds
        stream.feed(output)
        if (now := rows(screen)) != shown:
            shown = now
            yield at, shown


def rows(screen: pyte.Screen) -> dict[int, Line]:
    """Return the rows of the screen that are not empty."""
    found = {}
    for row in range(ROWS):
        cells = [screen.buffer[row][column] for column in range(COLUMNS)]
        if line := tuple(pieces(cells)):
            found[row] = line
    return found


def pieces(cells: list[Char]) -> Iterator[tuple[int, str, str]]:
    """Yield the pieces of a row, without the blanks at its end."""
    column = 0
    end = max((n + 1 for n, cell in enumerate(cells) if cell.data.strip()), default=0)
    for look, group in groupby(cells[:end], look_of):
        text = "".join(cell.data for cell in group)
        if text.strip():
            yield column, text, look
        column += len(text)


def look_of(cell: Char) -> str:
    """Return the attributes of a cell, as those of an SVG text."""
    look = f' fill="{COLOURS.get(cell.fg, f"#{cell.fg}")}"' if cell.fg != "default" else ""
    look += ' font-weight="bold"' if cell.bold else ""
    return look + (' text-decoration="line-through"' if cell.strikethrough else "")


def played(found: list[Frame]) -> Iterator[Frame]:
    """Yield the frames at the times at which the picture has them."""
    faster = min(1.0, LENGTH / found[-1][0])
    yield from ((at * faster, lines) for at, lines in found)


def spaced(found: Iterator[Frame]) -> Iterator[Frame]:
    """Yield the frames that are shown for FRAME or longer; the last one is."""
    held: Frame | None = None
    for frame in found:
        if held is not None and frame[0] - held[0] >= FRAME:
            yield held
            held = frame
        else:
            held = (held[0] if held else 0.0, frame[1])
    if held is not None:
        yield held


def spans(found: list[Frame], end: float) -> Iterator[Span]:
    """Yield each row's contents, with the time for which it stays the same."""
    ends = [at for at, _ in found[1:]] + [end]
    for row in range(ROWS):
        begin, contents = 0.0, [lines.get(row) for _, lines in found]
        for line, group in groupby(zip(contents, ends, strict=True), itemgetter(0)):
            *_, (_, until) = group
            if line is not None:
                yield Span(row, line, begin, until)
            begin = until


def drawing(found: list[Frame]) -> str:
    """Return the frames as an SVG whose rows appear and disappear; it begins anew at its end."""
    end = found[-1][0] + LAST
    styles, texts = [], []
    for number, span in enumerate(spans(found, end)):
        first, last = span.begin / end, span.end / end
        stays = span.end == end
        steps = "0%{visibility:hidden}" if span.begin else ""
        steps += f"{first:.2%}{{visibility:visible}}"
        steps += "" if stays else f"{last:.2%}{{visibility:hidden}}"
        moves = span.begin > 0 or not stays
        styles += [f"@keyframes k{number}{{{steps}}}#r{number}{{animation-name:k{number}}}"] * moves
        hidden = "" if stays else ' visibility="hidden"'
        texts.append(f'<g id="r{number}"{hidden}>{"".join(drawn(span))}</g>')
    width, height = COLUMNS * WIDTH + 2 * MARGIN, ROWS * HEIGHT + 2 * MARGIN
    size = f'viewBox="0 0 {width:g} {height}" width="{width:g}" height="{height}"'
    return "\n".join(
        [
            f'<svg xmlns="http://www.w3.org/2000/svg" {size}>',
            "<title>make demo: the service is killed, and the stream goes on</title>",
            "<style>",
            f"g{{animation:{end:.2f}s step-end infinite}}",
            f"text{{font:14px {FONT};fill:{COLOURS['default']};white-space:pre}}",
            "@media(prefers-reduced-motion){g{animation:none}}",
            *styles,
            "</style>",
            f'<rect width="100%" height="100%" rx="8" fill="{BACKGROUND}"/>',
            *texts,
            "</svg>",
            "",
        ]
    )


def drawn(span: Span) -> Iterator[str]:
    """Yield the texts of a row."""
    y = MARGIN + span.row * HEIGHT + HEIGHT - 5
    for column, text, look in span.line:
        x, width = MARGIN + column * WIDTH, len(text) * WIDTH
        style = look.replace(' fill="', ' style="fill:')
        yield (
            f'<text x="{x:g}" y="{y}" textLength="{width:g}" lengthAdjust="spacingAndGlyphs"'
            f"{style}>{escape(text)}</text>"
        )


def main() -> None:
    """Record and draw."""
    PICTURE.write_text(drawing(list(spaced(played(list(frames()))))))
    print(f"{PICTURE.relative_to(ROOT)}: {PICTURE.stat().st_size / 1000:.0f} kB")


if __name__ == "__main__":
    main()
