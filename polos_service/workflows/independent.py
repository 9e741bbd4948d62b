"""Independent runs that a workflow's code starts: each has its own log."""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import Coroutine
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from functools import partial
from typing import Any, Protocol

from polos.v1.error_pb2 import FailureReason
from polos.v1.event_pb2 import WaitKind
from polos_client.calls.handle import ExecutionHandle
from polos_client.errors import (
    QuotaExceeded,
    RequestIdReused,
    StepExecutionError,
    StoreUnavailable,
    TooManyRuns,
)
from polos_client.wire import NAME_LIMIT
from polos_service.errors import Nondeterministic, StepError
from polos_service.logs import get_logger
from polos_service.runs.attempt import Attempt, StepOutput, check_start
from polos_service.runs.clock import Clock
from polos_service.runs.context import RunContext
from polos_service.runs.frame import SECOND
from polos_service.runs.runnable import RunRequest, new_run
from polos_service.sidethread import SMALL
from polos_service.store import NewRun
from polos_service.tools.local import apart
from polos_service.tools.values import encode
from polos_service.workflows.children import Children
from polos_service.workflows.functions import FAILED
from polos_service.workflows.invocation import Invocation
from polos_service.workflows.outcome import value_in
from polos_service.workflows.results import LEADING
from polos_service.workflows.room import Room

KIND = "invoke"
"""The type of a step that starts a run."""

UNREADABLE = FailureReason.FAILURE_REASON_CODE_MISSING
"""Why reading a result fails whose class is gone or has changed."""

FIRST_PAUSE, LONGEST_PAUSE = 0.5, 5.0
"""Seconds after which a start that found no room is tried again by itself, at first and at most."""


class Others(Protocol):
    """The runs with logs of their own, as the code of a run has to do with them."""

    @property
    def room(self) -> Room:
        """The line of those who wait for room in the queue."""
        ...

    async def create(self, run: NewRun) -> str:
        """Store a run, and return its id: see `RunStore.create`."""
        ...

    async def refusal(self, project: str, run_id: str, root: str) -> str:
        """Return why a root run must not wait for a run's end, as `outcome` does; or nothing.

        Raises:
            StoreUnavailable: the store is away.

        """
        ...

    async def outcome(self, project: str, run_id: str) -> str:
        """Return what a run has ended with, as `outcome_json` makes it.

        Raises:
            StoreUnavailable: the store does not have it yet, or is away.

        """
        ...


log = get_logger(__name__)


@dataclass(frozen=True, slots=True)
class Other:
    """A run with a log of its own, to a run that waits for its end.

    Attributes:
        others: the runs with logs of their own.
        project: that of both.
        root: the root of the run that waits.

    """

    others: Others
    project: str
    root: str

    async def refusal(self, run_id: str) -> str:
        """Return why it must not be waited for, as `outcome` does; or nothing."""
        return await self.others.refusal(self.project, run_id, self.root)

    async def outcome(self, run_id: str) -> str:
        """Return what the run has ended with."""
        return await self.others.outcome(self.project, run_id)


