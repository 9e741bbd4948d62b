"""Properties: the log and its folds, under hundreds of interleavings."""

from __future__ import annotations

import pytest
from hypothesis import settings
from hypothesis.stateful import run_state_machine_as_test

from tests.store.test_properties import LogMachine

EXAMPLES = settings(max_examples=200, stateful_step_count=40, deadline=None)


@pytest.mark.timeout(900)
def test_any_interleaving_keeps_log_and_folds() -> None:
    run_state_machine_as_test(LogMachine, settings=EXAMPLES)
