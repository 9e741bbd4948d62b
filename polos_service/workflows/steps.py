"""`ctx.step` of a workflow, on top of the durable steps of its run."""

from __future__ import annotations

import asyncio
import inspect
import random
import time
import uuid
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from datetime import UTC, datetime, timedelta
from functools import partial
from typing import Any, NoReturn

from polos.v1.error_pb2 import FailureReason
from polos.v1.event_pb2 import Resumed, WaitKind
from polos_client.define.steps import Data
from polos_client.errors import DefinitionError, StepExecutionError
from polos_service.errors import StepError
from polos_service.logs import get_logger
from polos_service.runs.attempt import Attempt, StepOutput
from polos_service.runs.clock import Clock
from polos_service.runs.context import RunContext
from polos_service.runs.frame import SECOND
from polos_service.runs.retries import Growing
from polos_service.tools.local import in_thread
from polos_service.tools.steps import publish
from polos_service.tools.values import decode, encode, returned_by

MODELS = "models"
"""The member of a step's private part that names the classes of models."""

FAILED = FailureReason.FAILURE_REASON_STEP_FAILED

NOT_BUILT = frozenset(
    {
        "agent_invoke",
        "agent_invoke_and_wait",
        "batch_agent_invoke",
        "batch_agent_invoke_and_wait",
        "batch_invoke",
        "batch_invoke_and_wait",
        "invoke",
        "invoke_and_wait",
        "publish_event",
        "wait_for_event",
    }
)
"""What `ctx.step` of the original SDK has and this version does not."""

inside: ContextVar[bool] = ContextVar("inside_a_step", default=False)
"""Whether the code runs in the function of a step, which must not have steps of its own."""

log = get_logger(__name__)


