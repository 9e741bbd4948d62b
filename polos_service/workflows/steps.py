"""`ctx.step` of a workflow, on top of the durable steps of its run."""

from __future__ import annotations

import hashlib
import random
import time
import uuid
from collections.abc import Awaitable, Callable, Iterator, Mapping
from contextlib import contextmanager
from datetime import UTC, datetime
from functools import partial
from typing import Any, NoReturn, Protocol

from polos.v1.error_pb2 import FailureReason
from polos.v1.event_pb2 import WaitKind
from polos_client.calls.handle import ExecutionHandle
from polos_client.deadlines import MAX_RUN_SECONDS
from polos_client.define.steps import Data
from polos_client.errors import DefinitionError, PolosError, StepExecutionError, StoreUnavailable
from polos_service.errors import StepError
from polos_service.logs import get_logger
from polos_service.runs.attempt import Attempt, StepOutput
from polos_service.runs.clock import Clock
from polos_service.runs.context import RunContext
from polos_service.runs.frame import SECOND
from polos_service.runs.pausing import Ended
from polos_service.runs.retries import Growing
from polos_service.tools.steps import publish, shown
from polos_service.tools.values import decode, encode
from polos_service.workflows.arguments import (
    MICROSECOND,
    check_retries,
    check_seconds,
    check_wait,
    nanoseconds,
)
from polos_service.workflows.children import Children
from polos_service.workflows.functions import FAILED, Function
from polos_service.workflows.independent import Independent
from polos_service.workflows.raising import Raising
from polos_service.workflows.starting import StartingSteps

NOT_BUILT = frozenset({"publish_event", "wait_for_event"})
"""What `ctx.step` of the original SDK has and this version does not."""

STORE_RETRIES = Growing(tries=5, base=1.0, limit=10.0)
"""How often an answer to another run is tried while the store is away."""

EPOCH = datetime.fromtimestamp(0, UTC)

log = get_logger(__name__)


class Resume(Protocol):
    """Answers a wait of another run."""

    def __call__(  # noqa: PLR0917 - as `Waits.answer`
        self,
        run: RunContext,
        run_id: str,
        step_key: str,
        data_json: str,
        request_id: str,
        workflow_id: str,
    ) -> Awaitable[object]:
        """Answer the wait `step_key` of `run_id`, which executes this, as the code of `run`.

        Raises:
            PolosError: the wait cannot be answered, or the store is away.

        """
        ...


