"""`make demo`: a real model's answer, from a service that is killed in the middle of it.

Without OPENAI_API_KEY a small model runs on this machine. With it, an agent with a tool runs at
OpenAI on OPENAI_MODEL (default gpt-4o-mini).
"""

from __future__ import annotations

import asyncio
import os
import signal
import sys
import tempfile
from collections.abc import Iterator
from contextlib import AsyncExitStack, contextmanager, suppress

from rich.console import Console

from examples.demo_agent import bedtime, weather_agent
from examples.demo_service import DemoError, Service
from examples.demo_view import View
from polos import Event, PolosClient, events

KILL_AFTER = 20
"""Pieces of the answer's text after which the service is killed."""

TASK = "A workflow chooses a name at random, then lets an agent tell a story."

NEXT = """
Try next:
  make model                serve this model to agents of your own
  .venv/bin/polos demo      a tool call, a failing provider, a dropped stream
  README.md                 write an agent, with or without an API key"""


@contextmanager
def model() -> Iterator[dict[str, str]]:
    """Give the environment with which the service reaches the model."""
    if os.environ.get("OPENAI_API_KEY"):
        yield {}
        return
    from examples import small_model  # noqa: PLC0415 - is installed for the demo only

    with small_model.serve() as base_url:
        yield small_model.environment(base_url)


async def show(view: View, client: PolosClient, service: Service, run_id: str) -> list[Event]:
    """Show a run to its end, kill the service in its middle, and return all events.

    Raises:
        DemoError: the run failed, or its answer was cut off.

    """
    seen: list[Event] = []
    pieces = 0
    with view:
        async for event in events.stream_workflow(client, workflow_run_id=run_id):
            seen.append(event)
            view.show(event)
            pieces += event.event_type == "text_delta"
            if pieces == KILL_AFTER:
                pieces += 1
                await service.kill()
                view.killed(event)
                await service.start()
                view.restarted()
    last = seen[-1]
    if last.event_type not in ("workflow_finish", "agent_finish"):
        raise DemoError(f"the run ended with {last.event_type}: {last.data.get('error')}")
    return seen


async def check(client: PolosClient, run_id: str, seen: list[Event]) -> None:
    """Compare what was seen with the log.

    Raises:
        DemoError: the log says something else than the stream did.

    """
    log = events.stream_workflow(client, workflow_run_id=run_id)
    if [event.proto async for event in log] != [event.proto for event in seen]:
        raise DemoError("the log differs from what was shown")


async def demo(view: View) -> None:
    """Set everything up, show the run, and take everything down again."""
    local = not os.environ.get("OPENAI_API_KEY")
    task = TASK
    started: tuple[str, dict[str, object] | None] = (bedtime.id, None)
    if not local:
        task = "Is it warmer in Tokyo or in Oslo? Say why."
        started = (weather_agent.id, {"input": task, "streaming": True})
    async with AsyncExitStack() as stack:
        folder = stack.enter_context(tempfile.TemporaryDirectory(prefix="polos-demo-"))
        with view.doing("Loading SmolLM2-135M" if local else f"Using {weather_agent.model}"):
            environment = stack.enter_context(model())
        service = Service(folder, environment)
        stack.push_async_callback(service.stop)
        with view.doing("Starting the service: polos serve examples/demo_agent.py"):
            await service.start()
        client = await stack.enter_async_context(PolosClient(service.address))
        view.note(f"\n{task}", "bold")
        handle = await client.invoke(*started)
        seen = await show(view, client, service, handle.id)
        await check(client, handle.id, seen)
        view.note(f"All {len(seen)} events arrived once and in order, as they are in the log.")
        view.note(NEXT)


async def run(view: View) -> None:
    """Run the demo; SIGTERM ends it as Ctrl-C does, with everything taken down."""
    task = asyncio.ensure_future(demo(view))
    with suppress(NotImplementedError):  # Windows
        asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, task.cancel)
    await task


def main() -> int:
    """Run the demo and return its exit code."""
    console = Console(highlight=False)
    try:
        asyncio.run(run(View(console)))
    except DemoError as error:
        console.print(f"The demo failed: {error}", style="red", markup=False)
        return 1
    except (KeyboardInterrupt, asyncio.CancelledError):
        console.print("Stopped.")
        return 130
    return 0


if __name__ == "__main__":
    sys.exit(main())
