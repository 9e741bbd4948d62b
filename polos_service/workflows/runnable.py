"""A workflow as something that can be started."""

from __future__ import annotations

from copy import deepcopy
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

from google.protobuf.message import Message
from pydantic import ValidationError

from polos.v1.error_pb2 import FailureReason
from polos.v1.event_pb2 import WorkflowFinish
from polos_client.define.context import WorkflowContext
from polos_client.define.state import WorkflowState
from polos_client.define.tool import describe
from polos_client.define.workflow import Workflow
from polos_client.errors import InvalidRequest
from polos_client.typed import schema_of
from polos_service.errors import StepError, Unable
from polos_service.logs import get_logger
from polos_service.runs.attempt import check_size
from polos_service.runs.context import RunContext
from polos_service.runs.frame import SECOND
from polos_service.runs.runnable import RunRequest
from polos_service.tools.calling import Outcome, TooManyThreadsError, outcome_of
from polos_service.tools.local import apart
from polos_service.tools.raised import failed_steps, told
from polos_service.tools.values import ROOT, bad, decode, encode
from polos_service.workflows.definition import KIND, Definition
from polos_service.workflows.means import Means

FAILED = FailureReason.FAILURE_REASON_WORKFLOW_FAILED

MAX_RETRIES = 2
"""How often a workflow's function starts over after an exception, if nothing else is said."""

GROUP = "unhandled errors in a TaskGroup"
"""The text of what an asyncio.TaskGroup raises."""

log = get_logger(__name__)


