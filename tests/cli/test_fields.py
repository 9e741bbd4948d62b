"""The fields of a form, as their author describes them, and what is typed into them."""

from __future__ import annotations

from typing import Any

import pytest
import typer

from polos_service.cli.exits import fail
from polos_service.cli.prompts import NONE, Field, as_value, fields_of
from polos_service.cli.text import visible


def field(**given: Any) -> Field:
    found = Field.of({"key": "k", **given})
    assert found is not None
    return found


@pytest.mark.parametrize(
    ("given", "line", "value"),
    [
        ({}, " a ", " a "),
        ({}, "", NONE),
        ({"default": "x"}, "", "x"),
        ({"default": False, "required": True}, "", False),
        ({"type": "date"}, "2026-01-31", "2026-01-31"),
        ({"type": "number"}, "-3", -3),
        ({"type": "number"}, "1e3", 1000.0),
        ({"type": "boolean"}, "TRUE", True),
        ({"type": "boolean"}, "n", False),
        ({"type": "select", "options": ["a", "b"]}, "b", "b"),
        ({"type": "select", "options": [10, 1]}, "1", 1),
        ({"type": "select", "options": [10, 20]}, "2", 20),
        ({"type": "select", "options": [{"label": "L", "value": None}]}, "L", None),
        ({"type": "select", "options": []}, "free", "free"),
        ({"type": "select", "options": "abc"}, "free", "free"),
    ],
)
def test_what_is_typed_becomes_a_value(given: dict[str, Any], line: str, value: Any) -> None:
    parsed = field(**given).parse(line)
    assert (parsed, type(parsed)) == (value, type(value))


@pytest.mark.parametrize(
    ("given", "line"),
    [
        ({"required": True}, ""),
        ({"type": "number"}, "1,5"),
        ({"type": "number"}, "true"),
        ({"type": "number"}, "NaN"),
        ({"type": "number"}, "[" * 5000),
        ({"type": "boolean"}, "maybe"),
        ({"type": "select", "options": ["a"]}, "0"),
        ({"type": "select", "options": ["a"]}, "²"),
    ],
)
def test_what_cannot_be_used_is_refused(given: dict[str, Any], line: str) -> None:
    with pytest.raises(ValueError, match=r"is required|is not a number|neither|none of the"):
        field(**given).parse(line)


@pytest.mark.parametrize(
    ("given", "prompt"),
    [
        ({"required": True}, "k"),
        ({"label": "A\nlabel \x1b[2J"}, r"A label \u001b[2J (optional)"),
        ({"type": "boolean", "default": True}, "k (y/n, Enter: yes)"),
        ({"type": "number", "default": 3, "label": "How many"}, "How many (Enter: 3)"),
        ({"type": "textarea", "required": True}, "k (ends with a line '.')"),
    ],
)
def test_a_prompt_tells_what_may_be_typed(given: dict[str, Any], prompt: str) -> None:
    assert field(**given).prompt == prompt


@pytest.mark.parametrize("fields", [None, {}, "text", [1], [{"label": "no key"}], [{"key": 5}]])
def test_a_form_with_unusable_fields_has_none(fields: Any) -> None:
    assert fields_of({"fields": fields}) == []


def test_a_name_is_a_key() -> None:
    assert [one.key for one in fields_of({"fields": [{"name": "a"}, {"key": "b"}]})] == ["a", "b"]


def test_what_a_terminal_does_not_show_is_escaped() -> None:
    assert visible("Zoë \u202egnp.exe\x1b\n日") == "Zoë \\u202egnp.exe\\u001b\n日"


@pytest.mark.parametrize("line", ["", "yes", "{", "[" * 5000])
def test_an_answer_that_is_not_json_is_refused(line: str) -> None:
    with pytest.raises(ValueError, match="is not valid JSON"):
        as_value(line)


def test_an_error_does_not_steer_the_terminal(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(typer.Exit):
        fail("run 'a' failed: \x1b[2J\x07")
    assert capsys.readouterr().err == "Error: run 'a' failed: \\u001b[2J\\u0007\n"
