"""Tools that do what would end a process: the service goes on, and can be stopped."""

from __future__ import annotations

import signal
from pathlib import Path

import pytest

from polos import Agent, PolosClient
from tests.support.process import PATIENCE, ServiceProcess

APP = """
import asyncio
import logging
import os
import sys
import threading
import warnings

from polos import Agent, scripted, tool


def exits(*_, **__):
    raise SystemExit(7)


def interrupts(*_, **__):
    raise KeyboardInterrupt


class Hostile(Exception):
    def __str__(self):
        raise SystemExit(8)

    __repr__ = __str__


class Endless(Exception):
    def __str__(self):
        return str(self)


class NoText(Exception):
    def __str__(self):
        return 5


class Broken:
    def __getattr__(self, name):
        raise SystemExit(9)


async def raises_text_that_exits():
    raise Hostile


async def raises_text_without_end():
    raise Endless


async def raises_text_that_is_none():
    raise NoText


async def raises_a_syntax_error_of_numbers():
    error = SyntaxError("wrong")
    error.text = error.filename = error.lineno = 5
    raise error


async def raises_from_hostile():
    raise ValueError("outer") from Hostile()


async def raises_through_ten_thousand_frames():
    def deeper(left):
        if not left:
            raise ValueError("deep")
        deeper(left - 1)

    sys.setrecursionlimit(20_000)
    try:
        deeper(10_000)
    finally:
        sys.setrecursionlimit(1_000)


async def raises_a_chain_without_end():
    error = ValueError("0")
    for number in range(100_000):
        error.__cause__, error = ValueError(str(number)), error.__cause__ or error
    raise error


async def raises_much_text():
    raise ValueError("x" * 50_000_000)


async def cancels_all():
    me = asyncio.current_task()
    for task in asyncio.all_tasks():
        if task is not me:
            task.cancel()


async def cancels_all_and_itself():
    for task in asyncio.all_tasks():
        task.cancel()
    await asyncio.sleep(0)


async def cancels_all_after_it_took_the_task_factory():
    asyncio.get_running_loop().set_task_factory(None)
    await asyncio.sleep(0.01)
    await cancels_all()


async def stops_the_loop():
    asyncio.get_running_loop().stop()
    await asyncio.sleep(0.01)


async def closes_the_loop():
    asyncio.get_running_loop().close()


async def exits_in_a_task():
    async def work():
        exits()

    await asyncio.wait({asyncio.create_task(work())})


async def interrupts_in_a_task():
    async def work():
        interrupts()

    await asyncio.wait({asyncio.create_task(work())})


async def exits_in_a_callback():
    asyncio.get_running_loop().call_soon(exits)
    await asyncio.sleep(0.01)


async def exits_in_a_timer():
    asyncio.get_running_loop().call_later(0.001, exits)
    await asyncio.sleep(0.01)


async def interrupts_in_a_callback_again_and_again():
    loop = asyncio.get_running_loop()
    for _ in range(100):
        loop.call_soon(interrupts)
    await asyncio.sleep(0.01)


async def exits_in_a_handler_of_the_loop():
    loop = asyncio.get_running_loop()
    loop.set_exception_handler(exits)
    loop.call_soon(lambda: 1 / 0)
    await asyncio.sleep(0.01)


async def exits_in_an_object_s_end():
    class Ends:
        __del__ = exits

    Ends()


async def exits_in_a_thread():
    thread = threading.Thread(target=exits)
    thread.start()
    await asyncio.sleep(0.01)


async def leaves_a_task_behind_that_exits_later():
    async def work():
        await asyncio.sleep(0.05)
        exits()

    keep.append(asyncio.create_task(work()))


keep = []


async def closes_output():
    os.close(1)
    os.close(2)
    print("gone")
    raise ValueError("gone")


async def closes_the_streams():
    sys.stdout.close()
    sys.stderr.close()
    raise ValueError("gone")


async def breaks_the_streams():
    sys.stdout = sys.stderr = sys.__stdout__ = sys.__stderr__ = Broken()
    raise ValueError("gone")


async def removes_the_streams():
    sys.stdout = sys.stderr = sys.__stdout__ = sys.__stderr__ = None
    raise ValueError("gone")


async def turns_warnings_into_errors():
    warnings.simplefilter("error")
    raise ValueError("strict")


async def breaks_logging():
    class Full:
        def write(self, text):
            raise OSError("no space left on device")

    logging.raiseExceptions = True
    logging.basicConfig(stream=Full(), level=0, force=True)
    raise ValueError("logged")


async def shuts_the_loop_s_helpers_down():
    loop = asyncio.get_running_loop()
    await loop.shutdown_asyncgens()
    await loop.shutdown_default_executor()


async def sleeps_in_the_loop_s_threads():
    for _ in range(64):
        asyncio.get_running_loop().run_in_executor(None, threading.Event().wait)


TOOLS = [one for one in list(vars().values()) if asyncio.iscoroutinefunction(one)]


def agent(id, name, **more):
    said = scripted.script(scripted.turn(scripted.call(name)), "after")
    tools = [tool(function, description=name) for function in TOOLS if function.__name__ == name]
    return Agent(id=id, provider="scripted", model=said, tools=tools, **more)


agents = [agent(function.__name__, function.__name__) for function in TOOLS]
globals().update({one.id + "_agent": one for one in agents})
plain = Agent(id="plain", provider="scripted", model=scripted.script("well"))
"""

NAMES = [
    line.partition("(")[0].removeprefix("async def ")
    for line in APP.splitlines()
    if line.startswith("async def ")
]

RAISING = [name for name in NAMES if name.startswith("raises_")]
"""Those that leave nothing behind: they share a service."""


def answering(id: str) -> Agent:
    """Return the agent as a caller names it."""
    return Agent(id, "scripted", "script")


async def service(folder: Path) -> ServiceProcess:
    """Return the app's service."""
    app = folder / "app.py"
    app.write_text(APP)
    return ServiceProcess(app, folder / "runs.db")


@pytest.mark.parametrize("name", [name for name in NAMES if name not in RAISING])
async def test_the_service_goes_on_after_a_tool_that(name: str, tmp_path: Path) -> None:
    await goes_on_after(tmp_path, name)


async def test_the_service_goes_on_after_tools_that_raise(tmp_path: Path) -> None:
    await goes_on_after(tmp_path, *RAISING)


async def goes_on_after(folder: Path, *names: str) -> None:
    async with await service(folder) as polos, PolosClient(polos.address) as client:
        for name in names:
            assert (await answering(name).run(client, "Go", timeout=PATIENCE)).result == "after"
            assert (await answering("plain").run(client, "Go", timeout=PATIENCE)).result == "well"
        polos.send(signal.SIGTERM)
        assert await polos.ended() == 0
    assert "part_does_not_stop" not in polos.output


async def test_a_run_that_streams_is_not_touched_by_a_tool_that_cancels_all(tmp_path: Path) -> None:
    async with await service(tmp_path) as polos, PolosClient(polos.address) as client:
        for name in ("cancels_all", "stops_the_loop", "exits_in_a_task", "cancels_all_and_itself"):
            stream = await answering(name).stream(client, "Go")
            assert await stream.text() == "after"
        assert "run_released" not in polos.output
        assert "loop_interrupted" in polos.output
