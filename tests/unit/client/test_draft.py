"""Draft: what a JSON text is so far, whatever it says and wherever it is cut."""

from __future__ import annotations

import json
from collections.abc import Iterable
from itertools import pairwise
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic_core import from_json

from polos_client import draft as draft_module
from polos_client.draft import Draft
from tests.support.drafts import precedes


@pytest.fixture(params=[1, 8, 10**9], ids=["seldom", "often", "always"])
def _share(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Parse again at growth by this fraction."""
    monkeypatch.setattr(draft_module, "_SHARE", request.param)


def drafts(pieces: Iterable[str], draft: Draft | None = None) -> list[Any]:
    """Return every draft of a text that comes in these pieces, without its end."""
    draft = draft or Draft()
    said: list[str] = []
    found: list[Any] = []
    for piece in pieces:
        said.append(piece)
        found += draft.changed(said)
    return found


def all_drafts(text: str) -> list[Any]:
    """Return every draft of a text that comes character by character, and the last one."""
    draft = Draft()
    return [*drafts(text, draft), *draft.ended(text)]


VALUES = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(st.characters(exclude_categories=["Cs"])),
    lambda inner: st.lists(inner) | st.dictionaries(st.text('aé"\\😀 1'), inner),
    max_leaves=12,
)


@given(VALUES, st.sampled_from([{"ensure_ascii": False}, {"indent": 1}]))
@settings(max_examples=150, deadline=None)
def test_each_draft_is_a_beginning_of_the_next_and_the_last_is_the_whole(
    value: Any, form: dict[str, Any]
) -> None:
    text = json.dumps(value, **form)
    found = all_drafts(text)
    assert found[-1] == json.loads(text)
    for early, late in pairwise(found):
        assert precedes(early, late), (early, late)
        assert json.dumps(early) != json.dumps(late)


@pytest.mark.usefixtures("_share")
@pytest.mark.parametrize(
    "text",
    [
        '{"a": {"b": [1, 2.50, -3e-7, true, null, "x"]}, "c": ""}',
        f'{{"many": {"9" * 4000}, "small": 1e-400, "large": 1e308}}',
        "[" * 190 + "]" * 190,
        r'["\ud83d\ude00 \u00e9\n\"\\\/", "tail"]',
        '"just a text, 12 of 34"',
        '  \n {"a" : 1 } \n',
        "{}",
        "[]",
    ],
)
def test_the_last_draft_is_the_whole_and_each_before_is_part_of_it(text: str) -> None:
    found = all_drafts(text)
    assert found[-1] == json.loads(text)
    assert all(precedes(one, found[-1]) for one in found)


def test_drafts_grow_with_the_text() -> None:
    assert all_drafts('{"a": "xy", "b": [12, true]}') == [
        {},
        {"a": ""},
        {"a": "x"},
        {"a": "xy"},
        {"a": "xy", "b": []},
        {"a": "xy", "b": [12]},
        {"a": "xy", "b": [12, True]},
    ]


def test_numbers_wait_until_they_are_complete_and_texts_with_digits_do_not() -> None:
    assert drafts(['{"price": 4', "5", ".5", "0", "e1", ', "'])[1:] == [{"price": 455.0}]
    assert drafts(['["2026-05', '-02", "1'])[:2] == [["2026-05"], ["2026-05-02", "1"]]
    assert drafts(["[1", "]", "\n"]) == [[], [1]]


def test_escapes_that_are_cut_wait() -> None:
    assert drafts(['["a\\', "u00", 'e9"']) == [["a"], ["aé"]]
    assert drafts(['["\\ud83d', "\\ud", 'e00"']) == [[""], ["😀"]]


def test_of_duplicate_names_the_last_counts() -> None:
    text = '{"a": 1, "a": {"b": 2}}'
    assert all_drafts(text) == [{}, {"a": 1}, {"a": {}}, {"a": {"b": 2}}]


@pytest.mark.parametrize(
    "text",
    ["Let me look at 12 orders.", "12 orders, true ones", "true", "```json\n{}\n```", "NaN", " \n"],
)
def test_what_is_not_an_object_a_list_or_a_string_has_no_drafts(text: str) -> None:
    assert not drafts(text)


@pytest.mark.parametrize("text", ["", "[" * 250, "{'a': 1}", "\ufeff{}", '"\n"'])
def test_what_is_not_valid_has_no_draft(text: str) -> None:
    assert not drafts([text])


@pytest.mark.parametrize("rest", ["1e400", "NaN", "-Infinity", '"\\ud800 lone"', "9" * 5000, "x"])
def test_what_is_not_valid_is_never_in_a_draft(rest: str) -> None:
    found = drafts(['{"a": 1, "b": [', rest, ", 2], ", '"c": 3', "}"])
    assert [json.loads(json.dumps(one, allow_nan=False)) for one in found] == found
    assert all(precedes(one, {"a": 1, "b": [""]}) for one in found)


@pytest.mark.parametrize(("text", "value"), [("12", 12), ("true", True), ("null", None)])
def test_a_scalar_comes_when_it_is_whole(text: str, value: Any) -> None:
    assert all_drafts(text) == [value]


def test_a_text_that_begins_again_is_parsed_from_its_start() -> None:
    draft = Draft()
    assert drafts(['{"a": "long ago", "b": "'], draft) == [{"a": "long ago", "b": ""}]
    assert drafts(['{"a": "', "now"], draft) == [{"a": ""}, {"a": "now"}]
    assert not [*draft.ended('{"a": "now"}')]


def test_a_program_may_change_what_it_gets() -> None:
    draft = Draft()
    (value,) = drafts(['{"a": ["x"'], draft)
    value["a"].append("y")
    assert drafts(['{"a": ["x", "y"'], draft) == [{"a": ["x", "y"]}]
    assert not [*draft.ended('{"a": ["x", "y"]}')]


def test_equal_values_of_other_types_are_a_change() -> None:
    draft = Draft()
    assert drafts(["[1]"], draft) == [[1]]
    (value,) = draft.ended("[true]")
    assert value == [True]
    assert value[0] is True


def test_a_long_text_is_parsed_seldom(monkeypatch: pytest.MonkeyPatch) -> None:
    parsed = 0

    def counted(text: str, **how: Any) -> Any:
        nonlocal parsed
        parsed += len(text)
        return from_json(text, **how)

    monkeypatch.setattr(draft_module, "from_json", counted)
    text = json.dumps({"lines": [{"item": f"lamp {number}"} for number in range(5000)]})
    draft = Draft()
    found = drafts((text[at : at + 4] for at in range(0, len(text), 4)), draft)
    assert [*found, *draft.ended(text)][-1] == json.loads(text)
    assert len(found) > 500
    assert parsed < 140 * len(text)  # to parse it at each piece takes thousands of times its length
