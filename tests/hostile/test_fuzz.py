"""The short form of the fuzz: `make fuzz` goes on for as long as it is told."""

from __future__ import annotations

from pathlib import Path
from random import Random

import pytest

from fuzz.calls import plan
from fuzz.messages import Messages
from fuzz.raw import ATTACKS
from fuzz.rounds import play
from polos.v1 import agent_service_pb2, run_service_pb2

SEED = 50
"""One whose few attacks call the tool, with credentials and without."""

ATTACKS_A_ROUND = 250
"""Half of what `make fuzz` has."""

METHODS = [
    method
    for file in (agent_service_pb2, run_service_pb2)
    for service in file.DESCRIPTOR.services_by_name.values()
    for method in service.methods
]


async def test_no_input_stops_confuses_or_fattens_the_service(
    tmp_path: Path, request: pytest.FixtureRequest
) -> None:
    guarded = request.config.getoption("--credentials", default=False)
    report = await play(SEED, tmp_path, attacks=ATTACKS_A_ROUND, credentials=guarded)
    assert report.findings == [], str(report)
    called = {method for method, _ in report.answers}
    assert {f"/{one.containing_service.full_name}/{one.name}" for one in METHODS} <= called
    assert {"/grpc.health.v1.Health/Watch"} < called
    assert any(name.startswith("/grpc.reflection.") for name in called)


def test_a_seed_plans_the_same_calls_whenever_it_is_asked() -> None:
    def planned(seed: int) -> list[object]:
        random = Random(seed)
        return [plan(method, Messages(["a-run"]), random) for method in METHODS * 5]

    assert planned(1) == planned(1)
    assert planned(1) != planned(2)


def test_a_seed_sends_the_same_bytes_whenever_it_is_asked() -> None:
    for attack in ATTACKS:
        assert list(attack(Random(1))) == list(attack(Random(1))), attack.__name__
