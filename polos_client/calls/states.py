"""The states of a run, and the names that programs read as its status."""

from __future__ import annotations

from polos.v1.run_pb2 import RunState

STATES = {
    "queued": RunState.RUN_STATE_QUEUED,
    "running": RunState.RUN_STATE_RUNNING,
    "waiting": RunState.RUN_STATE_SUSPENDED,
    "completed": RunState.RUN_STATE_COMPLETED,
    "failed": RunState.RUN_STATE_FAILED,
    "cancelled": RunState.RUN_STATE_CANCELLED,
}
"""The states of a run by the names that programs read as its status."""

STATUSES = {state: status for status, state in STATES.items()}
"""The status by the state."""

ENDED_OTHERWISE = (RunState.RUN_STATE_COMPLETED, RunState.RUN_STATE_FAILED)
"""The states of a run that has ended, but was not cancelled."""
