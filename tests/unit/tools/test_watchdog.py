"""The watchdog: it names what holds the loop, and nothing else."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Iterator
from types import CodeType

import pytest
import structlog
from structlog.testing import LogCapture

from polos_client.define.tool import Tool, tool
from polos_service.tools.watchdog import GROWTH, Watchdog
from tests.support.stores import soon, until

LIMIT = 0.05


@pytest.fixture
def logs() -> Iterator[LogCapture]:
    """Capture what is logged in any thread."""
    capture = LogCapture()
    structlog.configure(processors=[capture])
    yield capture
    structlog.reset_defaults()


def watch(*tools: Tool) -> Watchdog:
    codes: dict[CodeType, str] = {one.fn.__code__: one.id for one in tools}
    return Watchdog(lambda: codes, LIMIT)


def hold(capture: LogCapture, times: int = 1) -> None:
    """Hold the loop until the watchdog has said so, so often."""
    end = time.monotonic() + 20
    while len(capture.entries) < times and time.monotonic() < end:
        time.sleep(0.005)


async def test_it_names_the_tool_that_holds_the_loop(logs: LogCapture) -> None:
    @tool
    async def greedy() -> None:
        hold(logs)

    @tool
    async def innocent() -> None:
        await asyncio.sleep(0)

    watchdog = watch(innocent, greedy)
    await soon(asyncio.gather(greedy(), innocent()))
    (entry,) = logs.entries
    watchdog.close()
    assert (entry["event"], entry["log_level"], entry["tool"]) == (
        "loop_blocked",
        "warning",
        "greedy",
    )
    assert __file__ in entry["at"]
    assert "def" in entry["advice"]


async def test_it_tells_a_second_time_of_a_second_time(logs: LogCapture) -> None:
    watchdog = watch()
    hold(logs)
    logs.entries.clear()
    await asyncio.sleep(0)
    hold(logs)
    watchdog.close()
    assert [entry["tool"] for entry in logs.entries] == [None]


async def test_it_tells_where_the_loop_is_held_by_what_is_no_tool(logs: LogCapture) -> None:
    watchdog = watch()
    hold(logs)
    watchdog.close()
    (entry,) = logs.entries
    assert entry["tool"] is None
    assert "in hold" in entry["at"]
    assert "to_thread" in entry["advice"]


async def test_it_tells_again_while_the_loop_is_held_with_growing_distance(
    logs: LogCapture,
) -> None:
    watchdog = watch()
    hold(logs, times=2)
    watchdog.close()
    assert [entry["seconds"] for entry in logs.entries[:2]] == [LIMIT, LIMIT * GROWTH]


async def test_it_tells_though_the_tools_cannot_be_listed(logs: LogCapture) -> None:
    def changing() -> dict[CodeType, str]:
        raise RuntimeError("dictionary changed size during iteration")

    watchdog = Watchdog(changing, LIMIT)
    hold(logs)
    assert watchdog._thread.is_alive()
    watchdog.close()
    assert logs.entries[0]["event"] == "loop_blocked"


async def test_it_tells_though_the_loop_s_thread_has_no_frame(
    logs: LogCapture, monkeypatch: pytest.MonkeyPatch
) -> None:
    watchdog = watch()
    monkeypatch.setattr(watchdog, "_loop_thread", 0)
    hold(logs)
    watchdog.close()
    assert logs.entries[0]["at"] == "unknown"


async def test_it_is_silent_while_the_loop_turns(logs: LogCapture) -> None:
    watchdog = watch()
    await asyncio.sleep(10 * LIMIT)
    watchdog.close()
    assert logs.entries == []


async def test_closing_ends_its_thread(logs: LogCapture) -> None:
    watchdog = watch()
    watchdog.close()
    await until(lambda: not watchdog._thread.is_alive())


def test_its_thread_ends_with_the_loop_that_it_watches(logs: LogCapture) -> None:
    made: list[Watchdog] = []

    async def main() -> None:
        made.append(watch())

    asyncio.run(main())
    made[0]._thread.join(20)
    assert not made[0]._thread.is_alive()
    assert threading.current_thread() is not made[0]._thread


def test_its_thread_ends_with_a_loop_that_was_closed_while_it_was_held(logs: LogCapture) -> None:
    async def main() -> Watchdog:
        return watch()

    loop = asyncio.new_event_loop()
    watchdog = loop.run_until_complete(main())
    hold(logs)  # the loop does not turn: the watchdog waits for its answer
    loop.close()
    watchdog._thread.join(20)
    assert not watchdog._thread.is_alive()