@dataclass(frozen=True, slots=True)
class WorkflowRunnable:
    """A workflow. Equal if it is the same one.

    Attributes:
        workflow: the workflow.
        means: what its code works with.
        max_retries: how often the function starts over at most, after it raised an exception.

    """

    workflow: Workflow
    means: Means = field(compare=False)
    max_retries: int = MAX_RETRIES

    @property
    def kind(self) -> str:
        """The kind of a workflow."""
        return KIND

    @property
    def id(self) -> str:
        """The workflow's id."""
        return self.workflow.id

    @property
    def timeout(self) -> float | None:
        """None: a workflow may take any time."""
        return None

    @property
    def work_limit(self) -> float | None:
        """None: a workflow may take any time."""
        return None

    def pin(self, request: RunRequest) -> bytes:
        """Return the definition of a run.

        Raises:
            InvalidRequest: the payload or the state does not fit the workflow.

        """
        try:
            self.workflow.validate(request.payload_json)
        except ValidationError as error:
            what = f"does not fit the workflow {self.id!r}: {describe(error)}"
            raise InvalidRequest({"payload_json": what}) from None
        except ValueError as error:
            raise InvalidRequest({"payload_json": f"is missing: {error}"}) from None
        try:
            self._state(dict(request.initial_state))
        except ValueError as error:
            raise InvalidRequest({"options.initial_state_json": describe(error)}) from None
        return Definition.pin(self.workflow, request).model_dump_json().encode()

    def other_version(self, pinned: bytes) -> str | None:
        """Return the version of the code that a run was started with; None if it is this one.

        Raises:
            Unable: the definition is of another kind, or a newer version.
            ValueError: it is damaged.

        """
        version = Definition.unpin(pinned).code_version
        return None if version == self.workflow.version else version

    async def first(self, pinned: bytes) -> Message:
        """Return the payload of the event that a run of a definition begins with.

        Raises:
            Unable: the definition is of another kind, or a newer version.
            ValueError: it is damaged.

        """
        return Definition.unpin(pinned).started()

    async def run(self, ctx: RunContext, pinned: bytes) -> Message:
        """Run the workflow as the definition says, with the code that is loaded now.

        Raises:
            StepError: the function raised, also when it was started over.
            Unable: the definition is of another kind, or a newer version, or does not fit the
                code any more.

        """
        definition = Definition.unpin(pinned)
        if definition.budget is not None:
            ctx.keep_within(definition.budget)
        ctx.start(definition.started())
        while True:
            outcome = await self._called(ctx, definition)
            error = outcome.error
            if error is None:
                break
            log.warning("workflow_raised", run_id=ctx.run_id, workflow=self.id, exc_info=error)
            steps_failed = failed_steps(error)
            failure = StepError(FAILED, steps_failed or message_of(error))
            if steps_failed is not None or ctx.retries >= self.max_retries:
                await ctx.settle()
                raise failure from error
            await ctx.start_over(failure.message)
        await ctx.settle()
        with ctx.working():
            result = await apart(lambda: stored(outcome.value))
        return WorkflowFinish(
            result_json=result,
            result_schema=schema_of(outcome.value),
            duration=ctx.age(),
            **(ctx.totals.told() if ctx.totals.spent.calls else {}),
        )

    async def _called(self, ctx: RunContext, definition: Definition) -> Outcome:
        """Call the function once.

        Raises:
            StepError, Unable, Unrecorded: the run cannot go on, whatever the function made of it.

        """
        context, payload = self._arguments(ctx, definition)

        def call() -> Any:
            if self.workflow.is_async:  # else it is in a thread
                ctx.enter()
            return self.workflow.invoke_fn(context, payload)

        try:
            outcome = await outcome_of(call, is_async=self.workflow.is_async)
        except TooManyThreadsError as error:
            raise Unable(str(error)) from None
        if ctx.broken is not None:
            raise ctx.broken
        if isinstance(outcome.error, Unable):
            raise outcome.error
        return outcome

    def _arguments(self, ctx: RunContext, definition: Definition) -> tuple[WorkflowContext, Any]:
        """Return what the function is given.

        Raises:
            Unable: the code has changed so that it does not take what the run was started with.

        """
        try:
            payload = self.workflow.validate(definition.payload_json)
            state = self._state(deepcopy(definition.initial_state))
        except ValueError as error:
            what = describe(error) if isinstance(error, ValidationError) else str(error)
            raise Unable(
                f"The code of the workflow {self.id} does not accept what the run was started "
                f"with: {what}. Deploy the code that the run was started with, or cancel the run.",
            ) from None
        context = WorkflowContext(
            workflow_id=self.id,
            execution_id=ctx.run_id,
            session_id=definition.session_id,
            user_id=definition.user_id,
            attempt=ctx.retries + 1,
            idempotency_key=ctx.run_id,
            initial_state=deepcopy(definition.initial_state),
            step=self.means.steps(ctx, definition.session_id, definition.user_id),
            parent_execution_id=ctx.parent_run_id,
            root_execution_id=ctx.root.run_id,
            root_workflow_id=ctx.root.workflow_id,
            state=state,
            retry_count=ctx.retries,
            created_at=datetime.fromtimestamp(ctx.create_time / SECOND, UTC),
            workflow_type=KIND,
        )
        return context, payload

    def _state(self, initial: dict[str, Any]) -> WorkflowState | None:
        schema = self.workflow.state_schema
        return None if schema is None else schema.model_validate(initial)


def stored(result: Any) -> str:
    """Return the result of a workflow as JSON text.

    Raises:
        StepError: it cannot be stored, is larger than an event can hold, or is a model that cannot
            be read back.

    """
    text, models = encode(result)
    check_size("result of the workflow", len(text.encode()))
    if ROOT in models:
        try:
            decode(text, {ROOT: models[ROOT]})
        except BaseException as error:  # noqa: BLE001 - validators are any code, in this thread
            why = error.message if isinstance(error, StepError) else told(error)
            raise bad(f"What the workflow returned cannot be read back. {why}") from None
    return text


def message_of(error: BaseException) -> str:
    """Return what readers are told of an exception that is more than the failure of steps.

    The group in which a TaskGroup raises one exception says nothing itself.
    """
    while isinstance(error, BaseExceptionGroup) and error.message == GROUP:
        if len(error.exceptions) > 1:
            break
        error = error.exceptions[0]
    return told(error)
