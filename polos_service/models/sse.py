"""Server-sent events as chat completions use them: every event is one `data:` line."""

from __future__ import annotations


class DataLines:
    r"""Cuts a byte stream into the data of its `data:` lines.

    Lines end in `\n` or `\r\n` and nowhere else: U+2028, at which `str.splitlines` and
    `iter_lines` cut, is ordinary text inside JSON. A last line without an end is dropped,
    as the format demands: nobody can tell whether it is whole.

    Attributes:
        pending: bytes of the line that has begun and not ended.

    """

    def __init__(self) -> None:
        self._pieces: list[bytes] = []
        self.pending = 0

    def feed(self, piece: bytes) -> list[bytes]:
        """Return the data of each line that `piece` completes; comments and blanks are dropped."""
        if b"\n" not in piece:
            self._keep(piece)
            return []
        lines = b"".join((*self._pieces, piece)).split(b"\n")
        self._pieces, self.pending = [], 0
        self._keep(lines.pop())
        return [data for line in lines if line.startswith(b"data:") and (data := line[5:].strip())]

    def _keep(self, piece: bytes) -> None:
        self._pieces.append(piece)
        self.pending += len(piece)
