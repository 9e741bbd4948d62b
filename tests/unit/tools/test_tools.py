"""Calling tools: whatever goes wrong in one is a sentence for the model."""

from __future__ import annotations

import asyncio
import contextvars
import json
import sys
import threading
from collections.abc import Callable
from typing import Any, NoReturn

import pytest
from pydantic import BaseModel, SecretStr, field_validator

from polos.v1.error_pb2 import FailureReason
from polos.v1.event_pb2 import ToolCall
from polos_client.define.context import WorkflowContext
from polos_client.define.tool import Tool, tool
from polos_service.errors import StepError
from polos_service.tools.local import call_tool, in_thread
from polos_service.tools.stint import Limit
from tests.support.stores import soon

FAILED = FailureReason.FAILURE_REASON_TOOL_FAILED
BAD = FailureReason.FAILURE_REASON_TOOL_BAD_ARGUMENTS
CONTEXT = WorkflowContext(
    workflow_id="agent", execution_id="run", step_key="tool", idempotency_key="run/tool"
)
asked: contextvars.ContextVar[str] = contextvars.ContextVar("asked", default="nobody")


PATIENCE = 30.0


async def called(made: Tool, arguments: str = "{}", name: str | None = None) -> str:
    call = ToolCall(id="c", name=made.id if name is None else name, arguments_json=arguments)
    return await soon(call_tool({made.id: made}, call, CONTEXT, Limit(PATIENCE)))


async def refused(made: Tool, arguments: str = "{}", name: str | None = None) -> StepError:
    with pytest.raises(StepError) as raised:
        await called(made, arguments, name)
    raised.value.message.encode()  # it goes into protobuf, which takes no lone surrogates
    return raised.value


class Unprintable(Exception):
    def __str__(self) -> str:
        raise ValueError("no text")


class Odd(BaseException):
    """What is no Exception, as some libraries' control flow is not."""


def raising(error: BaseException | type[BaseException], *, asynchronous: bool) -> Tool:
    def fail() -> NoReturn:
        raise error

    async def fail_async() -> NoReturn:
        raise error

    return tool(id="fail")(fail_async if asynchronous else fail)


@pytest.mark.parametrize("asynchronous", [False, True], ids=["def", "async def"])
@pytest.mark.parametrize(
    ("error", "said"),
    [
        (ValueError("no such city"), "ValueError: no such city"),
        (KeyError("x"), "KeyError: 'x'"),
        (SystemExit(3), "SystemExit: 3"),
        (StopIteration("end"), "StopIteration"),
        (StopAsyncIteration("end"), "StopAsyncIteration"),
        (asyncio.CancelledError("mine"), "cancel"),
        (TimeoutError("slow"), "TimeoutError: slow"),
        (FileNotFoundError(2, "missing", "caf\udce9.txt"), "FileNotFoundError"),
        (ValueError("caf\udce9"), "ValueError: caf"),
        (Unprintable(), "Unprintable"),
        (Odd("odd"), "Odd"),
        (ExceptionGroup("two", [ValueError(), KeyError()]), "ExceptionGroup: two"),
    ],
    ids=lambda value: type(value).__name__ if isinstance(value, BaseException) else "",
)
async def test_what_a_tool_raises_is_told(
    error: BaseException,
    said: str,
    asynchronous: bool,  # noqa: FBT001
) -> None:
    told = await refused(raising(error, asynchronous=asynchronous))
    assert told.reason == FAILED
    assert "The tool fail" in told.message
    assert said.lower() in told.message.lower()
    assert not told.retryable


async def test_a_long_message_is_cut() -> None:
    told = await refused(raising(ValueError("x" * 10_000), asynchronous=False))
    assert len(told.message) == 4096


async def test_a_tool_that_calls_sys_exit_ends_nothing() -> None:
    @tool
    def leave() -> None:
        sys.exit("bye")

    assert "bye" in (await refused(leave)).message


@tool
def add(a: int, b: int = 1) -> int:
    return a + b


async def test_an_unknown_tool_is_told_with_those_there_are() -> None:
    told = await refused(add, name="x" * 300)
    assert told.reason == FailureReason.FAILURE_REASON_TOOL_NOT_FOUND
    assert "Tools: add." in told.message
    assert len(told.message) < 200
    with pytest.raises(StepError, match="Tools: none"):
        await call_tool({}, ToolCall(name="add"), CONTEXT, Limit(PATIENCE))


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ("{", "JSON"),
        ("[1]", "object"),
        ("null", "object"),
        ("{}", "a: Field required"),
        ('{"a": "many"}', "a: Input should be a valid integer"),
        ('{"a": 1, "c": 2}', "c: Extra inputs"),
        ('{"a": "\\ud800"}', "a"),
        ("[" * 100_000, "JSON"),
    ],
    ids=["cut", "list", "null", "missing", "misfit", "unknown", "surrogate", "deep"],
)
async def test_arguments_that_do_not_fit_are_told(arguments: str, said: str) -> None:
    told = await refused(add, arguments)
    assert told.reason == BAD
    assert said in told.message
    assert "pydantic.dev" not in told.message


