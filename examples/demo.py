"""`make demo`: a real model's answer through service, log and client, and read once more.

Without OPENAI_API_KEY a small model runs on this machine. With it, the agent runs at OpenAI on
OPENAI_MODEL (default gpt-4o-mini) and has a tool.
"""

from __future__ import annotations

import asyncio
import os
import signal
import sys
import sysconfig
import tempfile
from collections.abc import AsyncIterator, Iterator
from contextlib import AsyncExitStack, asynccontextmanager, contextmanager, suppress
from pathlib import Path

from rich.console import Console

from examples.demo_agent import storyteller, weather_agent
from examples.demo_view import View
from polos import Agent, Event, PolosClient, events

AGENTS = Path(__file__).with_name("demo_agent.py")
START_SECONDS = 60
STOP_SECONDS = 20


class DemoError(Exception):
    """The demo could not do what it is there to show."""


@contextmanager
def model() -> Iterator[dict[str, str]]:
    """Give the environment with which the service reaches the model."""
    if os.environ.get("OPENAI_API_KEY"):
        yield {}
        return
    from examples import small_model  # noqa: PLC0415 - is installed for the demo only

    with small_model.serve() as base_url:
        yield {"OPENAI_BASE_URL": base_url, "OPENAI_API_KEY": "none is needed"}


async def stop(process: asyncio.subprocess.Process) -> None:
    """End the process, kindly first."""
    with suppress(ProcessLookupError):
        process.terminate()
    try:
        async with asyncio.timeout(STOP_SECONDS):
            await process.wait()
    except TimeoutError:
        process.kill()
        await process.wait()


async def address_of(process: asyncio.subprocess.Process, log: Path) -> str:
    """Wait until the service says where it listens, and return that.

    Raises:
        DemoError: it ended instead, or needs longer than START_SECONDS.

    """
    assert process.stdout is not None  # noqa: S101 - it is a pipe
    line = b""
    with suppress(TimeoutError):
        async with asyncio.timeout(START_SECONDS):
            line = await process.stdout.readline()
    if b" listens on " not in line:
        raise DemoError(
            f"the service did not start; it said:\n{await asyncio.to_thread(log.read_text)}"
        )
    return line.decode().split()[-1]


@asynccontextmanager
async def service(folder: str, environment: dict[str, str]) -> AsyncIterator[str]:
    """Run `polos serve` on a store in `folder`, and give its address."""
    polos = Path(sysconfig.get_path("scripts"), "polos")
    log = Path(folder, "service.log")
    with log.open("wb") as stderr:  # noqa: ASYNC230 - nothing else runs yet
        process = await asyncio.create_subprocess_exec(
            *(polos, "serve", AGENTS, "--listen", "127.0.0.1:0"),
            *("--store", f"sqlite://{folder}/polos.db"),
            env={**os.environ, **environment},
            stdin=asyncio.subprocess.DEVNULL,
            stdout=asyncio.subprocess.PIPE,
            stderr=stderr,
        )
    try:
        yield await address_of(process, log)
    finally:
        await stop(process)


async def show_answer(view: View, client: PolosClient, agent: Agent, question: str) -> list[Event]:
    """Run the agent, show what happens while it happens, and return all its events.

    Raises:
        DemoError: the run failed.

    """
    stream = await agent.stream(client, question)
    seen: list[Event] = []
    with view:
        async for event in stream.events:
            seen.append(event)
            view.show(event)
    if seen[-1].event_type != "agent_finish":
        raise DemoError(f"the run ended with {seen[-1].event_type}: {seen[-1].data.get('error')}")
    return seen


async def read_again(client: PolosClient, seen: list[Event]) -> int:
    """Read the run's second half from its log, and return how many events that were.

    Raises:
        DemoError: the log says something else than the stream did.

    """
    half = len(seen) // 2
    cursor, run_id = seen[half - 1].sequence_id, seen[0].data["_metadata"]["execution_id"]
    attached = events.stream_workflow(client, workflow_run_id=run_id, last_sequence_id=cursor)
    again = [event.proto async for event in attached]
    if again != [event.proto for event in seen[half:]]:
        raise DemoError(f"the events after {cursor} differ when they are read again")
    return len(again)


async def demo(view: View) -> None:
    """Set everything up, show the main job, and take everything down again."""
    local = not os.environ.get("OPENAI_API_KEY")
    agent = storyteller if local else weather_agent
    question = (
        "Tell me a short story about a lighthouse keeper."
        if local
        else "Is it warmer in Tokyo or in Oslo?"
    )
    async with AsyncExitStack() as stack:
        folder = stack.enter_context(tempfile.TemporaryDirectory(prefix="polos-demo-"))
        with view.doing("Loading SmolLM2-135M" if local else f"Using {agent.model}"):
            environment = stack.enter_context(model())
        with view.doing("Starting the service: polos serve examples/demo_agent.py"):
            address = await stack.enter_async_context(service(folder, environment))
        client = await stack.enter_async_context(PolosClient(address))
        view.question(question)
        seen = await show_answer(view, client, agent, question)
        with view.doing("Reading the second half again, from the log"):
            count = await read_again(client, seen)
        view.note(f"The same {count} events, with the same text: a run is its log.")
        view.note("Next: serve an agent of your own, with or without a key: see README.md.")


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
