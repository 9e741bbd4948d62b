"""The part of `ctx.step` that starts runs: children and independent runs."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine, Sequence
from typing import Any, TypeVar

from polos_client.calls.handle import ExecutionHandle
from polos_client.define.children import AgentRunConfig, BatchStepResult, BatchWorkflowInput
from polos_client.errors import StepExecutionError
from polos_client.result import AgentResult
from polos_client.unbuilt import refuse
from polos_service.workflows.arguments import checked_entries, checked_list, entry_of
from polos_service.workflows.children import Children
from polos_service.workflows.independent import Independent
from polos_service.workflows.invocation import checked_invocation
from polos_service.workflows.raising import Raising

T = TypeVar("T")


class StartingSteps:
    """The steps that start runs; see `polos_client.define.steps.Steps`."""

    def __init__(self, raising: Raising, children: Children, independent: Independent) -> None:
        self._raising = raising
        self._children = children
        self._independent = independent

    async def invoke(  # noqa: PLR0917 - the order of the original SDK
        self,
        step_key: str,
        workflow: Any,
        payload: Any = None,
        initial_state: Any = None,
        queue: Any = None,
        concurrency_key: str | None = None,
        run_timeout_seconds: float | None = None,
    ) -> ExecutionHandle:
        """Start an independent run and return its handle."""
        refuse("ctx.step.invoke", {"queue": queue, "concurrency_key": concurrency_key})
        with self._raising(step_key):
            invocation = checked_invocation(
                step_key, workflow, payload, initial_state, run_timeout_seconds
            )
            return await self._independent.start(step_key, invocation)

    async def batch_invoke(
        self, step_key: str, workflows: Sequence[BatchWorkflowInput]
    ) -> list[ExecutionHandle]:
        """Start independent runs and return their handles in order."""
        return await self._started(step_key, checked_entries(step_key, workflows))

    async def agent_invoke(self, step_key: str, config: AgentRunConfig) -> ExecutionHandle:
        """Start a run of an agent of its own, and return its handle."""
        return await self.invoke(step_key, *arguments(entry_of(step_key, config)))

    async def batch_agent_invoke(
        self, step_key: str, configs: Sequence[AgentRunConfig]
    ) -> list[ExecutionHandle]:
        """Start runs of agents of their own, and return their handles in order."""
        entries = [entry_of(step_key, one) for one in checked_list(step_key, configs)]
        return await self._started(step_key, entries)

    async def invoke_and_wait(  # noqa: PLR0917 - the order of the original SDK
        self,
        step_key: str,
        workflow: Any,
        payload: Any = None,
        initial_state: Any = None,
        queue: Any = None,
        concurrency_key: str | None = None,
        run_timeout_seconds: float | None = None,
    ) -> Any:
        """Run a workflow or an agent inside this run, and return its result."""
        refuse("ctx.step.invoke_and_wait", {"queue": queue, "concurrency_key": concurrency_key})
        with self._raising(step_key):
            invocation = checked_invocation(
                step_key, workflow, payload, initial_state, run_timeout_seconds
            )
            return await self._children.call(step_key, invocation)

    async def batch_invoke_and_wait(
        self, step_key: str, workflows: Sequence[BatchWorkflowInput]
    ) -> list[BatchStepResult]:
        """Run workflows and agents inside this run, beside each other."""
        entries = checked_entries(step_key, workflows)
        return await self._batch(step_key, entries, self._told)

    async def agent_invoke_and_wait(self, step_key: str, config: AgentRunConfig) -> AgentResult:
        """Run an agent inside this run, and return its result."""
        entry = entry_of(step_key, config)
        result: AgentResult = await self.invoke_and_wait(step_key, *arguments(entry))
        return result

    async def batch_agent_invoke_and_wait(
        self, step_key: str, configs: Sequence[AgentRunConfig]
    ) -> list[BatchStepResult]:
        """Run agents inside this run, beside each other."""
        entries = [entry_of(step_key, one) for one in checked_list(step_key, configs)]
        return await self._batch(step_key, entries, self._told)

    async def _started(
        self, step_key: str, entries: Sequence[BatchWorkflowInput]
    ) -> list[ExecutionHandle]:
        """Start each entry; raise why the first one that failed did, once all have been tried."""

        async def start(key: str, one: BatchWorkflowInput) -> ExecutionHandle | StepExecutionError:
            try:
                return await self.invoke(key, *arguments(one))
            except StepExecutionError as error:
                return error

        found = await self._batch(step_key, entries, start)
        handles = [one for one in found if isinstance(one, ExecutionHandle)]
        for one in found:
            if isinstance(one, StepExecutionError):
                raise one
        return handles

    async def _told(self, key: str, one: BatchWorkflowInput) -> BatchStepResult:
        try:
            result = await self.invoke_and_wait(key, *arguments(one))
        except StepExecutionError as error:
            return BatchStepResult(workflow_id=one.id, success=False, error=str(error))
        return BatchStepResult(workflow_id=one.id, success=True, result=result)

    async def _batch(
        self,
        step_key: str,
        entries: Sequence[BatchWorkflowInput],
        step: Callable[[str, BatchWorkflowInput], Coroutine[Any, Any, T]],
    ) -> list[T]:
        """Do each entry in a step of its own, whose key is that of the batch and its number."""
        with self._raising(f"{step_key}/{len(entries)}"):
            pass  # the keys of the entries can be used
        steps = (step(f"{step_key}/{number}", one) for number, one in enumerate(entries))
        return await asyncio.gather(*steps)


def arguments(one: BatchWorkflowInput) -> tuple[Any, ...]:
    """Return an entry of a batch as the arguments of `invoke` and `invoke_and_wait`."""
    return one.id, one.payload, one.initial_state, None, None, one.run_timeout_seconds