async def test_a_validator_that_raises_anything_is_told() -> None:
    class Place(BaseModel):
        city: str

        @field_validator("city")
        @classmethod
        def known(cls, city: str) -> str:
            return {"Rome": city}[city]

    @tool
    def weather(place: Place) -> str:
        return place.city

    assert await called(weather, '{"city": "Rome"}') == '"Rome"'
    assert "KeyError" in (await refused(weather, '{"city": "Oslo"}')).message


@pytest.mark.parametrize("value", [object(), "\ud800", b"\xff", [1, {"a": object()}]])
async def test_a_result_that_is_not_valid_json_is_told(value: Any) -> None:
    @tool(id="give")
    def give() -> Any:
        return value

    told = await refused(give)
    assert told.reason == FAILED
    assert "The tool give returned a value that is not valid JSON" in told.message


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        (None, None),
        ("ä\n\u2028", "ä\n\u2028"),
        ({"a": [1, 2.5, True]}, {"a": [1, 2.5, True]}),
        ((1, 2), [1, 2]),
        (2**53 + 1, 2**53 + 1),
        (float("nan"), "NaN"),
        ([float("inf")], ["Infinity"]),
        ({1: 2}, {"1": 2}),
    ],
)
async def test_a_result_becomes_json(value: Any, expected: Any) -> None:
    @tool(id="give")
    async def give() -> Any:
        return value

    def refuse(constant: str) -> NoReturn:
        raise AssertionError(constant + " is no JSON")

    assert json.loads(await called(give), parse_constant=refuse) == expected


async def test_a_secret_in_a_result_is_told_as_asterisks() -> None:
    class Login(BaseModel):
        password: SecretStr

    @tool
    def login() -> Login:
        return Login(password=SecretStr("s3cret"))

    assert await called(login) == '{"password":"**********"}'


async def test_a_model_as_result_becomes_json() -> None:
    class Place(BaseModel):
        city: str

    @tool
    def place() -> Place:
        return Place(city="Rome")

    assert await called(place) == '{"city":"Rome"}'


@pytest.mark.parametrize("asynchronous", [False, True])
async def test_a_tool_gets_its_context_and_its_arguments(asynchronous: bool) -> None:  # noqa: FBT001
    def plain(ctx: WorkflowContext, a: int) -> str:
        return f"{ctx.idempotency_key} {a}"

    async def later(ctx: WorkflowContext, a: int) -> str:
        return plain(ctx, a)

    function: Callable[..., Any] = later if asynchronous else plain
    assert await called(tool(id="t")(function), '{"a": 7}') == '"run/tool 7"'


async def test_a_blocking_tool_does_not_hold_the_loop() -> None:
    event = threading.Event()

    @tool
    def wait() -> bool:
        return event.wait(20)

    waiting = asyncio.create_task(called(wait))
    await asyncio.sleep(0)
    event.set()
    assert await soon(waiting) == "true"


async def test_blocking_tools_are_bounded_by_no_pool() -> None:
    barrier = threading.Barrier(60)

    @tool
    def meet() -> int:
        return barrier.wait(20)

    results = await soon(asyncio.gather(*(called(meet) for _ in range(60))))
    assert sorted(map(int, results)) == list(range(60))


@pytest.mark.parametrize("asynchronous", [False, True])
async def test_a_tool_sees_the_context_variables_of_its_caller(asynchronous: bool) -> None:  # noqa: FBT001
    async def later() -> str:
        return asked.get()

    def now() -> str:
        return asked.get()

    token = asked.set("me")
    made = tool(id="who")(later if asynchronous else now)
    assert await called(made) == '"me"'
    asked.reset(token)


async def test_cancelling_the_call_cancels_an_async_tool() -> None:
    begun, cleaned = asyncio.Event(), asyncio.Event()

    @tool
    async def wait() -> None:
        begun.set()
        try:
            await asyncio.Event().wait()
        finally:
            cleaned.set()

    calling = asyncio.create_task(called(wait))
    await soon(begun.wait())
    calling.cancel()
    with pytest.raises(asyncio.CancelledError):
        await calling
    assert cleaned.is_set()


async def test_a_tool_that_calls_sys_exit_when_it_is_cancelled_ends_nothing() -> None:
    begun = asyncio.Event()

    @tool
    async def leave() -> None:
        begun.set()
        try:
            await asyncio.Event().wait()
        finally:
            sys.exit("bye")

    calling = asyncio.create_task(called(leave))
    await soon(begun.wait())
    calling.cancel()
    with pytest.raises((asyncio.CancelledError, StepError)):
        await calling


async def test_cancelling_the_call_leaves_a_blocking_function_to_itself() -> None:
    begun, free, over = threading.Event(), threading.Event(), threading.Event()

    def block() -> None:
        begun.set()
        free.wait(20)
        over.set()

    calling = asyncio.create_task(in_thread(block))
    await asyncio.to_thread(begun.wait, 20)
    calling.cancel()
    with pytest.raises(asyncio.CancelledError):
        await calling
    free.set()
    assert await asyncio.to_thread(over.wait, 20)


async def test_the_thread_of_a_blocking_function_keeps_no_process_alive() -> None:
    assert await in_thread(lambda: threading.current_thread().daemon)
