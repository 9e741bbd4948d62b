"""Frames are cut between whole events without being decoded, and damaged ones are told."""

from __future__ import annotations

import pytest

from polos.v1.event_pb2 import TextDelta
from polos_service.runs.frame import Encoder, cut, decode
from polos_service.runs.lineage import Lineage

SIZES = [1, 100, 127, 128, 300, 20_000, 2, 16_384, 5, 500_000, 1]


def frame(sizes: list[int]) -> bytes:
    """Return a frame of deltas whose texts have these sizes."""
    encoder = Encoder(Lineage("run", "demo"))
    return b"".join(
        encoder.encode(TextDelta(content="x" * size), sequence=number, time=number)
        for number, size in enumerate(sizes, 1)
    )


@pytest.mark.parametrize("limit", [1, 200, 65_536, 10_000_000])
def test_pieces_are_whole_events_within_the_limit_and_together_the_frame(limit: int) -> None:
    data = frame(SIZES)
    pieces, seen = [], 0
    while seen < len(SIZES):
        piece, events = cut(data, seen, limit)
        assert [event.sequence for event in decode(piece)] == list(
            range(seen + 1, seen + 1 + events)
        )
        assert len(piece) <= limit or events == 1
        pieces.append(piece)
        seen += events
    assert b"".join(pieces) == data


@pytest.mark.parametrize(
    "data",
    [b"\xff" * 300_000, b"\x0a" + b"\xff" * 300_000, b"\x00" * 1000, b"\x0a", frame([5])[:-1]],
    ids=["filled", "endless length", "zeros", "no length", "cut off"],
)
def test_a_damaged_frame_is_an_error_at_once(data: bytes) -> None:
    with pytest.raises(ValueError, match="A frame of the log is damaged"):
        cut(data, 0, 65_536)


@pytest.mark.parametrize("skip", [2, 3])
def test_a_frame_with_fewer_events_than_it_should_have_is_damaged(skip: int) -> None:
    with pytest.raises(ValueError, match="A frame of the log is damaged"):
        cut(frame([5]), skip, 65_536)
