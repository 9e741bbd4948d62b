"""The body of a tool call: the tool's code, or the agent that the call runs.

Code that uses `ctx.step` becomes a child run with the first step that it asks for. When the run
goes on after a crash or a long wait, such a body runs again from its start, and what it did in
`ctx.step` comes from the log. The body of any other tool begins anew, as another attempt.
"""

from __future__ import annotations

import asyncio
import inspect
import json
from collections.abc import Callable, Coroutine
from contextlib import nullcontext
from contextvars import Context
from functools import partial
from typing import Any, TypeVar, cast

from polos.v1.event_pb2 import Error, RunCancelled, ToolCall, WorkflowFinish, WorkflowStart
from polos_client.define.agent_tool import AgentTool
from polos_client.define.context import WorkflowContext
from polos_client.define.tool import Tool
from polos_client.errors import StepExecutionError
from polos_client.result import AgentResult
from polos_service.cancelling import seen
from polos_service.errors import StepError
from polos_service.runs.attempt import Attempt, StepOutput, check_size
from polos_service.runs.children import failure
from polos_service.runs.context import RunContext
from polos_service.runs.endings import failed
from polos_service.runs.said import size_of
from polos_service.tools.approved import Approved
from polos_service.tools.local import call_tool, in_time, unknown_outcome, validating
from polos_service.tools.result import Returned
from polos_service.tools.stint import Stint
from polos_service.workflows.results import result_in
from polos_service.workflows.steps import WorkflowSteps

T = TypeVar("T")

CALLS = frozenset({"run"})
"""The steps in which code of the tool works. In all others it waits for something else."""

StepsOf = Callable[[RunContext], WorkflowSteps]
"""Returns the steps of a run's code."""


class Body:
    """The code of one tool call, in one attempt of its step."""

    def __init__(
        self, ctx: RunContext, attempt: Attempt, tool: Tool, steps_of: StepsOf, stint: Stint
    ) -> None:
        """Prepare the call.

        Args:
            ctx: the run of the agent.
            attempt: the attempt of the tool's step.
            tool: the tool.
            steps_of: makes the steps of the child run.
            stint: what the code holds while it works.

        """
        self._ctx = ctx
        self._attempt = attempt
        self._tool = tool
        self._steps_of = steps_of
        self._stint = stint
        self._child: RunContext | None = None
        self._beginning: asyncio.Task[WorkflowSteps] | None = None
        self._watching: asyncio.Task[None] | None = None

    async def result(
        self, call: ToolCall, context: WorkflowContext, seconds: float, approved: Approved | None
    ) -> Returned:
        """Call the tool, and return its result as JSON text.

        Args:
            call: the call.
            context: what the code is given as `ctx`, with `ToolSteps` of this body.
            seconds: how long the code may work.
            approved: as in `call_tool`.

        Raises:
            StepError: it failed; as `call_tool`.

        """
        recorded = self._ctx.children.recorded(self._attempt)
        if recorded is not None and (recorded.end is not None or self._tool.at_most_once):
            return await self._recorded()
        self._limit = limit = self._stint.limit(seconds)
        if recorded is not None:  # it is under way, whether the code asks for a step or not
            await self._begun()
        # Code that must not run twice is not stopped for the sake of a wait.
        with self._ctx.working() if self._tool.at_most_once else nullcontext():
            try:
                result = await call_tool({call.name: self._tool}, call, context, limit, approved)
                check_size("output", size_of(result))
            except StepError as error:
                await self._end(error)
                raise
            await self._end(result)
        return result

    async def perform(self, name: str, *args: Any, **kwargs: Any) -> Any:
        """Call a method of `ctx.step`.

        Raises:
            StepExecutionError: the step failed, or the tool cannot have it.

        """
        if self._tool.at_most_once and (name == "suspend" or name.startswith("wait_")):
            raise StepExecutionError(
                f"The tool {self._tool.id} is at_most_once and cannot use ctx.step.{name}: a run "
                "that waits is stopped, and the tool's code would begin anew after that."
            )
        steps = await self._begun()
        if name in CALLS:
            return await getattr(steps, name)(*args, **kwargs)
        async with self._stint.away():
            return await getattr(steps, name)(*args, **kwargs)

    @property
    def unbegun(self) -> WorkflowSteps:
        """Steps that are not to be performed: they tell which methods there are."""
        return self._steps_of(self._ctx)

    async def _begun(self) -> WorkflowSteps:
        """Return the steps of the child run, which begins if it has not begun."""
        if self._beginning is None:
            self._beginning = out_of_reach(self._begin())
        try:
            return await asyncio.shield(self._beginning)
        except StepError as error:
            raise StepExecutionError(error.message) from None

    async def _begin(self) -> WorkflowSteps:
        child = await self._ctx.children.begin(self._attempt, self._tool.id, WorkflowStart())
        self._child = child
        if child.cancellation.has_come:  # before its code goes on
            await self._cut_short(child)
        else:
            self._watching = out_of_reach(self._cut_short(child))
        return self._steps_of(child)

    async def _cut_short(self, child: RunContext) -> None:
        """Let the code end when somebody cancels the child run."""
        await child.cancellation.comes()
        self._limit.cut_short(failure(child.run_id, RunCancelled()))

    async def _end(self, outcome: Returned | StepError) -> None:
        """Record how the child run has ended, if it has begun."""
        child = await self._ended()
        if child is not None:
            with child.working():  # although tasks that the code has left may wait
                await self._record(child, outcome)

    async def _record(self, child: RunContext, outcome: Returned | StepError) -> None:
        """Record how the child run ends."""
        if self._limit.cut is not None and outcome is self._limit.cut:
            await child.end_cancelled()
            return
        await child.settle()
        await child.tidying.done()
        if isinstance(outcome, StepError):
            await child.finish(failed(child, outcome).payload)
            return
        finish = WorkflowFinish(
            result_json=outcome,
            result_schema=outcome.schema,
            duration=child.age(),
            **(child.totals.told() if child.totals.spent.calls else {}),
        )
        await child.finish(finish)

    async def _ended(self) -> RunContext | None:
        """Return the child run, once it is sure that it has begun; None if it has not."""
        if self._beginning is None:
            return None
        await asyncio.wait({self._beginning})
        if self._watching is not None:
            self._watching.cancel()
        return self._child

    async def _recorded(self) -> Returned:
        """Return what the log has of a body that does not run again.

        Raises:
            StepError: it failed, or was interrupted.

        """
        child = await self._ctx.children.begin(self._attempt, self._tool.id, WorkflowStart())
        if child.end_payload is None:
            child.cancel()
            raise unknown_outcome(self._tool)
        match child.end_payload:
            case WorkflowFinish() as end:
                return Returned(end.result_json, end.result_schema)
            case RunCancelled() as end:
                raise failure(child.run_id, end)
            case end:
                told = cast("Error", end)
                raise StepError(told.reason, told.message)


