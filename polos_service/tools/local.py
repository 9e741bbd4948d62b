"""Tools that are functions in this process: `async def` in the loop, `def` in threads."""

from __future__ import annotations

import asyncio
import contextlib
import contextvars
from collections.abc import Callable, Iterator, Mapping
from functools import partial
from threading import Event, Thread
from typing import Any, TypeVar

from pydantic_core import PydanticSerializationError

from polos.v1.error_pb2 import FailureReason
from polos.v1.event_pb2 import ToolCall
from polos_client.define.context import WorkflowContext
from polos_client.define.tool import Tool, describe
from polos_service.errors import StepError
from polos_service.logs import get_logger
from polos_service.sidethread import SMALL
from polos_service.tools.approved import Approved
from polos_service.tools.isolation import start_tool
from polos_service.tools.raised import failed_steps, told
from polos_service.tools.result import Returned, as_json
from polos_service.tools.stint import Limit

T = TypeVar("T")

log = get_logger(__name__)

TOOL_PATIENCE = 4.0
"""Seconds that a cancelled tool gets to clean up; less than a cancelled run gets."""


async def call_tool(
    tools: Mapping[str, Tool],
    call: ToolCall,
    ctx: WorkflowContext,
    limit: Limit,
    approved: Approved | None = None,
) -> Returned:
    """Call a tool as the model asked for it, and return its result as JSON text.

    With `approved`, it is called with those arguments.

    Raises:
        StepError: the tool is unknown, its arguments do not fit, it raised, it took longer than
            `limit` or was cut short, its result is not a JSON value, or it must not run twice and
            has begun before. The model is told the message.

    """
    tool = tools.get(call.name)
    if tool is None:
        known = ", ".join(sorted(tools)) or "none"
        raise StepError(
            FailureReason.FAILURE_REASON_TOOL_NOT_FOUND,
            f"There is no tool {call.name[:64]!r}. Tools: {known}.",
        )
    use = Use(tool, call, ctx, approved)
    # A task of its own: a tool that cancels the task it runs in cancels nothing else.
    task = start_tool(use.outcome())
    try:
        late = await limit.reached(task)
    finally:
        use.abandoned.set()
        if not task.done():
            task.cancel()
            await asyncio.wait({task}, timeout=TOOL_PATIENCE)
    if late:
        raise limit.cut or timed_out(tool, limit.seconds)
    result = failed(tool, "was cancelled") if task.cancelled() else task.result()
    if isinstance(result, StepError):
        raise result
    return result


class Use:
    """One use of a tool. Whatever its code raises, wherever it does, is a value from then on.

    Attributes:
        abandoned: set when nobody waits for the result any more.

    """

    def __init__(
        self, tool: Tool, call: ToolCall, ctx: WorkflowContext, approved: Approved | None
    ) -> None:
        self.abandoned = Event()
        self._approved = approved
        self._tool = tool
        self._call = call
        self._ctx = ctx

    async def outcome(self) -> Returned | StepError:
        """Return the tool's result as JSON text, or how it failed; raises nothing.

        Results are converted, and exceptions formatted, in a thread: both may run code of
        the tool's author that takes its time.
        """
        try:
            if not self._tool.is_async:
                return await in_thread(partial(self._settled, self._invoke))
            try:
                result = await self._tool.invoke(self._ctx, await self._validated())
            except BaseException as error:  # noqa: BLE001 - even sys.exit() ends this tool only
                return await in_thread(partial(self._failure, error))
            return await in_thread(partial(self._settled, lambda: result))
        except RuntimeError as error:
            return failed(self._tool, f"cannot run: {told(error)}")

    def _settled(self, function: Callable[[], Any]) -> Returned | StepError:
        try:
            return as_json(function(), self.abandoned)
        except BaseException as error:  # noqa: BLE001 - as above
            return self._failure(error)

    async def _validated(self) -> dict[str, Any]:
        """Return the arguments; long ones are parsed in a thread."""
        if len(self._call.arguments_json) <= SMALL:
            return self._arguments()
        return await apart(self._arguments)

    def _invoke(self) -> Any:
        return self._tool.invoke(self._ctx, self._arguments())

    def _arguments(self) -> dict[str, Any]:
        """Return the arguments of a call that may be made."""
        with validating():
            if self._approved is None:
                arguments = self._tool.validate(self._call.arguments_json)
            else:
                arguments = self._approved.arguments(self._tool, self._call.arguments_json)
        if self._tool.at_most_once and self._ctx.attempt > 1:
            raise unknown_outcome(self._tool)
        return arguments

    def _failure(self, error: BaseException) -> StepError:
        if isinstance(error, StepError):
            return error
        if isinstance(error, PydanticSerializationError):
            return failed(self._tool, f"returned a value that is not valid JSON: {error}")
        if not self.abandoned.is_set():
            log.warning(
                "tool_failed", tool=self._tool.id, run_id=self._ctx.execution_id, exc_info=error
            )
        why = failed_steps(error)
        return failed(self._tool, f"raised {told(error)}" if why is None else f"failed: {why}")


