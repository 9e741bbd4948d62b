"""Keeps the tasks of the service out of the reach of tools: `asyncio.all_tasks()` has tools only.

A tool that cancels every task it can see ends itself and other tools, and nothing else.
"""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from contextvars import Context, ContextVar, copy_context
from typing import Any, TypeVar

T = TypeVar("T")

_TOOL = True

_in_tool: ContextVar[bool] = ContextVar("polos_in_tool", default=False)


def start_tool(work: Coroutine[Any, Any, T]) -> asyncio.Task[T]:
    """Start a task that is a tool's; so are the tasks which it starts, however deep."""
    context = copy_context()
    context.run(_in_tool.set, _TOOL)
    return asyncio.get_running_loop().create_task(work, context=context)


def hide(task: asyncio.Task[Any], context: Context | None) -> None:
    """Hide a new task from `asyncio.all_tasks()`, unless a tool has started it.

    Only for tasks of a loop that is the service's own: who runs a loop counts on seeing all.
    `context` is what the task was given; None: it has that of its maker, which runs now.
    """
    if not (_in_tool.get() if context is None else context.get(_in_tool, False)):
        asyncio.tasks._unregister_task(task)  # noqa: SLF001 - documented: "Extending asyncio"
