"""The beginning of an input on one line, whatever the input is."""

from __future__ import annotations

import json
from typing import Any

import pytest

from polos_service.runs.preview import PREVIEW_LIMIT, SCANNED, preview_of

LONG = "word " * 100
IMAGE = "data:image/png;base64," + "iVBORw0KGgo=" * 100_000


def user(content: Any) -> list[dict[str, Any]]:
    """Return a conversation of one message."""
    return [{"role": "user", "content": content}]


CONVERSATIONS: dict[str, tuple[Any, str]] = {
    "a text": (user("Where is it?"), "Where is it?"),
    "the last message": ([*user("First."), *user("Second.")], "Second."),
    "the last that says something": (
        [*user("First."), {"role": "assistant", "content": None}, *user(" \n")],
        "First.",
    ),
    "the result of a tool": (
        [*user("Go."), {"role": "tool", "tool_call_id": "1", "content": "rain"}],
        "rain",
    ),
    "parts": (
        user(
            [
                {"type": "image_url", "image_url": {"url": IMAGE}},
                {"type": "text", "text": "What is this?"},
                {"type": "input_audio", "input_audio": {"data": "UklGRg==", "format": "wav"}},
                {"type": "input_image", "image_url": IMAGE},
                {"type": "video_url", "video_url": {"url": "https://example.org/v.mp4"}},
                {"type": "file", "file": {"file_data": IMAGE}},
                {"type": "refusal", "refusal": "No."},
                {"type": "text", "text": ""},
            ]
        ),
        "[image] What is this? [audio] [image] [video] [file] No.",
    ),
    "a file in a text": (user(f"See {IMAGE} here"), "See data:image/png;base64,…"),
    "a small file in a text": (
        user("See data:image/svg+xml;charset=utf-8;base64,aGk= here"),
        "See data:image/svg+xml;charset=utf-8;base64,… here",
    ),
    "no message": ([], ""),
    "messages that an earlier version took": ([5, {"role": "user"}, {"content": 5}], ""),
    "nothing": (None, ""),
}


@pytest.mark.parametrize("case", CONVERSATIONS)
def test_of_a_conversation_it_is_what_the_last_message_says(case: str) -> None:
    conversation, expected = CONVERSATIONS[case]
    assert preview_of(conversation) == expected


def test_of_a_payload_it_is_the_json_text() -> None:
    payload = json.dumps({"item": "tea", "image": IMAGE, "n": 1}, indent=2)
    assert preview_of(payload) == '{ "item": "tea", "image": "data:image/png;base64,…'
    assert preview_of('{"image": "data:image/png;base64,aGk=", "n": 1}') == (
        '{"image": "data:image/png;base64,…", "n": 1}'
    )


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("a\x1b[31mred\x1b]0;title\x07b\x00c\x9bd", "a [31mred ]0;title b c d"),
        ("one\n\ttwo\r\nthree\u2028four\u2029five\x85six", "one two three four five six"),
        ("right \u202egnp.exe\u202c \u200f\u2066x\u2069 \u061cy", "right gnp.exe x y"),
        ("zero\u200bwidth\ufeff so\u00adft \U000e0041tag", "zerowidth soft tag"),
        ("half \ud800 a pair", "half a pair"),
        ("private \ue000 use", "private use"),
        ("  \u00a0 spaces \u3000 of all kinds  ", "spaces of all kinds"),
        ("日本語 עברית e\u0301", "日本語 עברית e\u0301"),
        ("\x1b\u202e\n", ""),
    ],
)
def test_what_steers_a_terminal_or_a_reader_is_left_out(text: str, expected: str) -> None:
    assert preview_of(user(text)) == expected
    assert preview_of(text) == expected


@pytest.mark.parametrize("text", [LONG, "x" * 1_000_000, "日" * 300, "x" * (PREVIEW_LIMIT + 1)])
def test_a_long_text_is_cut(text: str) -> None:
    for preview in (preview_of(user(text)), preview_of(user([{"type": "text", "text": text}]))):
        assert len(preview) == PREVIEW_LIMIT
        assert preview.endswith("…")
        assert text.startswith(preview[:-1])


def test_a_text_as_long_as_may_be_is_whole() -> None:
    assert preview_of(user("x" * PREVIEW_LIMIT)) == "x" * PREVIEW_LIMIT


def test_what_is_not_looked_at_shows_as_cut() -> None:
    assert preview_of(user("Go." + " " * SCANNED + "End.")) == "Go.…"


def test_every_character_makes_one_line_that_is_shown() -> None:
    everything = "".join(map(chr, range(0x110000)))
    for start in range(0, len(everything), 100):
        preview = preview_of(user(everything[start : start + 100]))
        assert preview.isprintable()
        preview.encode()
