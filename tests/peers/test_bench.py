"""Benchmarks: two services are measured side by side."""

from __future__ import annotations

from bench.compare import compared
from bench.processes import ROOT
from bench.targets import provider


def test_services_side_by_side_are_measured() -> None:
    loads = {"relay": {"runs": 2, "tokens": 50, "times": 2}}
    with provider() as upstream:
        found = compared({"old": ROOT, "new": ROOT}, upstream, loads, times=1)
    assert list(found) == ["relay"]
    (old,), (new,) = found["relay"].old, found["relay"].new
    assert old > 0
    assert new > 0
