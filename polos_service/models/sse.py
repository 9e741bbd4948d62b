r"""Server-sent events, as the standard has them and as proxies and small servers write them.

The standard: https://html.spec.whatwg.org/multipage/server-sent-events.html#parsing-an-event-stream.
Beyond it, as every event of a language model is JSON:

- A line that is a whole JSON object is an event even without `data:` or a blank line after it.
- JSON over several lines without `data:` (an answer that is not a stream) is one event, once
  the body has ended.
- Two JSON objects on two `data:` lines of one event are two events.
- The last event needs no blank line and no line end if it is whole.
"""

from __future__ import annotations

from polos_service.models.lenient import is_whole

BYTE_ORDER_MARK = b"\xef\xbb\xbf"
"""May stand in front of a stream, and means nothing."""

MAX_STRAY = 100
"""Bytes that are kept of a line that belongs to no event."""

_NO_TEXT = b" \t\0" + BYTE_ORDER_MARK
"""Bytes that may stand around a line and mean nothing."""

_DONE = b"[DONE]"
_FIELDS = (b":", b"id:", b"retry:")
"""How the lines begin that say nothing to us: comments, and fields for a client that reconnects."""


class ErrorData(bytes):
    """The data of an event that is called `error`."""

    __slots__ = ()


class Events:
    r"""Cuts a byte stream into the data of its events. The work is linear in the bytes.

    Lines end in `\n`, `\r\n` or `\r` and nowhere else: U+2028, at which `str.splitlines`
    cuts, is ordinary text inside JSON.

    Attributes:
        stray: the beginning of the first line that belongs to no event; empty if there is none.
        documents: how many JSON texts came without the frame of an event.

    """

    def __init__(self) -> None:
        self.stray = b""
        self.documents = 0
        self._idle = False
        self._first = True
        self._after_cr = False
        self._line = bytearray()
        self._data: bytes | None = None
        self._more = bytearray()
        self._tried = False
        self._failed = False
        self._bare = bytearray()
        self._found: list[bytes] = []

    @property
    def held(self) -> int:
        """Bytes of the line and the event that have begun and not ended."""
        return len(self._line) + len(self._data or b"") + len(self._more) + len(self._bare)

    def feed(self, piece: bytes) -> list[bytes]:
        """Return the data of each event that `piece` completes; ErrorData for an error."""
        returns = b"\r" in piece
        end = b"\r\n\r\n" if returns else b"\n\n"
        if self._idle and (last := piece.rfind(end)) >= 0:
            # What nearly every server sends: events, each of them one line of data.
            whole = bytes(self._line) + piece[:last] if self._line else piece[:last]
            if whole.startswith(b"data: {"):
                found = whole[6:].split(end + b"data: ")
                more = len(found) - 1
                if (
                    whole.count(b"\n") == 2 * more
                    and (not returns or whole.count(b"\r") == 2 * more)
                    and (not more or whole.count(end + b"data: {") == more)
                ):
                    self._line.clear()
                    rest = piece[last + len(end) :]
                    return found + self._feed(rest) if rest else found
        return self._feed(piece)

    def _feed(self, piece: bytes) -> list[bytes]:
        if self._after_cr and piece:
            self._after_cr = False
            piece = piece[1:] if piece.startswith(b"\n") else piece
        if b"\n" not in piece and b"\r" not in piece:
            self._line += piece
            return []
        self._found = []
        for line in self._lines(piece):
            if line.startswith(b"data:"):
                self._add(line[6:] if line.startswith(b" ", 5) else line[5:])
            elif line:
                self._other(line)
            elif self._data is not None:
                self._dispatch()
            else:
                self._failed = False
        if self._data is not None and not (self._tried or self._line):
            self._dispatch_early()
        begun = self._data is not None or self._bare
        self._idle = not (begun or self._failed or self._after_cr)
        return self._found

    def _lines(self, piece: bytes) -> list[bytes]:
        """Return the lines that a piece with a line end completes, and keep the last one."""
        if self._line:
            piece = bytes(self._line) + piece
            self._line.clear()
        lines = piece.splitlines()
        if piece.endswith(b"\r"):
            self._after_cr = True
        elif not piece.endswith(b"\n"):
            self._line += lines.pop()
        if self._first:
            lines[0] = lines[0].removeprefix(BYTE_ORDER_MARK)
            self._first = False
        return lines

    def close(self) -> list[bytes]:
        """Return the data of the events that the end of the body completes.

        An event without an end is one if its data is whole; nobody can tell of anything else
        whether it was cut.
        """
        found = self.feed(b"\n") if self._line else []
        self._found = found
        if self._data is not None and (self._failed or is_whole(self._joined())):
            self._dispatch()
        if self._bare and is_whole(data := bytes(self._bare)):
            self.documents += 1
            found.append(data)
        self._data = None
        self._bare.clear()
        return found

    def _add(self, data: bytes) -> None:
        """Add a line of data to the event."""
        if not data.startswith(b"{") and _is_comment(data):
            return
        if self._data is None:
            self._data = data
        elif not self._more and _are_two(self._data, data):
            self._dispatch()
            self._data = data
        else:
            self._more += b"\n" + data
            self._tried = True

    def _dispatch(self) -> None:
        """End the event. An event in the middle of bare JSON shows that the JSON is none."""
        if data := self._joined():
            self._found.append(ErrorData(data) if self._failed else data)
        self._data = None
        self._more.clear()
        self._bare.clear()
        self._tried = self._failed = False

    def _joined(self) -> bytes:
        data = self._data or b""
        return data + self._more if self._more else data

    def _dispatch_early(self) -> None:
        """End an event of one line if that is whole: some servers write no blank lines."""
        self._tried = True
        data = self._joined().strip()
        if data == _DONE or (data.startswith(b"{") and data.endswith(b"}") and is_whole(data)):
            self._dispatch()

    def _other(self, line: bytes) -> None:
        """Take a line that is neither blank nor data."""
        if line.startswith(b"event:"):
            self._failed = line[6:].strip() == b"error"
        elif line.startswith(b"error:"):  # llama.cpp writes no event of this name, but a field
            self._found.append(ErrorData(line[6:].strip()))
        elif not line.startswith(_FIELDS):
            self._without_field(line.strip(_NO_TEXT))

    def _without_field(self, line: bytes) -> None:
        if line.startswith(b"data:"):
            self._add(line[5:].strip())
        elif self._bare:
            self._bare += b"\n" + line
        elif line == _DONE or (line.startswith((b"{", b"[")) and is_whole(line)):
            self.documents += 1
            self._found.append(line)
        elif line.startswith((b"{", b"[")):
            self._bare += line
        elif not self.stray:
            self.stray = line[:MAX_STRAY]


def _is_comment(data: bytes) -> bool:
    """Return whether data is a comment that a proxy wrapped."""
    return data.lstrip().startswith(b":")


def _are_two(before: bytes, data: bytes) -> bool:
    """Return whether two lines belong to two values: no JSON goes on like this."""
    return before.rstrip().endswith(b"}") and data.lstrip().startswith((b"{", _DONE))
