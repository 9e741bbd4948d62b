"""What the benchmark makes of its figures: goals, costs and the page."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

from bench.__main__ import COMPILED, ROWS
from bench.compiled import costs, samples_of
from bench.page import beside, expected, lines, write
from bench.table import Cost, Goal, Row, above, at_least, at_most, missed_of

SAMPLES = {"polos": [10.0, 40.0, 30.0], "plain": [5.0, 10.0, 10.0]}


def test_a_goal_compares_the_rounds_one_by_one() -> None:
    assert at_least(SAMPLES, "plain", 3).figure == 3
    assert above(SAMPLES, "plain") == 20


def test_a_goal_is_met_at_its_bound() -> None:
    assert at_least(SAMPLES, "plain", 3).met
    assert not at_least(SAMPLES, "plain", 3.1).met
    assert at_most(SAMPLES, "plain", 3).met
    assert not at_most(SAMPLES, "plain", 2.9).met


def test_a_goal_may_compare_other_targets_than_the_product() -> None:
    goal = at_least({"nats": [10.0], "nats-workers": [14.0]}, "nats", 1.3, name="nats-workers")
    assert goal.figure == 1.4


def test_costs_are_the_medians_of_the_rounds() -> None:
    rounds = [
        {"service_us": service, "provider_us": 2.0, "client_us": 3.0, "delivered": 1.0}
        for service in (90.0, 100.0, 200.0)
    ]
    found = {"polos": rounds}
    assert samples_of(found, "service_us") == {"polos": [90.0, 100.0, 200.0]}
    assert costs(found) == {"polos": Cost(service=100, provider=2, client=3, delivered=1)}


def test_the_page_says_what_is_missed_and_why_and_what_a_token_took() -> None:
    row = Row(
        name="cpu",
        title="CPU",
        unit="µs",
        figures={"polos": [100.0]},
        goals=[
            Goal(text="by (c)", figure=0.9, bound=0.7, most=True, why="The reason."),
            Goal(text="by (a')", figure=1.3, bound=1.4, most=True),
        ],
        costs={"polos": Cost(service=99.6, provider=20, client=9.5, delivered=0.981)},
    )
    assert [goal.text for _, goal in missed_of([row])] == ["by (c)"]
    about = {"machine": "", "python": "", "versions": {}}
    page = lines([row], about)
    assert "| cpu | by (c) | ≤ 0.7 x | 0.9 x | **missed** |" in page
    assert "- cpu by (c): The reason." in page
    assert "| cpu | polos serve | 99.6 | 20 | 9.5 | 98.1% |" in page


def test_users_are_told_how_many_times_what_a_peer_does_the_product_does() -> None:
    figures = {"polos": [300.0], "plain": [10.0], "a2a": [50.0]}
    row = Row(name="relay", title="", unit="", figures=figures, goals=[])
    short = replace(row, notes={"polos at 2000 tokens": 100.0})
    assert "| a relay over gRPC, from the usual packages | 30 x |" in beside({"relay": short})
    assert "| a2a-sdk, in memory | 2.0 x |" in beside({"relay": short})
    assert "| DBOS, SQLite | - |" in beside({"relay": short})
    table = expected({"relay": row}, {"machine": "2 cores"})
    assert any(line.startswith("| 300 | tokens per second of one run") for line in table)


def test_a_part_of_a_page_is_replaced_and_the_rest_stays(tmp_path: Path) -> None:
    page = tmp_path / "page.md"
    marks = ("<!-- expect: written by make bench -->\n", "<!-- end of expect -->\n")
    page.write_text("before\n" + "".join(marks) + "after\n")
    for text in (["a"], ["b", "c"]):
        write(page, "expect", text)
    assert page.read_text() == f"before\n{marks[0]}\nb\nc\n\n{marks[1]}after\n"


def test_a_row_is_read_from_the_results_as_it_was_written() -> None:
    row = Row(
        name="cpu",
        title="CPU",
        unit="µs",
        figures={"polos": [100.0, 110.0]},
        goals=[Goal(text="by (c)", figure=0.9, bound=0.7, most=True)],
        notes={"p99 of polos": 4.2},
        costs={"polos": Cost(service=99.6, provider=20, client=9.5, delivered=0.981)},
        date="2026-11-26",
    )
    assert Row.of(json.loads(json.dumps(row.written))) == row
    assert row.rounds == 2


def test_rows_that_need_the_compiled_programs_are_rows() -> None:
    assert ROWS.keys() > COMPILED
