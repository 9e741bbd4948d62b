"""Run tokens as text: what is signed is what is read, and nothing else."""

from __future__ import annotations

from dataclasses import replace

import pytest

from polos_client.errors import Unauthenticated
from polos_service.access.run_tokens import sign, verify
from polos_service.access.signing import RunToken, SigningKey

KEY = SigningKey(id="ab12", secret=bytes(32))

TOKEN = RunToken(project="a/b é", run_id="run", credential="key:1", expires=100.5)


def cause(text: str, key: SigningKey = KEY, now: float = 0.0) -> str:
    """Return why a token is refused."""
    with pytest.raises(Unauthenticated) as caught:
        verify(text, key, now)
    assert text not in str(caught.value)
    return caught.value.metadata["cause"]


def test_what_was_signed_is_read() -> None:
    assert verify(sign(TOKEN, KEY), KEY, 100.4) == TOKEN


def test_a_token_ends() -> None:
    assert cause(sign(TOKEN, KEY), now=100.5) == "expired"


def test_a_token_is_not_that_of_another_key() -> None:
    text = sign(TOKEN, KEY)
    assert cause(text, replace(KEY, secret=b"1" * 32)) == "unknown"
    assert cause(text, replace(KEY, id="cd")) == "unknown"


def test_no_character_can_be_changed() -> None:
    text = sign(TOKEN, KEY)
    for place in range(len("polosrun_"), len(text)):
        other = "0" if text[place] != "0" else "1"
        assert cause(text[:place] + other + text[place + 1 :]) in ("unknown", "malformed")


@pytest.mark.parametrize(
    "text", ["polosrun_x", "polosrun_ab12__" + "0" * 64, "x" * 5000, "polosrun_ab12_AA_00"]
)
def test_what_is_not_written_like_a_token_is_malformed(text: str) -> None:
    assert cause(text) == "malformed"


def test_the_key_does_not_show_its_secret() -> None:
    assert repr(SigningKey(id="ab", secret=b"secret")) == "SigningKey('ab')"
