"""Runs that a workflow's code starts beside its own run: each has a log of its own."""

from __future__ import annotations

import hashlib
from collections.abc import Awaitable, Callable
from dataclasses import replace
from datetime import UTC, datetime
from typing import Any

from polos_client.calls.handle import ExecutionHandle
from polos_client.errors import QuotaExceeded, RequestIdReused, StoreUnavailable, TooManyRuns
from polos_service.errors import Nondeterministic, StepError
from polos_service.logs import get_logger
from polos_service.runs.attempt import Attempt, StepOutput, check_size
from polos_service.runs.clock import Clock
from polos_service.runs.context import RunContext
from polos_service.runs.frame import SECOND
from polos_service.runs.runnable import RunRequest, new_run
from polos_service.store import NewRun
from polos_service.workflows.children import Children, checked_target
from polos_service.workflows.functions import FAILED

KIND = "invoke"
"""The type of a step that starts a run."""

FIRST_PAUSE, LONGEST_PAUSE = 0.5, 5.0
"""Seconds after which a start is tried again that found no room, at first and at most."""

Create = Callable[[NewRun], Awaitable[str]]
"""Stores a run, and returns its id: see `RunStore.create`."""

log = get_logger(__name__)


class Independent:
    """The runs that one run of a workflow starts beside itself."""

    def __init__(self, ctx: RunContext, clock: Clock, children: Children, create: Create) -> None:
        self._ctx = ctx
        self._clock = clock
        self._children = children
        self._create = create

    async def start(
        self, key: str, target: Any, payload: Any, state: Any, timeout: float | None
    ) -> ExecutionHandle:
        """Start a run of an agent or a workflow once, and return its handle.

        Args:
            key: the step's key.
            target: an Agent, a Workflow, or the id of one.
            payload: what it is given.
            state: its initial state.
            timeout: seconds that it may take; None: its own deadline.

        Raises:
            StepError: what is to run is not known, cannot be started with this, or is too deep.
            StepExecutionError: an argument is of a wrong type.

        """
        target_id = checked_target(key, target, timeout)

        async def body(attempt: Attempt) -> StepOutput:
            run = await self._run(key, target_id, payload, state, timeout)
            await attempt.checkpoint()  # a run is started by a step that the log has
            try:
                run = replace(run, run_id=await self._created(run))
            except RequestIdReused as error:
                raise Nondeterministic(
                    "the run",
                    run_id=self._ctx.run_id,
                    step_key=key,
                    recorded=error.metadata["run_id"],
                    asked="another run: other code or another payload",
                ) from error
            handle = handle_of(run, self._ctx.run_id, key)
            return StepOutput(result_json=handle.model_dump_json(), started_run_id=run.run_id)

        # A start that a crash has cut short goes on: it finds the run that it has made.
        output = await self._ctx.step(key, KIND, body, resumes=True, abandons=True)
        return ExecutionHandle.model_validate_json(output.result_json)

    async def _run(
        self, key: str, target_id: str, payload: Any, state: Any, timeout: float | None
    ) -> NewRun:
        """Return the run that a step starts.

        Raises:
            StepError: it cannot be started.

        """
        parent = self._ctx.below(key)
        runnable = self._children.known(target_id)
        if isinstance(runnable, StepError):
            raise runnable
        request, definition = await self._children.pinned(runnable, payload, state, timeout)
        check_size("input of the run", len(definition))
        request = replace(request, parent=parent, digest=digest(request))
        return new_run(runnable, request, definition, self._clock.now())

    async def _created(self, run: NewRun) -> str:
        """Return the id of the run, once there is room for it.

        Raises:
            RequestIdReused: the step has made another run before.
            StepError: there will be no room.

        """
        try:
            with self._ctx.working():
                return await self._create(run)
        except (TooManyRuns, QuotaExceeded, StoreUnavailable) as error:
            self._require_hope(error)
            log.info("start_waits", run_id=self._ctx.run_id, reason=str(error))
        pause = FIRST_PAUSE
        while True:
            with self._ctx.waiting_for_room() as until:
                while self._clock.now() < until:
                    await self._clock.sleep(pause)
                    pause = min(2 * pause, LONGEST_PAUSE)
                    try:
                        return await self._create(run)
                    except (TooManyRuns, QuotaExceeded, StoreUnavailable) as error:
                        self._require_hope(error)

    def _require_hope(self, error: TooManyRuns | QuotaExceeded | StoreUnavailable) -> None:
        """Refuse a start that waiting does not help.

        Raises:
            StepError: it does not.

        """
        if isinstance(error, QuotaExceeded) and error.retry_after is None:
            raise StepError(FAILED, str(error)) from error


def digest(request: RunRequest) -> bytes:
    """Return what is the same for two starts that ask for the same run."""
    asked = (
        request.runnable_id,
        request.payload,
        request.payload_json,
        request.model_options,
        request.initial_state,
        request.deadlines.run,
        request.streaming,
    )
    return hashlib.sha256(repr(asked).encode()).digest()


def handle_of(run: NewRun, parent_run_id: str, step_key: str) -> ExecutionHandle:
    """Return the handle of a run that a step has started."""
    return ExecutionHandle(
        id=run.run_id,
        workflow_id=run.workflow_id,
        created_at=datetime.fromtimestamp(run.create_time / SECOND, UTC).isoformat(),
        parent_execution_id=parent_run_id,
        root_workflow_id=run.workflow_id,
        root_execution_id=run.run_id,
        session_id=run.session_id,
        user_id=run.user_id,
        step_key=step_key,
    )
