"""`ctx.step`: what a workflow's code does durably."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping, Sequence
from contextlib import AbstractContextManager
from datetime import datetime
from typing import TYPE_CHECKING, Any, NoReturn, Protocol, TypeVar, cast, overload

from pydantic import BaseModel

from polos_client.define.children import (
    AgentRunConfig,
    BatchStepResult,
    BatchWorkflowInput,
    Defined,
)
from polos_client.errors import DefinitionError
from polos_client.result import AgentResult

if TYPE_CHECKING:
    from polos_client.calls.handle import ExecutionHandle

_T = TypeVar("_T")

Data = Mapping[str, Any] | BaseModel
"""A JSON object: a dict of JSON values, or a model that is written as one."""


class Steps(Protocol):
    """The durable steps of a run.

    Each has a key, any text of 1 to 1024 bytes, used once in a run. The run's log records how a
    step ended: when the code runs again, after a crash or a wait, the step returns what it
    returned before. Code between steps runs again each time.

    Every method may raise StepExecutionError: the step failed, now or when it was recorded.
    """

    @overload
    async def run(
        self,
        step_key: str,
        func: Callable[..., Awaitable[_T]],
        *args: Any,
        max_retries: int = 2,
        base_delay: float = 1.0,
        max_delay: float = 10.0,
        timeout: float | None = None,
        **kwargs: Any,
    ) -> _T: ...

    @overload
    async def run(
        self,
        step_key: str,
        func: Callable[..., _T],
        *args: Any,
        max_retries: int = 2,
        base_delay: float = 1.0,
        max_delay: float = 10.0,
        timeout: float | None = None,
        **kwargs: Any,
    ) -> _T: ...

    async def run(
        self,
        step_key: str,
        func: Callable[..., Any],
        *args: Any,
        max_retries: int = 2,
        base_delay: float = 1.0,
        max_delay: float = 10.0,
        timeout: float | None = None,
        **kwargs: Any,
    ) -> Any:
        """Call a function, and return what it returns, as it comes back from the log.

        An `async def` runs in the service's event loop, a `def` in a thread. The return value must
        be a JSON value, a pydantic model, or a list or dict of models; with a return annotation,
        any type that pydantic can read.

        Args:
            step_key: the step's key.
            func: the function; it must not use `ctx.step` itself.
            args: its arguments.
            max_retries: how often it is called again if it raises, from 0; a crash of the service
                does not count.
            base_delay: seconds before the second call, doubled before each further one.
            max_delay: the maximum number of seconds before a call.
            timeout: seconds that one call may take; None: any time. A `def` that takes longer
                keeps running, and its result is dropped.
            kwargs: its keyword arguments.

        """
        ...

    async def wait_for(  # noqa: PLR0917 - the order of the original SDK
        self,
        step_key: str,
        seconds: float | None = None,
        minutes: float | None = None,
        hours: float | None = None,
        days: float | None = None,
        weeks: float | None = None,
    ) -> None:
        """Wait for the sum of the parts, which must be above 0."""
        ...

    async def wait_until(self, step_key: str, timestamp: datetime) -> None:
        """Wait until a time, which must not be past; one without a zone is in UTC."""
        ...

    async def suspend(
        self, step_key: str, data: Data | None = None, timeout: float | None = None
    ) -> dict[str, Any]:
        """Wait for an answer from outside: `client.resume`, or RunService.ResumeRun.

        Args:
            step_key: the wait's key.
            data: what is shown to whoever answers.
            timeout: seconds after which the wait fails; None: never.

        Returns:
            `data` (the answer), `event_type`, `sequence_id`, `topic`, `id` and `created_at` of the
            event that ended the wait.

        """
        ...

    async def wait_for_run(
        self, step_key: str, run: ExecutionHandle | str, timeout: float | None = None
    ) -> Any:
        """Wait for the end of an independent run, and return its result.

        This run can be parked meanwhile. If it is cancelled, the runs that it has started and
        waits for are cancelled first.

        Args:
            step_key: the wait's key.
            run: the run of the same project: its handle, or its id.
            timeout: seconds after which the wait fails, and the other run continues; None: never.

        Returns:
            What the workflow returned, a model as an instance of its class. For an agent, its
            `AgentResult`. StepExecutionError is raised if the run failed or was cancelled, or if
            it waits for this run, directly or through others, and none of the waits has a timeout.

        """
        ...

    async def resume(
        self,
        step_key: str,
        suspend_step_key: str,
        suspend_execution_id: str,
        suspend_workflow_id: str,
        data: Any,
    ) -> None:
        """Answer a wait of another run of the same project, except an approval.

        `suspend_workflow_id` is the workflow or agent that the run executes; empty: any.
        """
        ...

    async def publish_workflow_event(
        self, step_key: str, data: Data, event_type: str | None = None
    ) -> None:
        """Put an event of your own into the run's stream.

        Args:
            step_key: the step's key.
            data: the data of the event, at most 256 KiB as JSON.
            event_type: its type, 1 to 128 characters; None: `custom`. The types of the service's
                own events, such as `workflow_finish` or `suspend_KEY`, are refused.

        """
        ...

    async def invoke(  # noqa: PLR0917 - the order of the original SDK
        self,
        step_key: str,
        workflow: Defined | str,
        payload: Any = None,
        initial_state: Data | None = None,
        queue: Any = None,
        concurrency_key: str | None = None,
        run_timeout_seconds: float | None = None,
    ) -> ExecutionHandle:
        """Start an independent run of a workflow or an agent, and return its handle.

        It is started once, and continues even after the end of this run: nothing waits for it.
        Its events are in its own log. Its session and user are those of this run.
        If the queue of the service is full, the step waits for room.

        Args:
            step_key: the step's key.
            workflow: what runs, or its id.
            payload: see `invoke_and_wait`.
            initial_state: its state.
            queue: not built yet.
            concurrency_key: not built yet.
            run_timeout_seconds: how long it may take, from 0.001 s to 100 years; None: the
                deadline of an agent, any time for a workflow.

        """
        ...

    async def batch_invoke(
        self, step_key: str, workflows: Sequence[BatchWorkflowInput]
    ) -> list[ExecutionHandle]:
        """Start independent runs, and return their handles in order; see `invoke`.

        Each is started in a separate step: `step_key/0`, `step_key/1` and so on. If one cannot
        be started, the error is raised once all others are started.
        """
        ...

    async def agent_invoke(self, step_key: str, config: AgentRunConfig) -> ExecutionHandle:
        """Start an independent run of an agent, and return its handle; see `invoke`."""
        ...

    async def batch_agent_invoke(
        self, step_key: str, configs: Sequence[AgentRunConfig]
    ) -> list[ExecutionHandle]:
        """Start independent runs of agents, and return their handles; see `batch_invoke`."""
        ...

    async def invoke_and_wait(  # noqa: PLR0917 - the order of the original SDK
        self,
        step_key: str,
        workflow: Defined | str,
        payload: Any = None,
        initial_state: Data | None = None,
        queue: Any = None,
        concurrency_key: str | None = None,
        run_timeout_seconds: float | None = None,
    ) -> Any:
        """Run a workflow or an agent inside this run, and return its result.

        It is a child: its events are in this run's log, and it is cancelled with this run. Its
        session and user are those of this run.

        Args:
            step_key: the step's key.
            workflow: what runs, or its id.
            payload: its payload, at most 480 KiB as JSON; an agent takes
                `{"input": ..., "streaming": False, "provider_kwargs": {...}}`.
            initial_state: its state.
            queue: not built yet.
            concurrency_key: not built yet.
            run_timeout_seconds: how long it may take, from 0.001 s to 100 years; None: the
                deadline of an agent, any time for a workflow.

        Returns:
            What the workflow returned, a model as an instance of its class. For an agent, its
            `AgentResult`.

        """
        ...

    async def batch_invoke_and_wait(
        self, step_key: str, workflows: Sequence[BatchWorkflowInput]
    ) -> list[BatchStepResult]:
        """Run workflows and agents inside this run, in parallel.

        Each runs in a separate step: `step_key/0`, `step_key/1` and so on. If one fails, its
        result says so, and the others continue.
        """
        ...

    async def agent_invoke_and_wait(self, step_key: str, config: AgentRunConfig) -> AgentResult:
        """Run an agent inside this run, and return its result; see `invoke_and_wait`."""
        ...

    async def batch_agent_invoke_and_wait(
        self, step_key: str, configs: Sequence[AgentRunConfig]
    ) -> list[BatchStepResult]:
        """Run agents inside this run, in parallel; see `batch_invoke_and_wait`."""
        ...

    async def uuid(self, step_key: str) -> str:
        """Return a random UUID, the same each time."""
        ...

    async def now(self, step_key: str) -> int:
        """Return the time in milliseconds since the epoch, the same each time."""
        ...

    async def random(self, step_key: str) -> float:
        """Return a random number from 0 to 1, the same each time."""
        ...

    async def version(self, step_key: str, current: int = 1) -> int:
        """Return which version of the code the run follows at this point.

        A run that gets here for the first time gets `current`, and the same value each time after
        that. A run that was already beyond this point when the call was added gets 0.
        """
        ...

    def trace(
        self, name: str, attributes: Mapping[str, Any] | None = None
    ) -> AbstractContextManager[None]:
        """Measure a part of the code in the service's log; this is not durable."""
        ...


class NoSteps:
    """The steps of a context without a run: one that a test creates."""

    def __reduce__(self) -> str:
        """Let a copy be NO_STEPS itself."""
        return "NO_STEPS"

    def __getattr__(self, name: str) -> NoReturn:
        if name.startswith("__"):
            raise AttributeError(name)
        raise DefinitionError(f"ctx.step.{name} works in a run only; this context has none")


NO_STEPS = cast("Steps", NoSteps())
"""The steps of a context without a run."""
