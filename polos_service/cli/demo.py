"""`polos demo`: what Polos promises, in ten seconds, without key or network."""

from __future__ import annotations

import asyncio
from contextlib import aclosing
from typing import TYPE_CHECKING

from polos_service.cli.exits import fail, reporting

if TYPE_CHECKING:
    from polos_client.calls.client import PolosClient
    from polos_client.define.agent import Agent
    from polos_client.define.scripted import Part
    from polos_client.event import Event
    from polos_service.cli.view import View

QUESTION = "Is the light on at the Northern Head?"
BROKEN = "No, the lamp of the Northern Head is dark, and the"
ANSWER = (
    "Yes, the lamp is lit: it turns once in ten seconds, and a ship can see it from eighteen "
    "miles away. The truncated answer is void. This one arrived over two streams, and no word "
    "is missing or repeated."
)
ANSWERING = 2
"""The model call that answers; the first one asks for the tool."""

PACE = 0.06
"""Seconds between two words of the script."""

PAUSE = 0.5
"""Seconds that the tool takes, and for which nobody reads."""

DROP_AFTER = 12
"""Words of the answer after which the stream is dropped."""


def demo() -> None:
    """Show a run with a tool call, a retried failure and a resumed stream.

    The model is scripted; the service, its log on disk and the gRPC calls are real.
    """
    with reporting():
        asyncio.run(shown())


async def shown() -> None:
    """Run the demo."""
    from polos import Polos  # noqa: PLC0415 - the whole service: `--help` needs none
    from polos_service.cli.view import View, terminal  # noqa: PLC0415

    view = View(terminal())
    view.note(f"You: {QUESTION}", "bold")
    async with Polos() as polos:
        with view:
            run_id, seen = await first_part(polos, view)
            view.note(
                f"-- The stream is dropped after event {len(seen)}; the run continues.",
                "bold yellow",
            )
            await asyncio.sleep(PAUSE)
            view.note(f"-- The stream resumes after event {len(seen)}.", "bold yellow")
            seen += await second_part(polos, view, run_id, len(seen))
        await check(polos, run_id, seen)
    view.note(
        f"All {len(seen)} events arrived once and in order, over two streams, as in the log.\n"
        "Now run your own agent: polos serve app.py, then polos run AGENT 'a prompt'.",
        "bold",
    )


async def first_part(polos: PolosClient, view: View) -> tuple[str, list[Event]]:
    """Start the run and read it until the middle of the answer that counts."""
    stream = await keeper().stream(polos, QUESTION)
    seen: list[Event] = []
    words = 0
    async with aclosing(stream.events) as events:
        async for event in events:
            view.show(event)
            seen.append(event)
            delta = event.proto.text_delta
            words += delta.step == ANSWERING and delta.attempt > 1
            if words == DROP_AFTER:
                break
    return stream.id, seen


async def second_part(polos: PolosClient, view: View, run_id: str, after: int) -> list[Event]:
    """Read the rest of the run."""
    from polos import events  # noqa: PLC0415

    seen = []
    async for event in events.stream_workflow(
        polos, workflow_run_id=run_id, last_sequence_id=after
    ):
        view.show(event)
        seen.append(event)
    return seen


async def check(polos: PolosClient, run_id: str, seen: list[Event]) -> None:
    """Compare what was seen with the log; a demo that shows something untrue fails."""
    from polos import events  # noqa: PLC0415

    log = [event.proto async for event in events.stream_workflow(polos, workflow_run_id=run_id)]
    if [event.proto for event in seen] != log:
        fail(f"the log of run {run_id} differs from what was shown")


def keeper() -> Agent:
    """Return the agent: its first model call asks for a tool, the next one fails in its middle."""
    from polos import Agent, scripted, tool  # noqa: PLC0415

    @tool(description="Check whether a lighthouse is lit")
    async def look(lighthouse: str) -> dict[str, object]:
        await asyncio.sleep(PAUSE)
        return {"lighthouse": lighthouse, "lit": True, "range_miles": 18}

    broken = [*spoken(BROKEN), scripted.fail(message="the provider hung up in the middle")]
    return Agent(
        id="keeper",
        provider="scripted",
        model=scripted.script(
            scripted.turn(
                *spoken("I will look."), scripted.call("look", lighthouse="Northern Head")
            ),
            scripted.turn(*broken, retried=spoken(ANSWER)),
        ),
        tools=[look],
    )


def spoken(text: str) -> list[Part]:
    """Return a text that is said at the pace of a model."""
    from polos import scripted  # noqa: PLC0415

    return [part for word in scripted.say(text).chunks for part in (scripted.say([word]), pause())]


def pause() -> Part:
    """Return the silence between two words."""
    from polos import scripted  # noqa: PLC0415

    return scripted.pause(PACE)