class WorkflowSteps:
    """The steps of one run of a workflow; see `polos_client.define.steps.Steps`."""

    def __init__(self, ctx: RunContext, clock: Clock) -> None:
        self._ctx = ctx
        self._clock = clock

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
        """Call a function, and return what it returns, as it comes back from the log."""
        call = partial(func, *args, **kwargs)

        async def body(_: Attempt) -> StepOutput:
            text, models = encode(await called(call, func, timeout))
            return StepOutput(result_json=text, private={MODELS: models} if models else {})

        retries = Growing(max_retries + 1, base_delay, max_delay)
        with raising():
            output = await self._ctx.step(step_key, "run", body, retries=retries, abandons=True)
            return decode(output.result_json, output.private.get(MODELS, {}), returned_by(func))

    async def wait_for(  # noqa: PLR0917 - the order of the original SDK
        self,
        step_key: str,
        seconds: float | None = None,
        minutes: float | None = None,
        hours: float | None = None,
        days: float | None = None,
        weeks: float | None = None,
    ) -> None:
        """Wait for the sum of the parts."""
        total = timedelta(
            seconds=seconds or 0,
            minutes=minutes or 0,
            hours=hours or 0,
            days=days or 0,
            weeks=weeks or 0,
        )
        if total <= timedelta():
            raise StepExecutionError(f"The wait {step_key!r} must be for more than 0 seconds.")
        await self._timer(step_key, self._clock.now() + round(total.total_seconds() * SECOND))

    async def wait_until(self, step_key: str, timestamp: datetime) -> None:
        """Wait until a time."""
        zoned = timestamp if timestamp.tzinfo is not None else timestamp.replace(tzinfo=UTC)
        until = round(zoned.timestamp() * SECOND)
        if until <= self._clock.now() and not self._ctx.knows(step_key):
            raise StepExecutionError(f"The time {zoned.isoformat()} of {step_key!r} is past.")
        await self._timer(step_key, until)

    async def suspend(
        self, step_key: str, data: Data | None = None, timeout: float | None = None
    ) -> dict[str, Any]:
        """Wait for an answer from outside."""
        text, _ = encode({} if data is None else data)
        until = None if timeout is None else self._clock.now() + round(timeout * SECOND)
        with raising():
            resumed = await self._ctx.wait(
                step_key, WaitKind.WAIT_KIND_SUSPEND, data_json=text, until=until
            )
        if resumed.expired:
            raise StepExecutionError(f"Nobody answered {step_key!r} in time.")
        return answer_of(self._ctx.run_id, resumed)

    async def publish_workflow_event(
        self, step_key: str, data: Data, event_type: str | None = None
    ) -> None:
        """Put an event into the run's stream."""

        async def body(attempt: Attempt) -> StepOutput:
            await publish(attempt, data, event_type)
            return StepOutput(result_json="null")

        with raising():
            await self._ctx.step(step_key, "event", body, abandons=True)

    async def uuid(self, step_key: str) -> str:
        """Return a random UUID."""
        return str(await self._made(step_key, "uuid", lambda: str(uuid.uuid4())))

    async def now(self, step_key: str) -> int:
        """Return the time in milliseconds since the epoch."""
        made = await self._made(step_key, "now", lambda: self._clock.now() // 1_000_000)
        return int(made)

    async def random(self, step_key: str) -> float:
        """Return a random number from 0 to 1."""
        return float(await self._made(step_key, "random", random.random))

    async def _made(self, step_key: str, kind: str, make: Callable[[], Any]) -> Any:
        async def body(_: Attempt) -> StepOutput:
            return StepOutput(result_json=encode(make())[0])

        with raising():
            output = await self._ctx.step(step_key, kind, body)
            return decode(output.result_json, {})

    @contextmanager
    def trace(self, name: str, attributes: Mapping[str, Any] | None = None) -> Iterator[None]:
        """Name a part of the code in the service's log."""
        begun = time.perf_counter()
        try:
            yield
        finally:
            took = time.perf_counter() - begun
            told = dict(attributes or {})
            log.info("traced", name=name, run_id=self._ctx.run_id, seconds=took, attributes=told)

    async def version(self, step_key: str, current: int = 1) -> int:
        """Return which version of the code at this place the run follows."""
        if self._ctx.replays and not self._ctx.knows(step_key):
            return 0
        return int(await self._made(step_key, "version", lambda: current))

    async def resume(
        self,
        step_key: str,
        suspend_step_key: str,
        suspend_execution_id: str,
        suspend_workflow_id: str,
        data: Any,
    ) -> None:
        """Answer a wait of another run."""
        del step_key, suspend_step_key, suspend_execution_id, suspend_workflow_id, data
        raise DefinitionError("ctx.step.resume is not built yet in this version")

    def __getattr__(self, name: str) -> NoReturn:
        """Refuse what needs children or topics, which are not built yet."""
        if name in NOT_BUILT:
            raise DefinitionError(f"ctx.step.{name} is not built yet in this version")
        raise AttributeError(f"ctx.step has no attribute {name!r}")

    async def _timer(self, step_key: str, until: int) -> None:
        with raising():
            await self._ctx.wait(step_key, WaitKind.WAIT_KIND_TIMER, until=until)


@contextmanager
def raising() -> Iterator[None]:
    """Raise what a step failed with as the user's code knows it; refuse steps inside of steps."""
    if inside.get():
        raise StepExecutionError(
            "The function of a step cannot use ctx.step: only the workflow's own code can."
        )
    try:
        yield
    except StepError as error:
        raise StepExecutionError(error.message) from None


async def called(call: Callable[[], Any], func: Callable[..., Any], timeout: float | None) -> Any:
    """Call a user's function; an exception becomes a StepError that may be tried again."""
    inside.set(True)
    try:
        async with asyncio.timeout(timeout):
            if inspect.iscoroutinefunction(func):
                return await call()
            result = await in_thread(call)
            return await result if inspect.isawaitable(result) else result
    except TimeoutError as error:
        raise StepError(
            FailureReason.FAILURE_REASON_STEP_TIMEOUT,
            f"The function took longer than {timeout:g} s.",
            retryable=True,
        ) from error
    except Exception as error:
        raise StepError(FAILED, told(error), retryable=True) from error
    finally:
        inside.set(False)


def told(error: BaseException) -> str:
    """Return an exception's text, or its class where it has none; its own text may fail."""
    try:
        return str(error) or type(error).__name__
    except BaseException:  # noqa: BLE001 - it is any code
        return type(error).__name__


def answer_of(run_id: str, resumed: Resumed) -> dict[str, Any]:
    """Return what `suspend` returns for an answer."""
    return {
        "data": decode(resumed.data_json, {}),
        "event_type": f"resume_{resumed.step_key}",
        "topic": f"workflow/{run_id}",
    }
