"""The port to runs: how they are created, described, listed and removed."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

from polos.v1.run_pb2 import RunState

Key = tuple[str, str]
"""Project and id of a run."""

ENDED = frozenset(
    {RunState.RUN_STATE_COMPLETED, RunState.RUN_STATE_FAILED, RunState.RUN_STATE_CANCELLED}
)
"""The states that a terminal frame leaves a run in."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Parent:
    """The step that has started a run which has a log of its own.

    Attributes:
        root: the root run in whose log the step is.
        run_id: the run whose step it is: that root run, or a child.
        step_key: the step; it starts one run at most.
        depth: how many runs are above the one that was started, from 1.

    """

    root: str
    run_id: str
    step_key: str
    depth: int


@dataclass(frozen=True, kw_only=True, slots=True)
class NewRun:
    """A run to be created. Times are nanoseconds since the epoch.

    Attributes:
        request_id: makes the creation idempotent within the project, unless it is None.
        digest: hash of the payload, to tell a repeated request from a reused request id.
        definition: everything that the run is started with. Of it, only the input is ever served.
        deadline: when the run must have ended; None if it may take any time.
        parent: the step that starts it; None if a caller does. With `digest` it makes the creation
            idempotent, as a request id does, and no request id is ever taken for it.
        input_preview: the beginning of the input, for lists; empty if they do not show it.

    """

    project: str
    run_id: str
    workflow_id: str
    request_id: str | None
    digest: bytes
    definition: bytes
    session_id: str | None
    user_id: str | None
    streaming: bool
    create_time: int
    deadline: int | None
    parent: Parent | None = None
    input_preview: str = ""


@dataclass(frozen=True, kw_only=True, slots=True)
class RunRecord:
    """What is known of a run besides its log. Times are nanoseconds since the epoch.

    Attributes:
        latest: sequence of the newest event, 0 if there is none.
        left: why the last process that had the run left it to others; empty if none did, or the
            run has gone on since: it has had an event, or was suspended.
        parent: the step that has started it; None if a caller has.
        input_preview: as the run was created with it.

    """

    run_id: str
    workflow_id: str
    state: RunState.ValueType
    session_id: str | None
    user_id: str | None
    streaming: bool
    create_time: int
    start_time: int | None
    finish_time: int | None
    latest: int
    left: str = ""
    parent: Parent | None = None
    input_preview: str = ""


@dataclass(frozen=True, kw_only=True, slots=True)
class RunQuery:
    """Which runs to list, newest first. Every filter that is not None must hold.

    Attributes:
        before: only runs with a smaller, that is older, id; the cursor of a page.
        created_from: nanoseconds since the epoch, inclusive.
        created_before: nanoseconds since the epoch, exclusive.
        parent_root: only runs that a step in the log of this root run has started.
        parent_run_id: only runs that a step of this run has started, a root run or a child.

    """

    limit: int
    before: str | None = None
    workflow_id: str | None = None
    state: RunState.ValueType | None = None
    session_id: str | None = None
    user_id: str | None = None
    created_from: int | None = None
    created_before: int | None = None
    parent_root: str | None = None
    parent_run_id: str | None = None


class Runs(Protocol):
    """Runs by project and id. Every method may raise StoreUnavailable."""

    async def create(self, run: NewRun) -> str:
        """Store a queued run; return its id, or that of the run that its request id has made.

        The same holds for the step that starts a run: it makes one run.

        Raises:
            RequestIdReused: the request id, or the step, made a run with another digest.
            TooManyRuns: as many runs are queued as the store was opened with as its bound.

        """
        ...

    async def get(self, project: str, run_id: str) -> RunRecord:
        """Return the run's record.

        Raises:
            RunExpired: it was removed by `expire`.
            RunNotFound: there is no such run.

        """
        ...

    async def list(self, project: str, query: RunQuery) -> Sequence[RunRecord]:
        """Return the runs that the query asks for."""
        ...

    async def definition(self, project: str, run_id: str) -> bytes:
        """Return what a root run was created with; nothing if the store has lost it.

        Raises:
            RunExpired: it was removed by `expire`.
            RunNotFound: there is no such run.

        """
        ...

    async def watch(self, project: str, run_id: str, root: str) -> bool:
        """Have the end of a run told to a root run that waits for it; again is the same as once.

        Then the command `end_of` is in the inbox of the root run, which is woken by it. On a store
        for one process it is there as soon as the end is; on others, before the run's last holder
        has let go of it, or by whoever finds that it has not.

        Returns:
            False if the run has ended: nothing is told then.

        Raises:
            RunExpired: the run was removed by `expire`.
            RunNotFound: there is no such run.

        """
        ...

    async def delete(self, project: str, run_id: str) -> None:
        """Remove an ended run, whole.

        Raises:
            RunExpired: it was removed by `expire`.
            RunNotFound: there is no such run.
            RunNotFinished: it has not ended.

        """
        ...

    async def expire(self, before: int) -> bool:
        """Remove a piece of a run that ended before this time; False if there is none.

        The tombstone comes first: from then on every read of the run raises RunExpired.
        """
        ...
