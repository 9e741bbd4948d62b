"""What a campaign prints about what it found."""

from __future__ import annotations

from chaos.base import Result
from chaos.report import Total, findings


def test_a_finding_is_counted_once_however_much_the_service_printed() -> None:
    total = Total()
    total.add("python -m chaos --seed 1 --only 0", Result(runs=1))
    total.add("python -m chaos --seed 1 --only 1", Result(findings=["lost: x"], output="a\nb\n"))
    lines = findings(total).splitlines()
    assert lines == [
        "lost: x",
        "    | a",
        "    | b",
        "  python -m chaos --seed 1 --only 1",
        "1 findings",
    ]
