"""Tools that are functions in this process: `async def` in the loop, `def` in threads."""

from __future__ import annotations

import asyncio
import contextlib
import contextvars
from collections.abc import Awaitable, Callable, Mapping
from threading import Thread
from typing import Any, TypeVar

from pydantic_core import PydanticSerializationError, to_json

from polos.v1.error_pb2 import FailureReason
from polos.v1.event_pb2 import ToolCall
from polos_client.context import WorkflowContext
from polos_client.tool import Tool, describe
from polos_service.errors import StepError, being_cancelled
from polos_service.logs import get_logger
from polos_service.tools.isolation import start_tool

T = TypeVar("T")

log = get_logger(__name__)

TOOL_PATIENCE = 4.0
"""Seconds that a cancelled tool gets to clean up; less than a cancelled run gets."""


async def call_tool(
    tools: Mapping[str, Tool], call: ToolCall, ctx: WorkflowContext, limit: float
) -> str:
    """Call a tool as the model asked for it, and return its result as JSON text.

    Raises:
        StepError: the tool is unknown, its arguments do not fit, it raised, it took
            longer than `limit` seconds, what it returned is no JSON value, or it must not
            run twice and has begun before. The model is told the message.

    """
    tool = tools.get(call.name)
    if tool is None:
        known = ", ".join(sorted(tools)) or "none"
        raise StepError(
            FailureReason.FAILURE_REASON_TOOL_NOT_FOUND,
            f"There is no tool {call.name[:64]!r}. Tools: {known}.",
        )
    try:
        arguments = tool.validate(call.arguments_json)
    except Exception as error:
        raise StepError(FailureReason.FAILURE_REASON_TOOL_BAD_ARGUMENTS, misfit(error)) from error
    if tool.at_most_once and ctx.attempt > 1:
        raise StepError(
            FailureReason.FAILURE_REASON_TOOL_OUTCOME_UNKNOWN,
            f"The service's process ended while the tool {tool.id} ran. Whether it did what it "
            "does is unknown, and it must not run twice.",
        )
    try:
        return await bounded(use(tool, ctx, arguments), tool, limit)
    except StepError:
        raise
    except PydanticSerializationError as error:
        raise failed(tool, f"returned what is no JSON value: {error}") from error
    except BaseException as error:
        if isinstance(error, asyncio.CancelledError) and being_cancelled():
            raise
        log.warning("tool_failed", tool=tool.id, run_id=ctx.execution_id, exc_info=error)
        # Even sys.exit() in a tool, or a CancelledError of its own, must not end the service.
        raise failed(tool, f"raised {told(error)}") from error


def misfit(error: Exception) -> str:
    """Return what is wrong with a tool's arguments, for the model."""
    return describe(error) if isinstance(error, ValueError) else told(error)


def told(error: BaseException) -> str:
    """Return an exception in a line, without its traceback."""
    try:
        return f"{type(error).__name__}: {error}"
    except BaseException:  # noqa: BLE001 - its text may even be sys.exit()
        return type(error).__name__


def failed(tool: Tool, what: str) -> StepError:
    """Return the error of a tool that failed."""
    return StepError(FailureReason.FAILURE_REASON_TOOL_FAILED, f"The tool {tool.id} {what}")


async def bounded(function: Awaitable[str], tool: Tool, limit: float) -> str:
    """Await a tool for so many seconds; cancelled, it gets a moment to clean up.

    It runs in a task of its own: a tool that cancels the task it is in cancels itself.
    """
    task = start_tool(contained(function))
    task.add_done_callback(lambda task: task.cancelled() or task.exception())
    try:
        await asyncio.wait({task}, timeout=limit)
    except asyncio.CancelledError:
        await end(task)
        raise
    if task.done():
        return task.result()
    await end(task)
    raise StepError(
        FailureReason.FAILURE_REASON_TOOL_TIMEOUT,
        f"The tool {tool.id} took longer than {limit:g} s and was cancelled.",
    )


async def end(task: asyncio.Future[str]) -> None:
    """Cancel a tool and wait a moment for it; what does not give in is left to itself."""
    task.cancel()
    await asyncio.wait({task}, timeout=TOOL_PATIENCE)


async def use(tool: Tool, ctx: WorkflowContext, arguments: Mapping[str, Any]) -> str:
    """Run the tool's function where it disturbs nobody, and return its result as JSON text."""
    if tool.is_async:
        return as_json(await tool.invoke(ctx, arguments))
    return await in_thread(lambda: as_json(tool.invoke(ctx, arguments)))


def as_json(result: Any) -> str:
    """Return the result as JSON text; what comes lazily, a generator say, runs in here."""
    return to_json(result, inf_nan_mode="strings").decode()  # JSON has no such numbers


async def contained(function: Awaitable[str]) -> str:
    """Await a tool, and keep in what would end the event loop: sys.exit(), for example."""
    try:
        return await function
    except asyncio.CancelledError:
        raise
    except BaseException as error:
        raise carried(error) from error


async def in_thread(function: Callable[[], T]) -> T:
    """Run a blocking function in a thread of its own.

    The thread is a daemon and in no pool: a function that never returns keeps neither
    other tools nor the end of the process waiting. Cancelling leaves it to itself.
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
        except BaseException as error:  # noqa: BLE001 - it is raised where it is awaited
            outcome = (result.set_exception, carried(error))
        with contextlib.suppress(RuntimeError):  # the loop may be gone by now
            loop.call_soon_threadsafe(deliver, *outcome)

    Thread(target=run, name="polos-tool", daemon=True).start()
    return await result


def carried(error: BaseException) -> Exception:
    """Return the error as one that a future can carry to where it is awaited."""
    if isinstance(error, Exception) and not isinstance(error, StopIteration):
        return error
    return RuntimeError(told(error))