def out_of_reach(work: Coroutine[Any, Any, T]) -> asyncio.Task[T]:
    """Start a task that the tool does not see: it could cancel it halfway."""
    task = asyncio.get_running_loop().create_task(work, context=Context())
    task.add_done_callback(seen)
    return task


class ToolSteps:
    """`ctx.step` of a tool."""

    def __init__(self, body: Body) -> None:
        self._body = body
        self._loop = asyncio.get_running_loop()

    def __getattr__(self, name: str) -> Any:
        """Return a method, as that of a workflow's `ctx.step`."""
        if name.startswith("_"):
            raise AttributeError(name)
        method = getattr(self._body.unbegun, name)
        if not inspect.iscoroutinefunction(method):
            return method
        return partial(self._perform, name)

    async def _perform(self, name: str, *args: Any, **kwargs: Any) -> Any:
        if asyncio.get_running_loop() is not self._loop:
            raise StepExecutionError(
                "ctx.step works in the service's event loop only. Write the tool's function with "
                "`async def`, and await its steps there."
            )
        return await self._body.perform(name, *args, **kwargs)


async def input_of(
    tool: AgentTool, call: ToolCall, seconds: float, approved: Approved | None
) -> str:
    """Return what an agent that is a tool is asked.

    Args:
        tool: the tool.
        call: the call.
        seconds: how long it may take to read the arguments.
        approved: as in `call_tool`.

    Raises:
        StepError: the arguments do not fit.

    """

    def read() -> str:
        with validating():
            if approved is None:
                return str(tool.validate(call.arguments_json)["input"])
            return str(approved.arguments(tool, call.arguments_json)["input"])

    return await in_time(tool, read, seconds)


def answer_in(output: StepOutput) -> StepOutput:
    """Return the output of a call whose child, an agent, has ended with this `AgentResult`."""
    result = AgentResult.model_validate_json(output.result_json)
    text = result_in(output.result_json) or json.dumps(result.result, ensure_ascii=False)
    return StepOutput(result_json=text, result_schema=result.result_schema or "")
