"""`python -m bench.reading`: answers of the mock provider, read by the providers of a checkout."""

from __future__ import annotations

import pytest

from bench.answers import CHAT, MESSAGES, REASONING, RESPONSES, USAGE, Form, form_of
from bench.compare import Comparison
from bench.processes import ROOT
from bench.reading import ROWS, Found, measured, reading, table_of
from bench.targets import provider


def test_each_row_is_measured_or_said_to_be_lacking() -> None:
    with (
        provider() as upstream,
        reading(ROOT, upstream.address) as old,
        reading(ROOT, upstream.address) as new,
    ):
        found = measured(old, new, times=2, tokens=50)
    assert {*found.rows, *found.lacking} == set(ROWS)
    assert found.rows.keys() >= {"chat", "alone", "usage", "reasoning"}
    figures = [figure for one in found.rows.values() for figure in (*one.old, *one.new)]
    assert len(figures) == 4 * len(found.rows)
    assert all(figure > 0 for figure in figures)


def test_what_is_lacking_stands_in_the_table() -> None:
    found = Found({"chat": Comparison([1.0] * 3, [1.1] * 3)}, {"anthropic": "there is no provider"})
    table = table_of(found, "51f810a", 3)
    assert [*table.columns[2].cells] == ["1100000.00", "skipped: there is no provider"]
    assert next(iter(table.columns[5].cells)) == "MORE EXPENSIVE"


@pytest.mark.parametrize(
    ("path", "form"),
    [
        ("/v1/chat/completions", CHAT),
        ("/usage/v1/chat/completions", USAGE),
        ("/reasoning/v1/chat/completions", REASONING),
        ("/v1/messages", MESSAGES),
        ("/v1/responses", RESPONSES),
    ],
)
def test_the_path_of_a_request_says_how_it_is_answered(path: str, form: Form) -> None:
    assert form_of(path) is form