@contextlib.contextmanager
def validating() -> Iterator[None]:
    """Raise whatever a tool's arguments fail with as a StepError."""
    try:
        yield
    except Exception as error:
        message = describe(error) if isinstance(error, ValueError) else told(error)
        raise StepError(FailureReason.FAILURE_REASON_TOOL_BAD_ARGUMENTS, message) from error


async def in_time(tool: Tool, function: Callable[[], T], limit: float) -> T:
    """Return what a function that runs code of the tool's author returns, from a thread.

    Raises:
        StepError: the function raised it, or took longer than `limit` seconds.

    """
    try:
        async with asyncio.timeout(limit):
            return await apart(function)
    except TimeoutError:
        raise timed_out(tool, limit) from None
    except RuntimeError as error:
        raise failed(tool, f"cannot run: {error}") from error


async def in_thread(function: Callable[[], T]) -> T:
    """Run a blocking function in a thread of its own.

    The thread is a daemon and in no pool: a function that never returns keeps neither
    other tools nor the end of the process waiting. Cancelling leaves it to itself.

    Raises:
        RuntimeError: the thread cannot be started, or the function raised.

    """
    loop = asyncio.get_running_loop()
    result: asyncio.Future[T] = loop.create_future()
    context = contextvars.copy_context()

    def deliver(settle: Callable[[Any], None], value: Any) -> None:
        if not result.done():
            settle(value)

    def run() -> None:
        outcome: tuple[Callable[[Any], None], object]
        try:
            outcome = (result.set_result, context.run(function))
        except BaseException as error:  # noqa: BLE001 - a future cannot carry all of them
            outcome = (result.set_exception, RuntimeError(told(error)))
        with contextlib.suppress(RuntimeError):  # the loop may be gone by now
            loop.call_soon_threadsafe(deliver, *outcome)

    Thread(target=run, name="polos-tool", daemon=True).start()
    return await result


async def apart(function: Callable[[], T]) -> T:
    """Return what a function returns, from a thread: it takes long, or runs code of the user's.

    Raises:
        StepError: the function raised it.
        RuntimeError: it raised anything else, even SystemExit; or no thread can be started.

    """
    found = await in_thread(partial(attempted, function))
    if isinstance(found, StepError):
        raise found
    return found


def attempted(function: Callable[[], T]) -> T | StepError:
    """Return what the function returns, or the StepError that it raises."""
    try:
        return function()
    except StepError as error:
        return error


def timed_out(tool: Tool, limit: float) -> StepError:
    """Return the error of a tool that took longer than `limit` seconds."""
    return StepError(
        FailureReason.FAILURE_REASON_TOOL_TIMEOUT,
        f"The tool {tool.id} took longer than {limit:g} s and was cancelled.",
    )


def unknown_outcome(tool: Tool) -> StepError:
    """Return the error of a tool that must not run twice, and was interrupted."""
    return StepError(
        FailureReason.FAILURE_REASON_TOOL_OUTCOME_UNKNOWN,
        f"The service process ended while the tool {tool.id} was running. Whether it took effect "
        "is unknown, and it must not run twice.",
    )


def failed(tool: Tool, what: str) -> StepError:
    """Return the error of a tool that failed."""
    return StepError(FailureReason.FAILURE_REASON_TOOL_FAILED, f"The tool {tool.id} {what}")
