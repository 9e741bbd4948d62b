"""An app whose tools attack the service that runs them: `polos serve` takes this file.

For each tool there is an agent of the same name, whose model calls it once and then answers.
The agent `bystander` has nothing to do with any of it.
"""

from __future__ import annotations

import asyncio
import os
import sys
import threading
import time
from collections.abc import Iterator
from typing import Any, NoReturn

from pydantic import BaseModel, field_serializer

from polos import Agent, Tool, scripted, tool

FOR_EVER = 10**9
CROWD = 1000
LARGE = 600_000


class ExitsWhenTold(Exception):
    def __str__(self) -> NoReturn:  # noqa: PLE0307
        sys.exit(3)


class Named(type):
    @property
    def __name__(cls) -> str:  # type: ignore[override]
        raise KeyboardInterrupt


class NamelessError(Exception, metaclass=Named):
    """An exception whose class cannot be named."""


class Explosive(BaseModel):
    value: int = 1

    @field_serializer("value")
    def dump(self, value: int) -> int:
        raise KeyboardInterrupt


@tool
async def raise_what_cannot_be_formatted() -> None:
    error: Any = SyntaxError("broken")
    error.text = 5
    error.lineno = error.offset = "x"
    raise error


@tool
async def raise_what_exits_when_told() -> None:
    raise ExitsWhenTold


@tool
async def raise_what_has_no_name() -> None:
    raise NamelessError


@tool
async def raise_what_causes_itself() -> None:
    error = ValueError("again")
    error.__context__ = error.__cause__ = error
    raise error


@tool
async def raise_megabytes() -> None:
    raise ValueError("x" * 20_000_000)


@tool
async def raise_half_of_a_surrogate_pair() -> None:
    raise ValueError("\ud800")


@tool
async def raise_an_exit() -> None:
    sys.exit(3)


@tool
def raise_an_exit_in_a_thread() -> None:
    sys.exit(3)


@tool
async def raise_an_interrupt() -> None:
    raise KeyboardInterrupt


@tool
async def raise_a_cancellation() -> None:
    raise asyncio.CancelledError


@tool
async def raise_the_end_of_a_generator() -> None:
    raise GeneratorExit


@tool
def raise_the_end_of_an_iteration() -> None:
    raise StopIteration


@tool
async def cancel_every_task() -> None:
    for task in asyncio.all_tasks():
        task.cancel()


@tool
async def stop_the_loop() -> None:
    asyncio.get_running_loop().stop()
    await asyncio.sleep(0)


@tool
async def swallow_every_cancellation() -> None:
    while True:
        try:
            await asyncio.Event().wait()
        except asyncio.CancelledError:
            continue


@tool
async def leave_a_crowd_of_tasks() -> None:
    crowd = [asyncio.ensure_future(asyncio.sleep(FOR_EVER)) for _ in range(CROWD)]
    asyncio.get_running_loop().__dict__.setdefault("crowd", []).extend(crowd)


@tool
def leave_a_crowd_of_threads() -> None:
    for _ in range(CROWD):
        threading.Thread(target=time.sleep, args=(FOR_EVER,), daemon=True).start()


@tool
async def close_standard_error() -> None:
    os.close(2)


@tool
async def replace_standard_error() -> None:
    sys.stderr = None
    raise ValueError("nowhere to be told")


@tool
async def fall_down_the_stack() -> None:
    def fall() -> None:
        fall()

    fall()


@tool
async def return_too_much() -> str:
    return "x" * LARGE


@tool
def return_without_end() -> Iterator[int]:
    def numbers() -> Iterator[int]:
        while True:
            time.sleep(0.001)
            yield 1

    return numbers()


@tool
async def return_what_interrupts() -> Iterator[int]:
    def broken() -> Iterator[int]:
        yield 1
        raise KeyboardInterrupt

    return broken()


@tool
async def return_what_explodes() -> Explosive:
    return Explosive()


@tool
async def return_what_holds_itself() -> list[Any]:
    held: list[Any] = []
    held.append(held)
    return held


@tool
async def return_a_deep_well() -> list[Any]:
    well: list[Any] = []
    for _ in range(100_000):
        well = [well]
    return well


@tool
async def return_half_of_a_surrogate_pair() -> str:
    return "\ud800"


TOOLS: list[Tool] = [
    raise_what_cannot_be_formatted,
    raise_what_exits_when_told,
    raise_what_has_no_name,
    raise_what_causes_itself,
    raise_megabytes,
    raise_half_of_a_surrogate_pair,
    raise_an_exit,
    raise_an_exit_in_a_thread,
    raise_an_interrupt,
    raise_a_cancellation,
    raise_the_end_of_a_generator,
    raise_the_end_of_an_iteration,
    cancel_every_task,
    stop_the_loop,
    swallow_every_cancellation,
    leave_a_crowd_of_tasks,
    leave_a_crowd_of_threads,
    close_standard_error,
    replace_standard_error,
    fall_down_the_stack,
    return_too_much,
    return_without_end,
    return_what_interrupts,
    return_what_explodes,
    return_what_holds_itself,
    return_a_deep_well,
    return_half_of_a_surrogate_pair,
]

for one in TOOLS:
    turns = scripted.turn(scripted.call(one.id)), "Done."
    globals()[one.id + "_agent"] = Agent(
        id=one.id, provider="scripted", model=scripted.script(*turns), tools=[one]
    )

bystander = Agent(id="bystander", provider="scripted", model=scripted.script("Served."))
