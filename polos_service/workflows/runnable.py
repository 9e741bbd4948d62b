"""A workflow as something that can be started."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from google.protobuf.message import Message
from pydantic import ValidationError

from polos.v1.error_pb2 import FailureReason
from polos.v1.event_pb2 import WorkflowFinish, WorkflowStart
from polos_client.define.context import WorkflowContext
from polos_client.define.tool import describe
from polos_client.define.workflow import Workflow
from polos_client.errors import InvalidRequest, StepExecutionError
from polos_client.typed import schema_of
from polos_service.errors import StepError
from polos_service.runs.clock import Clock
from polos_service.runs.context import RunContext
from polos_service.runs.frame import SECOND
from polos_service.runs.runnable import RunRequest
from polos_service.tools.local import in_thread
from polos_service.tools.values import encode
from polos_service.workflows.definition import KIND, Definition
from polos_service.workflows.steps import WorkflowSteps, told

FAILED = FailureReason.FAILURE_REASON_WORKFLOW_FAILED


@dataclass(frozen=True, slots=True)
class WorkflowRunnable:
    """A workflow. Equal if it is the same one.

    Attributes:
        workflow: the workflow.
        clock: the time.

    """

    workflow: Workflow
    clock: Clock

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

    def pin(self, request: RunRequest) -> bytes:
        """Return the definition of a run.

        Raises:
            InvalidRequest: the payload does not fit the workflow, or there is an agent's input.

        """
        if request.payload:
            raise InvalidRequest(
                {
                    "input": f"cannot be given to {self.id!r}, which is a workflow",
                    "payload_json": "is where a workflow takes its payload",
                }
            )
        try:
            self.workflow.validate(request.payload_json)
        except ValidationError as error:
            what = f"does not fit the workflow {self.id!r}: {describe(error)}"
            raise InvalidRequest({"payload_json": what}) from None
        except ValueError as error:
            raise InvalidRequest({"payload_json": f"is missing: {error}"}) from None
        return Definition.pin(self.workflow, request).model_dump_json().encode()

    def other_version(self, pinned: bytes) -> str | None:
        """Return the version of the code that a run was started with; None if it is this one.

        Raises:
            Unable: the definition is of another kind, or a newer version.
            ValueError: it is damaged.

        """
        version = Definition.unpin(pinned).code_version
        return None if version == self.workflow.version else version

    async def run(self, ctx: RunContext, pinned: bytes) -> Message:
        """Run the workflow as the definition says, with the code that is loaded now.

        Raises:
            StepError: the function raised.
            Unable: the definition is of another kind, or a newer version.

        """
        definition = Definition.unpin(pinned)
        ctx.start(
            WorkflowStart(
                payload_json=definition.payload_json, code_version=definition.code_version
            )
        )
        payload = self.workflow.validate(definition.payload_json)
        context = self._context(ctx, definition)
        try:
            result = await self._call(context, payload)
        except StepExecutionError as error:
            raise StepError(FAILED, str(error)) from error
        except StepError:
            raise
        except Exception as error:
            raise StepError(FAILED, told(error)) from error
        text, _ = encode(result)
        return WorkflowFinish(result_json=text, result_schema=schema_of(result), duration=ctx.age())

    async def _call(self, context: WorkflowContext, payload: Any) -> Any:
        if self.workflow.is_async:
            return await self.workflow.invoke_fn(context, payload)
        return await in_thread(lambda: self.workflow.invoke_fn(context, payload))

    def _context(self, ctx: RunContext, definition: Definition) -> WorkflowContext:
        schema = self.workflow.state_schema
        return WorkflowContext(
            workflow_id=self.id,
            execution_id=ctx.run_id,
            session_id=definition.session_id,
            user_id=definition.user_id,
            idempotency_key=ctx.run_id,
            initial_state=definition.initial_state,
            step=WorkflowSteps(ctx, self.clock),
            state=None if schema is None else schema.model_validate(definition.initial_state),
            created_at=datetime.fromtimestamp(ctx.create_time / SECOND, UTC),
            workflow_type=KIND,
        )
