"""Keeps the tasks of the service out of the reach of tools: `asyncio.all_tasks()` has tools only.

A tool that cancels every task it can see ends itself and other tools, and nothing else.
"""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from contextvars import Context, copy_context
from typing import Any, TypeVar

from polos_client.define.inside import inside_run

T = TypeVar("T")


def start_tool(work: Coroutine[Any, Any, T]) -> asyncio.Task[T]:
    """Start a task that is a tool's; so are the tasks which it starts, however deep."""
    context = copy_context()
    context.run(inside_run.set, True)  # noqa: FBT003
    return asyncio.get_running_loop().create_task(work, context=context)


def hide(task: asyncio.Task[Any], context: Context | None) -> None:
    """Hide a new task from `asyncio.all_tasks()`, unless a tool has started it.

    Only for tasks of a loop that is the service's own: who runs a loop counts on seeing all.
    `context` is what the task was given; None: it has that of its maker, which runs now.
    """
    if not (inside_run.get() if context is None else context.get(inside_run, False)):
        asyncio.tasks._unregister_task(task)  # noqa: SLF001 - documented: "Extending asyncio"
