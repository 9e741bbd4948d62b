"""API keys as text and as entries."""

from __future__ import annotations

import json

import pytest

from polos_client.errors import Unauthenticated
from polos_service.access.keys import Key, decode, encode, new_text, parse

TEXT = new_text()

KEY = Key(
    id=TEXT.id,
    name="café",
    project="p",
    scopes=frozenset({"runs:read", "admin"}),
    hash=TEXT.hash,
    created=1.5,
    expires=2.5,
    digest=b"d",
)


def test_a_key_is_read_as_it_was_written() -> None:
    assert parse(TEXT.full()) == TEXT
    assert KEY.opens(parse(TEXT.full()))
    assert not KEY.opens(new_text(TEXT.id))


def test_an_entry_is_read_as_it_was_written() -> None:
    assert decode(encode(KEY)) == KEY
    later = {**json.loads(encode(KEY)), "what_a_later_version_adds": 1}
    assert decode(json.dumps(later).encode()) == KEY


def test_the_secret_is_in_no_text_about_a_key() -> None:
    assert TEXT.secret not in repr(TEXT)
    assert TEXT.secret.encode() not in encode(KEY)


def test_keys_differ() -> None:
    made = [new_text() for _ in range(100)]
    assert len({one.id for one in made}) == len({one.secret for one in made}) == 100


@pytest.mark.parametrize(
    "token",
    [
        "polos_",
        "polos_id_short",
        f"polos_ID_{TEXT.secret}",
        f"{TEXT.full()}\n",
        f"polos_{'a' * 33}_{TEXT.secret}",
        f"polos_a_{'b' * 129}",
    ],
    ids=["prefix", "short secret", "upper-case id", "line end", "long id", "long secret"],
)
def test_what_is_not_written_like_a_key_is_malformed(token: str) -> None:
    with pytest.raises(Unauthenticated) as caught:
        parse(token)
    assert caught.value.metadata == {"cause": "malformed"}
    assert TEXT.secret not in str(caught.value)


@pytest.mark.parametrize(
    ("now", "revoked", "cause"), [(2.4, None, None), (2.5, None, "expired"), (1.6, 1.5, "revoked")]
)
def test_a_key_ends(now: float, revoked: float | None, cause: str | None) -> None:
    key = Key(
        id="a",
        name="",
        project="",
        scopes=frozenset(),
        hash=b"",
        created=0,
        expires=2.5,
        revoked=revoked,
    )
    assert key.ended(now) == cause
