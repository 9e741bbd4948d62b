"""Which tasks `asyncio.all_tasks()` shows: those of tools, on a loop that is the service's own."""

from __future__ import annotations

import asyncio
from pathlib import Path

from polos_service.serving import Loop
from polos_service.tools.isolation import start_tool
from tests.support.service import serving


async def seen() -> set[str]:
    """Return the names of the tasks that are seen from here."""
    return {task.get_name() for task in asyncio.all_tasks()}


def on_the_service_s_loop(work: object) -> object:
    """Return what work returns on such a loop."""
    with asyncio.Runner(loop_factory=Loop) as runner:
        return runner.run(work)  # type: ignore[arg-type]


def test_the_service_s_tasks_are_not_seen() -> None:
    async def main() -> set[str]:
        other = asyncio.create_task(asyncio.sleep(60), name="other")
        found = await start_tool(seen())
        other.cancel()
        return found

    found = on_the_service_s_loop(main())
    assert isinstance(found, set)
    assert len(found) == 1


def test_what_a_tool_starts_is_seen_however_deep() -> None:
    async def deeper(left: int) -> set[str]:
        if not left:
            return await seen()
        return await asyncio.create_task(deeper(left - 1), name=f"deep-{left}")

    async def by_callback() -> asyncio.Task[set[str]]:
        loop = asyncio.get_running_loop()
        made = loop.create_future()
        loop.call_soon(lambda: made.set_result(loop.create_task(seen(), name="called")))
        task: asyncio.Task[set[str]] = await made
        return task

    async def main() -> tuple[set[str], set[str]]:
        return await start_tool(deeper(3)), await (await start_tool(by_callback()))

    found = on_the_service_s_loop(main())
    assert isinstance(found, tuple)
    assert {"deep-3", "deep-2", "deep-1"} <= found[0]
    assert "called" in found[1]


async def test_a_loop_of_the_program_around_stays_as_it_is(tmp_path: Path) -> None:
    mine = asyncio.create_task(asyncio.sleep(60), name="mine")
    factory = asyncio.get_running_loop().get_task_factory()
    async with serving(tmp_path):
        assert asyncio.get_running_loop().get_task_factory() is factory
        found = await seen()
    assert {"mine", "polos-claim", "polos-health"} <= found
    mine.cancel()
