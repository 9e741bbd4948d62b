"""What a provider says is shown without what is secret in it."""

from __future__ import annotations

from base64 import b64encode

import pytest

from polos_service.models.redact import MAX_LENGTH, MAX_SEARCHED, MAX_WORD, redact, word
from tests.support.hostile_behaviours import KEY_FORMS

KEY = "wunderbar-9f8e7d6c5b4a"


@pytest.mark.parametrize("form", KEY_FORMS)
@pytest.mark.parametrize("key", [KEY, "a1B2c3", "pass word+/?&%41", "schlüssel-ß"])
def test_a_secret_is_hidden_in_every_simple_form(form: str, key: str) -> None:
    told = KEY_FORMS[form](key)
    shown = redact(f"The key {told} is not known.", [key])
    assert told not in shown
    assert "[hidden]" in shown


def test_a_secret_as_it_is_leaves_the_rest_to_be_read() -> None:
    assert redact(f"no: {KEY}, sorry", [KEY]) == "no: [hidden], sorry"


@pytest.mark.parametrize(
    ("message", "shown"),
    [
        ("ask admin, not administration", "ask [hidden], not administration"),
        ("the adm1n is away", "the adm1n is away"),
    ],
)
def test_a_short_secret_is_hidden_as_a_word_only(message: str, shown: str) -> None:
    assert redact(message, ["admin"]) == shown


def test_no_secret_hides_nothing() -> None:
    assert redact("context is too long", ["", KEY]) == "context is too long"


def test_a_long_message_is_cut() -> None:
    assert redact("No. " * 100_000) == ("No. " * 125)[:499] + "…"


@pytest.mark.parametrize("form", KEY_FORMS)
@pytest.mark.parametrize("size", [40, 200, 2000])
@pytest.mark.parametrize("before", [0, 450, 8000])
def test_a_long_secret_in_a_long_message_is_hidden(form: str, size: int, before: int) -> None:
    key = "".join(f"{number:x}" for number in range(size))[:size]
    told = "no " * (before // 3) + KEY_FORMS[form](key) + " no" * 30_000
    shown = redact(told, [key])
    assert len(shown) <= MAX_LENGTH
    assert key[:8] not in shown
    assert KEY_FORMS[form](key)[:24] not in shown


def test_a_piece_of_a_secret_is_hidden() -> None:
    assert redact(f"{KEY[:9]}... and ...{KEY[-8:]}, {KEY[:7]}", [KEY]) == (
        f"[hidden]... and ...[hidden], {KEY[:7]}"
    )


def test_what_cannot_be_printed_is_left_out() -> None:
    assert redact("a\x1b[2Jb\u202ec\ud800d\x00") == "a [2Jb c d"


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("req_1", "req_1"),
        ("x" * (MAX_WORD + 1), "x" * MAX_WORD),
        ("x" * (MAX_SEARCHED + 1), ""),
        (f"req-{KEY}", ""),
        (f"req-{KEY.upper()}", ""),
        (f"{'x' * MAX_WORD}{KEY}", ""),
        ("a\x1bb", ""),
        ("req-ü", ""),
    ],
)
def test_a_request_id_is_short_printable_and_without_a_secret(text: str, shown: str) -> None:
    assert word(text, [KEY]) == shown


def test_signed_reasoning_that_an_error_quotes_is_hidden_and_the_address_of_a_page_is_not() -> None:
    signature = b64encode(bytes(range(256))).decode()
    page = "https://platform.example.com/docs/guides/error-codes/api-errors"
    assert "+" in signature
    assert redact(f"The content {signature} could not be verified, see {page}") == (
        f"The content [hidden] could not be verified, see {page}"
    )