class WorkflowSteps(StartingSteps):
    """The steps of one run of a workflow; see `polos_client.define.steps.Steps`."""

    def __init__(
        self,
        ctx: RunContext,
        clock: Clock,
        resume: Resume,
        children: Children,
        independent: Independent,
    ) -> None:
        super().__init__(Raising(), children, independent)
        self._ctx = ctx.once()
        self._clock = clock
        self._resume = resume

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
        check_retries(step_key, max_retries, base_delay, max_delay)
        check_seconds(step_key, "timeout", timeout)
        function = Function(func, partial(func, *args, **kwargs), timeout)
        retries = Growing(max_retries + 1, base_delay, max_delay)
        with self._raising(step_key):
            output = await self._ctx.step(
                step_key, "run", function.body, retries=retries, abandons=True
            )
            with self._ctx.handing_over():
                try:
                    return await function.value(output)
                except StepError as error:  # it could be read when the step ended
                    await self._ctx.leave_unread(step_key, error)

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
        parts = {
            "seconds": seconds,
            "minutes": minutes,
            "hours": hours,
            "days": days,
            "weeks": weeks,
        }
        await self._timer(step_key, self._clock.now() + nanoseconds(step_key, parts))

    async def wait_until(self, step_key: str, timestamp: datetime) -> None:
        """Wait until a time."""
        if not isinstance(timestamp, datetime):
            raise StepExecutionError(f"timestamp={timestamp!r} of {step_key!r} must be a datetime.")
        zoned = timestamp if timestamp.tzinfo is not None else timestamp.replace(tzinfo=UTC)
        until = (zoned - EPOCH) // MICROSECOND * 1000
        with self._raising(step_key):
            known = self._ctx.knows(step_key)
        if until <= self._clock.now() and not known:
            raise StepExecutionError(f"The time {zoned.isoformat()} of {step_key!r} is past.")
        await self._timer(step_key, until)

    async def suspend(
        self, step_key: str, data: Data | None = None, timeout: float | None = None
    ) -> dict[str, Any]:
        """Wait for an answer from outside."""
        check_seconds(step_key, "timeout", timeout)
        until = None if timeout is None else self._clock.now() + round(timeout * SECOND)
        with self._raising(step_key):
            text = shown("data of a wait", {} if data is None else data)
            ended = await self._ctx.waited(
                step_key, WaitKind.WAIT_KIND_SUSPEND, data_json=text, until=until
            )
            if ended.resumed.expired:
                raise StepError(
                    FailureReason.FAILURE_REASON_WAIT_EXPIRED, "Nobody answered in time."
                )
        return self._answer(ended)

    async def wait_for_run(
        self, step_key: str, run: ExecutionHandle | str, timeout: float | None = None
    ) -> Any:
        """Wait for the end of a run that has a log of its own, and return its result."""
        check_seconds(step_key, "timeout", timeout)
        with self._raising(step_key):
            return await self._independent.end(step_key, run, timeout)

    async def resume(
        self,
        step_key: str,
        suspend_step_key: str,
        suspend_execution_id: str,
        suspend_workflow_id: str,
        data: Any,
    ) -> None:
        """Answer a wait of another run."""
        check_wait(
            step_key,
            suspend_step_key,
            suspend_execution_id=suspend_execution_id,
            suspend_workflow_id=suspend_workflow_id,
        )
        request_id = hashlib.sha256(f"{self._ctx.run_id} {step_key}".encode()).hexdigest()

        async def body(_: Attempt) -> StepOutput:
            text = shown("answer to a wait", data)
            try:
                await self._resume(
                    self._ctx,
                    suspend_execution_id,
                    suspend_step_key,
                    text,
                    request_id,
                    suspend_workflow_id,
                )
            except PolosError as error:
                away = isinstance(error, StoreUnavailable)
                raise StepError(FAILED, str(error), retryable=away) from error
            return StepOutput(result_json="null")

        with self._raising(step_key):
            await self._ctx.step(step_key, "resume", body, retries=STORE_RETRIES, abandons=True)

    async def publish_workflow_event(
        self, step_key: str, data: Data, event_type: str | None = None
    ) -> None:
        """Put an event into the run's stream."""

        async def body(attempt: Attempt) -> StepOutput:
            await publish(attempt, data, event_type)
            return StepOutput(result_json="null")

        with self._raising(step_key):
            await self._ctx.step(step_key, "event", body, abandons=True)

    async def uuid(self, step_key: str) -> str:
        """Return a random UUID."""
        return str(await self._made(step_key, "uuid", lambda: str(uuid.uuid4())))

    async def now(self, step_key: str) -> int:
        """Return the time in milliseconds since the epoch."""
        return int(await self._made(step_key, "now", lambda: self._clock.now() // 1_000_000))

    async def random(self, step_key: str) -> float:
        """Return a random number from 0 to 1."""
        return float(await self._made(step_key, "random", random.random))

    async def version(self, step_key: str, current: int = 1) -> int:
        """Return which version of the code at this place the run follows."""
        if type(current) is not int or current < 0:
            raise StepExecutionError(
                f"current={current!r} of {step_key!r} must be a whole number from 0."
            )
        with self._raising(step_key):
            if self._ctx.replays and not self._ctx.knows(step_key):
                return 0
        return int(await self._made(step_key, "version", lambda: current))

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

    def __getattr__(self, name: str) -> NoReturn:
        """Refuse what needs topics, which are not built yet."""
        if name in NOT_BUILT:
            raise DefinitionError(f"ctx.step.{name} is not built yet in this version")
        raise AttributeError(f"ctx.step has no attribute {name!r}")

    async def _made(self, step_key: str, kind: str, make: Callable[[], Any]) -> Any:
        async def body(_: Attempt) -> StepOutput:
            return StepOutput(result_json=encode(make())[0])

        with self._raising(step_key):
            output = await self._ctx.step(step_key, kind, body, abandons=True)
            return decode(output.result_json, {})

    async def _timer(self, step_key: str, until: int) -> None:
        if until - self._clock.now() > MAX_RUN_SECONDS * SECOND:
            raise StepExecutionError(f"The wait {step_key!r} is longer than 100 years.")
        with self._raising(step_key):
            await self._ctx.wait(step_key, WaitKind.WAIT_KIND_TIMER, until=until)

    def _answer(self, ended: Ended) -> dict[str, Any]:
        """Return what `suspend` returns: the event that ended the wait, and the answer in it."""
        root = self._ctx.root
        return {
            "data": decode(ended.resumed.data_json, {}),
            "event_type": f"resume_{ended.resumed.step_key}",
            "sequence_id": ended.sequence,
            "topic": f"workflow/{root.workflow_id}/{root.run_id}",
            "id": f"{root.run_id}:{ended.sequence}",
            "created_at": datetime.fromtimestamp(ended.time / SECOND, UTC).isoformat(),
        }
