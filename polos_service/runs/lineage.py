"""Which run an event belongs to, and what began that run."""

from __future__ import annotations

import re
from dataclasses import dataclass

from polos.v1.event_pb2 import Event
from polos_client.wire import CHILD_MARK

NUMBER = re.compile(r"[1-9][0-9]{0,17}")
"""The number of a child: a sequence. No log has as many events as the largest says."""


def number_of(run_id: str) -> int | None:
    """Return the sequence with which a child, `ROOT:N`, has begun; None if it is not such an id."""
    number = run_id.partition(CHILD_MARK)[2]
    return int(number) if NUMBER.fullmatch(number) else None


@dataclass(frozen=True, slots=True)
class Origin:
    """The attempt of a step that began a child run.

    Attributes:
        run_id: the parent run, which is the root run or a child itself.
        step_key: the step of the parent, at most KEY_LIMIT bytes.
        attempt: which attempt of that step, from 1. A retry of the step voids the child, and
            all that was begun under it.

    """

    run_id: str
    step_key: str
    attempt: int


@dataclass(frozen=True, slots=True)
class Lineage:
    """A run as each of its events identifies it.

    Attributes:
        run_id: the root run, or `ROOT:N` for the child whose first event has sequence N in
            the log of ROOT.
        workflow_id: the agent or workflow that the run executes.
        origin: what began the run; None at a root run.

    """

    run_id: str
    workflow_id: str
    origin: Origin | None = None

    @classmethod
    def of(cls, event: Event) -> Lineage:
        """Return the lineage of the run that an event belongs to."""
        origin = None
        if event.HasField("parent_run_id"):
            origin = Origin(event.parent_run_id, event.parent_step_key, event.parent_attempt)
        return cls(event.run_id, event.workflow_id, origin)