class Independent:
    """The runs that one run of a workflow starts beside itself."""

    def __init__(self, ctx: RunContext, clock: Clock, children: Children, others: Others) -> None:
        self._ctx = ctx
        self._clock = clock
        self._children = children
        self._others = others

    async def start(self, key: str, invocation: Invocation) -> ExecutionHandle:
        """Start a run of an agent or a workflow once, in the step `key`, and return its handle.

        Raises:
            StepError: what is to run is not known, cannot be started with this, or is too deep.

        """

        async def body(attempt: Attempt) -> StepOutput:
            with self._ctx.working():
                run = await self._run(key, invocation)
                await attempt.checkpoint()  # a run is started by a step that the log has
            try:
                run = replace(run, run_id=await self._created(key, run))
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

    async def end(self, key: str, run: Any, timeout: float | None) -> Any:
        """Wait for the end of a run, and return its result.

        Args:
            key: the wait's key.
            run: the run's handle, or its id.
            timeout: seconds after which the wait fails; None: never.

        Raises:
            StepError: it failed, was cancelled, has not ended in time, or is not there.
            Unable: the code that is loaded cannot read what it returned.
            StepExecutionError: it is not another run with a log of its own.

        """
        run_id = run.id if isinstance(run, ExecutionHandle) else run
        if not is_root_id(run_id) or run_id == self._ctx.root.run_id:
            raise StepExecutionError(
                f"{run!r:.80} of {key!r} must be another run with its own log: its handle, or its "
                "id."
            )

        other = Other(self._others, self._ctx.project, self._ctx.root.run_id)
        ended = await self._ctx.waited(
            key,
            WaitKind.WAIT_KIND_RUN,
            data_json=encode({"run_id": run_id})[0],
            until=None if timeout is None else self._ctx.after(timeout),
            other=other,
        )
        if ended.resumed.expired:
            raise StepError(
                FailureReason.FAILURE_REASON_WAIT_EXPIRED,
                f"The run {run_id!r} has not ended in time.",
            )
        with self._ctx.handing_over():
            try:
                return await self._value(ended.resumed.data_json)
            except StepError as error:
                if error.reason != UNREADABLE:
                    raise
                await self._ctx.leave_unread(key, error)

    async def _value(self, told: str) -> Any:
        """Return what a run returned whose outcome this is.

        Raises:
            StepError: it failed, was cancelled, or is not there; or, with the reason UNREADABLE,
                the code that is loaded cannot read what it returned.

        """
        value = partial(value_in, told, self._children.answers_of)
        has_code = told.startswith(LEADING * 2)  # an agent's answer of a type
        if not has_code and len(told) <= SMALL:
            return value()
        try:
            return await apart(value)
        except RuntimeError as error:  # a validator has raised what no exception handler takes
            raise StepError(UNREADABLE, f"What the run returned cannot be read: {error}") from None

    async def _run(self, key: str, invocation: Invocation) -> NewRun:
        """Return the run that a step starts.

        Raises:
            StepError: it cannot be started.

        """
        parent = self._ctx.below(key)
        runnable = self._children.known(invocation.target_id)
        if isinstance(runnable, StepError):
            raise runnable
        request, definition = await self._children.pinned(runnable, invocation)
        check_start(invocation.target_id, len(definition))
        request = replace(request, parent=parent, digest=digest(request))
        return new_run(runnable, request, definition, self._clock.now())

    async def _created(self, key: str, run: NewRun) -> str:
        """Return the id of the run of a step, once there is room for it.

        Raises:
            RequestIdReused: the step has made another run before.
            StepError: there will be no room.

        """
        with self._others.room.waiting(self._ctx.project, self._ctx.root.run_id) as freed:
            try:
                with self._ctx.working():
                    return await self._others.create(run)
            except (TooManyRuns, QuotaExceeded, StoreUnavailable) as error:
                self._require_hope(error)
                log.info("start_waits", run_id=self._ctx.run_id, reason=str(error))
            return await self._created_in_turn(key, run, freed)

    async def _created_in_turn(self, key: str, run: NewRun, freed: asyncio.Event) -> str:
        """Return the id of the run, which is tried whenever the event is set, and after pauses.

        Raises:
            As `_created`.

        """
        pause = FIRST_PAUSE
        while True:
            with self._ctx.waiting_for_room(key) as until:
                while self._clock.now() < until:
                    await either(self._clock.sleep(pause), freed.wait())
                    freed.clear()
                    pause = min(2 * pause, LONGEST_PAUSE)
                    try:
                        return await self._others.create(run)
                    except (TooManyRuns, QuotaExceeded, StoreUnavailable) as error:
                        self._require_hope(error)

    def _require_hope(self, error: TooManyRuns | QuotaExceeded | StoreUnavailable) -> None:
        """Refuse a start that waiting does not help.

        Raises:
            StepError: it does not.

        """
        if isinstance(error, QuotaExceeded) and error.retry_after is None:
            raise StepError(FAILED, str(error)) from error


async def either(*waits: Coroutine[Any, Any, object]) -> None:
    """Wait until one of these is over, and stop the others."""
    tasks = [asyncio.ensure_future(one) for one in waits]
    try:
        await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
    finally:
        for one in tasks:
            one.cancel()


def is_root_id(run_id: object) -> bool:
    """Return whether something can be the id of a run with a log of its own."""
    if not isinstance(run_id, str) or not run_id.isascii():
        return False
    return 1 <= len(run_id) <= NAME_LIMIT and ":" not in run_id


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
