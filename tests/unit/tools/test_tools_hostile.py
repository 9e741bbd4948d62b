"""Tools whose code does what no tool should: the model is told, and nothing else happens."""

from __future__ import annotations

import asyncio
import itertools
import sys
import threading
from collections.abc import Callable, Iterable, Iterator
from typing import Any

import pytest
from pydantic import BaseModel, field_validator
from structlog.testing import capture_logs

from polos.v1.error_pb2 import FailureReason
from polos.v1.event_pb2 import ToolCall
from polos_client.define.context import WorkflowContext
from polos_client.define.tool import Tool, tool
from polos_service.errors import StepError
from polos_service.limits import MESSAGE_LIMIT
from polos_service.tools import local
from polos_service.tools.local import call_tool
from polos_service.tools.stint import Limit
from tests.support.stores import until

FAILED = FailureReason.FAILURE_REASON_TOOL_FAILED
TOO_LARGE = FailureReason.FAILURE_REASON_OUTPUT_TOO_LARGE
TIMEOUT = FailureReason.FAILURE_REASON_TOOL_TIMEOUT
CONTEXT = WorkflowContext(
    workflow_id="agent", execution_id="run", step_key="work", idempotency_key="run/work"
)


async def failure(made: Tool, limit: float = 30, arguments: str = "{}") -> StepError:
    call = ToolCall(id="c", name=made.id, arguments_json=arguments)
    async with asyncio.timeout(60):
        with pytest.raises(StepError) as raised:
            await call_tool({made.id: made}, call, CONTEXT, Limit(limit))
    return raised.value


def both(function: Callable[[], Any]) -> list[Tool]:
    """Return the function as a tool in a thread, and as one in the loop."""

    def work() -> Any:
        return function()

    async def work_in_loop() -> Any:
        return function()

    return [tool(work), tool(work_in_loop)]


class Unprintable(Exception):
    def __init__(self, raised: BaseException) -> None:
        super().__init__()
        self._raised = raised

    def __str__(self) -> str:
        raise self._raised


def not_a_text() -> Exception:
    class NotAText(Exception):
        def __str__(self) -> str:
            return 5  # type: ignore[return-value]  # noqa: PLE0307 - that is the point

    return NotAText()


def broken_syntax_error() -> Exception:
    error = SyntaxError("x")
    error.text = 5  # type: ignore[assignment]  # the traceback module fails on it
    return error


@pytest.mark.parametrize(
    "raised",
    [
        broken_syntax_error(),
        not_a_text(),
        *(Unprintable(inside) for inside in (ValueError("x"), SystemExit(3), KeyboardInterrupt())),
        Unprintable(RecursionError()),
        Unprintable(asyncio.CancelledError()),
        SystemExit(3),
        KeyboardInterrupt(),
        GeneratorExit(),
        StopIteration(),
        StopAsyncIteration(),
        asyncio.CancelledError(),
        ExceptionGroup("many", [Unprintable(SystemExit(1))]),
    ],
    ids=lambda raised: type(raised).__name__,
)
async def test_whatever_a_tool_raises_the_model_is_told(raised: BaseException) -> None:
    def work() -> None:
        raise raised

    for made in both(work):
        error = await failure(made)
        assert error.reason == FAILED
        assert f"The tool {made.id} " in error.message


async def test_a_message_without_end_is_cut() -> None:
    def work() -> None:
        raise ValueError("x" * 50_000_000)

    with capture_logs():
        for made in both(work):
            assert len((await failure(made)).message) == MESSAGE_LIMIT


async def test_an_exception_that_takes_its_time_to_format_is_bounded_by_the_deadline() -> None:
    free = threading.Event()

    class Slow(Exception):
        def __str__(self) -> str:
            free.wait(30)
            return "at last"

    def work() -> None:
        raise Slow

    for made in both(work):
        assert (await failure(made, limit=0.05)).reason == TIMEOUT
    free.set()


async def test_a_validator_that_exits_ends_only_its_call() -> None:
    class Arguments(BaseModel):
        a: int = 1

        @field_validator("a")
        @classmethod
        def refuse(cls, _value: int) -> int:
            raise SystemExit(4)

    @tool
    async def in_loop(arguments: Arguments) -> None:
        raise AssertionError

    @tool
    def in_thread(arguments: Arguments) -> None:
        raise AssertionError

    for made in (in_loop, in_thread):
        assert (await failure(made, arguments='{"a": 1}')).reason == FAILED


class Lazy(BaseModel):
    values: Iterable[int]


def nested() -> Iterator[Any]:
    while True:
        yield nested()


def spinning() -> Iterator[int]:
    while True:
        pass
    yield 1


@pytest.mark.parametrize(
    "endless",
    [
        lambda: (number for number in itertools.count()),
        lambda: {"a": [(number for number in itertools.count())]},
        lambda: ({"a": "x" * 10_000} for _ in itertools.count()),
        lambda: Lazy.model_construct(values=(number for number in itertools.count())),
        nested,
    ],
    ids=["generator", "inside", "large values", "model", "nested"],
)
async def test_a_result_without_end_is_refused(endless: Callable[[], Any]) -> None:
    for made in both(endless):
        error = await failure(made)
        assert error.reason in (TOO_LARGE, FAILED)


async def test_converting_a_result_ends_with_the_call() -> None:
    for made in both(spinning):
        assert (await failure(made, limit=0.05)).reason == TIMEOUT
    await until(lambda: all(one.name != "polos-tool" for one in threading.enumerate()))


async def test_a_lazy_result_that_ends_is_taken() -> None:
    for made in both(lambda: {"squares": (number**2 for number in range(4))}):
        call = ToolCall(id="c", name=made.id, arguments_json="{}")
        assert await call_tool({made.id: made}, call, CONTEXT, Limit(30)) == '{"squares":[0,1,4,9]}'
    assert sys.gettrace() is None or "polos" not in repr(sys.gettrace())


async def test_a_tool_without_a_thread_to_run_in_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    class NoThread:
        def __init__(self, **_: object) -> None:
            pass

        def start(self) -> None:
            raise RuntimeError("can't start new thread")

    monkeypatch.setattr(local, "Thread", NoThread)
    for made in both(lambda: 1):
        error = await failure(made)
        assert (error.reason, "can't start new thread" in error.message) == (FAILED, True)


async def test_a_log_line_that_cannot_be_written_changes_nothing(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    class Full:
        def warning(self, *_: object, **__: object) -> None:
            raise OSError("no space left on device")

    monkeypatch.setattr(local, "log", Full())

    def work() -> None:
        raise ValueError("inside")

    for made in both(work):
        assert (await failure(made)).reason == FAILED
