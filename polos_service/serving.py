"""`polos serve`: a service from its start to the signal that ends it."""

from __future__ import annotations

import asyncio
import gc
import os
import threading
from collections.abc import Coroutine, Iterator, Sequence
from importlib.metadata import version
from typing import Any

import uvloop

from polos_client.define.agent_tool import AgentTool
from polos_service import logs
from polos_service.cancelling import cancel_until_done
from polos_service.config import Settings
from polos_service.lifeline import Lifeline
from polos_service.loader import load
from polos_service.outlet import STOPPING, Standard
from polos_service.server import Service
from polos_service.signals import StopSignals
from polos_service.tools.isolation import hide

COLLECT = (10_000, 4, 100)
"""Thresholds of the garbage collector, as `gc.set_threshold` takes them. With Python's default of
700 new objects, it interrupts a service with 80 streams 24 times a second, for a millisecond or
more each time, and finds next to nothing. The second threshold keeps a collection of the middle
generation short: when 1,000 agents began at once, one of 200,000 objects took 0.1 s."""

LEAVE_SECONDS = 5.0
"""Seconds that threads and exit handlers of tools get, once the service has stopped."""

log = logs.get_logger(__name__)


def run(
    targets: Sequence[str],
    settings: Settings,
    standard: Standard,
    lifeline: Lifeline | None = None,
) -> None:
    """Serve until a signal comes; a second one does not wait for runs.

    With a lifeline, this process is a worker: its supervisor holds the address, and speaks.

    Raises:
        PolosError: the app cannot be loaded, or the service cannot start.

    """
    with asyncio.Runner(loop_factory=Loop) as runner:
        drive(runner.get_loop(), serve(targets, settings, standard, lifeline))
        leave_in(LEAVE_SECONDS, standard)
    standard.flush()


class Loop(uvloop.Loop):
    """A loop on which tools do not see the service's tasks, whatever task factory they set."""

    def create_task(self, coro: Any, **options: Any) -> Any:
        """Make a task, as any loop does."""
        task = super().create_task(coro, **options)
        hide(task, options.get("context"))
        return task


def drive(loop: asyncio.AbstractEventLoop, work: Coroutine[Any, Any, None]) -> None:
    """Run the loop until the work is done, though a tool stops it or raises SystemExit into it."""
    task = loop.create_task(work)
    while not task.done():
        try:
            loop.run_until_complete(task)
        except BaseException:
            if not task.done():  # else it is the work's own, and raised below
                log.exception("loop_interrupted", advice="a tool did this; the service continues")
    task.result()


async def serve(
    targets: Sequence[str], settings: Settings, standard: Standard, lifeline: Lifeline | None
) -> None:
    """Start, wait for the signal, and stop."""
    definitions = load(*targets)
    asked = StopSignals()
    service = await Service.start(settings, definitions, shared_port=lifeline is not None)
    # What is loaded by now stays: to look through it again for garbage stopped all runs for
    # a tenth of a second each time.
    gc.collect()
    gc.freeze()
    gc.set_threshold(*COLLECT)
    beating = []
    if lifeline is None:
        for line in banner(service, settings):
            standard.say(line)
    else:
        lifeline.tell_serving(banner(service, settings))
        beating.append(asyncio.create_task(lifeline.beat()))
    log.info("service_started", **service.about())
    await asked.first()
    if lifeline is None:
        standard.say(STOPPING)
    log.info("service_stopping", grace=settings.grace)
    await service.stop(settings.grace)
    log.info("service_stopped")
    await cancel_until_done(beating)
    if asyncio.all_tasks():  # tools that do not give in; the store is whole
        leave(standard)


def banner(service: Service, settings: Settings) -> list[str]:
    """Return the lines that say where the service listens, what it serves and where it stores."""
    lines = [f"polos {version('polos-grpc')} listens on {service.address}"]
    for agent in service.catalog.agents():
        tools = ", ".join(tool.id for tool in agent.tools) or "no tools"
        lines.append(f"  agent {agent.id} ({agent.provider}; {tools})")
    lines += [f"  workflow {workflow.id}" for workflow in service.catalog.workflows()]
    lacking = ((agent.id, service.lacks(agent)) for agent in service.catalog.agents())
    lines += [f"  agent {agent_id}: {missing}" for agent_id, missing in lacking if missing]
    return [*lines, f"  store {settings.store_shown}", *try_this(service, settings)]


def try_this(service: Service, settings: Settings) -> Iterator[str]:
    """Yield the line that names a command to try, if something is served."""
    default = service.address == Settings.model_fields["listen"].default
    everywhere = service.address.startswith(("0.0.0.0:", "[::]:"))  # no certificate names these
    near = f"localhost:{service.port}" if everywhere else service.address
    way = "" if default else f" --address {near}"
    way += " --tls" if settings.tls_cert else ""
    agents, workflows = service.catalog.agents(), service.catalog.workflows()
    if agents:
        helpers = {one.agent.id for one in service.catalog.tools() if isinstance(one, AgentTool)}
        first = min(agents, key=lambda agent: agent.id in helpers)
        yield f"Try it: polos run {first.id} Hello{way}"
    elif workflows:
        yield f"Try it: polos run {workflows[0].id}{way}"


def leave_in(seconds: float, standard: Standard) -> None:
    """End the process by then: a thread of a tool that never ends would keep it for ever."""
    timer = threading.Timer(seconds, leave, [standard])
    timer.daemon = True
    timer.start()


def leave(standard: Standard) -> None:
    """End the process at once, with what was printed."""
    standard.flush()
    os._exit(0)
