"""What a provider says is shown without what is secret in it."""

from __future__ import annotations

import pytest

from polos_service.models.redact import MAX_SEARCHED, MAX_WORD, redact, word
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


def test_a_message_too_long_to_be_searched_is_not_shown() -> None:
    shown = redact(KEY * 1000, [KEY])
    assert shown == f"[a message of {len(KEY) * 1000} characters, which is not shown]"


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
