"""Server-sent events: bytes in, the data of events out, wherever the bytes are cut."""

from __future__ import annotations

from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from polos_service.models.sse import ErrorData, Events

A, B = b'{"a":1}', b'{"b":[{"c":"}"}]}'


def events(*pieces: bytes) -> list[bytes]:
    """Return what all pieces and the end of the body give."""
    stream = Events()
    return [data for piece in pieces for data in stream.feed(piece)] + stream.close()


WRITTEN = [
    pytest.param(b"data: %b\n\ndata: %b\n\n", [A, B], id="as the standard's examples"),
    pytest.param(b"data:%b\n\ndata:%b\n\n", [A, B], id="no space"),
    pytest.param(b"\xef\xbb\xbfdata: %b\n\ndata: %b\n\n", [A, B], id="byte order mark"),
    pytest.param(
        b"event: x\nid: 1\nretry: 5\ndata: %b\n\n: c\n\ndata: %b\n\n", [A, B], id="fields"
    ),
    pytest.param(b":\n:c\ndata: %b\n: c\n\n\n\ndata: %b\n\n", [A, B], id="comments and blanks"),
    pytest.param(b"data: %b\n\ndata: %b", [A, B], id="no end at all"),
    pytest.param(b"data: %b\n\ndata: %b\n", [A, B], id="no blank line at the end"),
    pytest.param(b"data: %b\ndata: %b\n", [A, B], id="no blank lines"),
    pytest.param(b"%b\n%b\n", [A, B], id="JSON lines"),
    pytest.param(b"%b\n\n%b", [A, B], id="JSON lines with blank lines, without an end"),
    pytest.param(b"data: %b\n\n\ndata\ndata:\n\n \ndata: %b\n\n", [A, B], id="empty data"),
    pytest.param(b"  data: %b\n\n\tdata: %b\n\n", [A, B], id="indented"),
    pytest.param(b"keep-alive\ndata: %b\n\nping\n\ndata: %b\n\n", [A, B], id="stray lines"),
    pytest.param(b"data: : c\ndata: %b\ndata: : c\n\ndata: %b\n\n", [A, B], id="wrapped comments"),
    pytest.param(b"data: %b\n\n%b\n[DONE]\n", [A, B, b"[DONE]"], id="[DONE] without data:"),
    pytest.param(b"data: %b\ndata: %b\ndata: [DONE]\n\n", [A, B, b"[DONE]"], id="three in one"),
]


@pytest.mark.parametrize("newline", [b"\n", b"\r\n", b"\r"])
@pytest.mark.parametrize(("written", "expected"), WRITTEN)
def test_events_are_found_however_they_are_written_and_cut(
    written: bytes, expected: list[bytes], newline: bytes
) -> None:
    body = (written % (A, B)).replace(b"\n", newline)
    assert events(body) == expected
    assert events(*(body[at : at + 1] for at in range(len(body)))) == expected
    for cut in range(len(body) + 1):
        assert events(body[:cut], body[cut:]) == expected


@pytest.mark.parametrize("newline", [b"\n", b"\r\n", b"\r"])
def test_lines_of_data_are_joined(newline: bytes) -> None:
    body = b'data: {"a":{}\ndata: ,"b":\ndata:  2}\n\n'.replace(b"\n", newline)
    for cut in range(len(body) + 1):
        assert events(body[:cut], body[cut:]) == [b'{"a":{}\n,"b":\n 2}']


def test_an_event_that_is_called_error_is_told_apart() -> None:
    body = b"event: error\ndata: no\n\nevent: error\n\ndata: {}\n\nevent:error\ndata: {}\n\n"
    found = events(body)
    assert found == [b"no", b"{}", b"{}"]
    assert [type(data) for data in found] == [ErrorData, bytes, ErrorData]


@pytest.mark.parametrize("end", [b"", b"\n"])
def test_json_over_several_lines_is_one_event_at_the_end_of_the_body(end: bytes) -> None:
    body = b'{\n  "a": [\n\n    {"b": 1}\n  ]\n}' + end
    for cut in range(len(body)):
        assert events(body[:cut], body[cut:]) == [b'{\n"a": [\n{"b": 1}\n]\n}']


@pytest.mark.parametrize("tail", [b'data: {"a":', b"data: [DO", b"{", b'{\n"a":'])
def test_what_was_cut_is_dropped(tail: bytes) -> None:
    assert events(b"data: {}\n\n" + tail) == [b"{}"]


def test_the_first_line_that_belongs_to_no_event_is_kept() -> None:
    stream = Events()
    assert stream.feed(b"\n<!DOCTYPE html>" + b"x" * 200 + b"\n<p>\n") == []
    assert stream.stray.startswith(b"<!DOCTYPE html>x")
    assert len(stream.stray) == 100


def test_an_event_is_told_as_soon_as_its_line_is_whole() -> None:
    stream = Events()
    assert stream.feed(b"data: {}\n") == [b"{}"]
    assert stream.feed(b"\n") == []
    assert stream.feed(b"data: {}\r\n\r") == [b"{}"]


_JSON = st.sampled_from([b"{}", A, B, '{"t":"\u2028 \x85 ü 𝄞"}'.encode(), b"[DONE]"])


@given(
    datas=st.lists(_JSON, min_size=1, max_size=6),
    newline=st.sampled_from([b"\n", b"\r\n", b"\r"]),
    between=st.lists(
        st.sampled_from([b"", b": c\n", b"\n", b"event: m\n", b"id: 7\n"]), max_size=7
    ),
    cuts=st.sets(st.integers(1, 400), max_size=12),
)
def test_cuts_line_ends_and_comments_change_nothing(
    datas: list[bytes], newline: bytes, between: list[bytes], cuts: set[int]
) -> None:
    noise = [*between, *[b""] * len(datas)]
    body = b"".join(
        some + b"data: " + data + b"\n\n" for some, data in zip(noise, datas, strict=False)
    ).replace(b"\n", newline)
    at = [0, *sorted(cut for cut in cuts if cut < len(body)), len(body)]
    pieces = [body[start:end] for start, end in pairwise(at)]
    assert events(*pieces) == datas
