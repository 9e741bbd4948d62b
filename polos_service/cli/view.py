"""The live view of a run, for a terminal.

What is final is printed for good, line by line. The text of the model call under way may still
become void: it stays in a region below, which is redrawn, together with a line that says what
is going on. When a retry takes the text back, it leaves the screen. A bar stands before a
child's lines for each generation between it and the root, and then the step that started it;
its text is printed when its model call has finished. What a model thinks before it answers is
not shown. Open waits are named in the region, too, with the time since they began.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from datetime import UTC, timedelta
from itertools import islice
from typing import Any, Self

from rich.console import Console, Group
from rich.live import Live
from rich.spinner import Spinner
from rich.text import Text

from polos.v1.run_pb2 import Wait
from polos_client.event import Event
from polos_client.fold import Voids
from polos_service.cli.output import (
    ENDS,
    LOST,
    Output,
    Texts,
    brief,
    json_of,
    kind_of,
    problem_of,
)
from polos_service.cli.records import span
from polos_service.cli.text import printable
from polos_service.cli.waits import asks, ending_of, wait_of

EVENT = "event"
"""The type of a step that tells an event of a user's own type."""

MINUTES = 120
"""Seconds from which a time that goes on is told in larger units."""

LONG_PAUSE = 5.0
"""Seconds from which the pause before a step's next attempt is told."""

VOID = 60
"""Characters of void text that are shown at most."""

FRAMES = 12
"""How often the region is redrawn, per second."""

BAR = "│ "
"""What stands before each line of a child, once for each generation."""

LONG = "…"
"""What stands for arguments that exceed an event."""

GENERATIONS = 20
"""Generations that are shown apart at most."""

STEPS = 8
"""Steps that go on which are named at most; the longest ones."""

NARROWEST = 20
"""Characters that a line of a child has at least after its bars."""

STATUS_LINES = 2
"""Lines of the screen that the text of the model call under way leaves free."""


def terminal() -> Console:
    """Return the console of standard output."""
    return Console(highlight=False)


class View(Output):
    """The run on the screen; on a console that is not a terminal, only its final lines."""

    def __init__(self, console: Console) -> None:
        """Show runs on `console`, one after the other."""
        self._console = console
        self._live: Live | None = None
        self._saying: list[str] = []
        self._texts = Texts()
        self._doing: dict[tuple[str, str], tuple[str, float]] = {}
        self._waits: dict[int, Wait] = {}
        self._voids = Voids()
        self._bars: dict[str, str] = {}
        self._lost: float | None = None
        self._shows: Mapping[str, Callable[[Event], None]] = {
            "agent_start": self._begin_agent,
            "workflow_start": self._begin_workflow,
            "step_start": self._start,
            "step_retry": self._retry,
            "suspended": self._suspend,
            "resumed": self._resumed,
            "custom": self._tell,
            "workflow_retry": self._start_over,
            **dict.fromkeys(ENDS, self._end_child),
        }

    def __enter__(self) -> Self:
        """Take the screen."""
        self.resume()
        return self

    def __exit__(self, *error: object) -> None:
        """Leave the screen, with what was said so far."""
        self.pause()
        self._leave_unfinished()
        self._doing.clear()
        self._waits.clear()

    def pause(self) -> None:
        """Leave the screen to a question."""
        if self._live is not None:
            self._live.stop()
            self._live = None

    def resume(self) -> None:
        """Take the screen back."""
        if self._live is None and self._console.is_terminal:
            # A new one each time: Live remembers where on the screen it was.
            self._live = Live(
                console=self._console,
                get_renderable=self._region,
                refresh_per_second=FRAMES,
                transient=True,
            )
            self._live.start()

    def lost(self, seconds: float | None) -> None:
        """Tell in the region how long the connection has been lost."""
        self._lost = seconds

    def show(self, event: Event) -> None:
        """Show the next event, unless its run is void."""
        self._voids.add(event.proto)
        if self._voids.void(event.proto.run_id):
            return
        if event.proto.terminal:
            self._end(event)
            return
        finished = self._texts.add(event)
        kind = kind_of(event)
        if kind == "step_finish":
            self._finish(event, finished)
        elif kind == "text_delta" and event.is_own:
            self._saying.append(event.proto.text_delta.content)
        elif kind in self._shows:
            self._shows[kind](event)

    def note(self, text: str, style: str = "") -> None:
        """Print a line above the region."""
        self._say(text, style)

    def _bar(self, event: Event) -> tuple[str, str]:
        """Return what stands before each line of the event's run, and before the first alone."""
        if event.is_own:
            return "", ""
        run_id, parent = event.proto.run_id, event.proto.parent_run_id
        bar = (self._bars.get(parent, "") + BAR)[: GENERATIONS * len(BAR)]
        return self._bars.setdefault(run_id, bar), f"{event.proto.parent_step_key} · "

    def _begin_agent(self, event: Event) -> None:
        start = event.proto.agent_start
        text = f"{start.agent_id} · {start.provider} · {start.model}"
        self._say(text, "dim", self._bar(event))

    def _begin_workflow(self, event: Event) -> None:
        self._say(event.proto.workflow_id, "dim", self._bar(event))

    def _start(self, event: Event) -> None:
        data, key = event.data, event.data["step_key"]
        label = f"{named(event)}{key}"
        self._doing[event.proto.run_id, key] = (label, time.time())
        if "tool_call" in data:
            arguments = data["tool_call"]["function"].get("arguments", LONG)
            self._say(f"→ {data['tool_name']}({brief(arguments)})", "magenta", self._bar(event))

    def _retry(self, event: Event) -> None:
        said = ""
        if event.is_own:
            said = brief("".join(self._saying), VOID)
            self._saying.clear()
        for run_id in {run_id for run_id, _ in self._doing if self._voids.void(run_id)}:
            self._stop(run_id)
        void = f"; discarded: {said}" if said else ""
        retry = event.proto.step_retry
        pause = retry.start_time.ToDatetime(tzinfo=UTC) - event.created_at
        long = retry.HasField("start_time") and pause.total_seconds() >= LONG_PAUSE
        after = f" in {span(pause)}" if long else ""
        text = f"↻ {retry.step_key} starts over{after}: {retry.message}{void}"
        self._say(text, "yellow", self._bar(event))

    def _tell(self, event: Event) -> None:
        told = event.proto.custom
        self._say(f"• {told.type} {brief(told.data_json)}", "cyan", self._bar(event))

    def _start_over(self, event: Event) -> None:
        retry = event.proto.workflow_retry
        text = f"↻ the workflow starts over, attempt {retry.attempt}: {retry.message}"
        self._say(text, "yellow", self._bar(event))

    def _suspend(self, event: Event) -> None:
        wait = self._waits[event.sequence_id] = wait_of(event.proto)
        label = f"{named(event)}{wait.step_key}"
        self._doing[wait.run_id, wait.step_key] = (label, event.created_at.timestamp())
        self._say(f"⏸ {asks(wait)}", "blue", self._bar(event))

    def _resumed(self, event: Event) -> None:
        told = event.proto.resumed
        self._doing.pop((event.proto.run_id, told.step_key), None)
        wait = self._waits.pop(told.wait_id, None)
        after = ""
        if wait is not None:
            after = f" after {span(event.created_at - wait.create_time.ToDatetime(tzinfo=UTC))}"
        style = "yellow" if told.expired else "blue"
        self._say(f"▶ {told.step_key}{after} · {ending_of(told)}", style, self._bar(event))

    def _finish(self, event: Event, text: str) -> None:
        data, bar = event.data, self._bar(event)
        self._doing.pop((event.proto.run_id, data["step_key"]), None)
        if text:
            if event.is_own:
                self._saying.clear()  # first, so that the region does not show it once more
            self._say(text, bar=bar)
        elif "error" in data and event.is_own:
            self._leave_unfinished()
        elif data["step_type"] == "llm" and event.is_own:
            self._saying.clear()  # it is not part of the answer
        if data["step_type"] == EVENT and "error" not in data:
            return  # the event itself is shown
        name = data.get("tool_name") or data["step_key"]
        spent = " · ".join([f"{data.get('duration', 0):.2f} s", *tokens(data)])
        if "error" in data:
            self._say(f"✗ {name} · {spent} · {data['error']}", "red", bar)
        elif "invalid_output" in data:
            found = "; ".join(": ".join(filter(None, one.values())) for one in violations(data))
            self._say(f"✗ {name} · {spent} · {brief(found)}", "yellow", bar)
        else:
            self._say(f"✓ {name} · {spent}{result_of(data)}", "dim", bar)

    def _stop(self, run_id: str) -> None:
        """Forget the steps of a run that goes on no longer."""
        self._doing = {at: step for at, step in self._doing.items() if at[0] != run_id}

    def _end_child(self, event: Event) -> None:
        self._stop(event.proto.run_id)
        problem, bar = problem_of(event), self._bar(event)
        if problem is not None:
            self._say(f"✗ {problem}", "red", bar)
        self._say(" · ".join(["ended", *totals(event.data)]), "dim", bar)

    def _end(self, event: Event) -> None:
        self._leave_unfinished()
        problem, run = problem_of(event), f"run {event.proto.run_id}"
        if event.proto.HasField("workflow_finish"):
            self._say(event.proto.workflow_finish.result_json)
        if problem is None:
            self._say(" · ".join(["done", *totals(event.data), run]), "green")
            return
        self._say(f"✗ {problem}", "red")
        self._say(" · ".join(["ended", *totals(event.data), run]), "dim")

    def _leave_unfinished(self) -> None:
        """Print the text of a model call that broke off."""
        if self._saying:
            text = "".join(self._saying)
            self._saying.clear()
            self._say(f"{text} …", "dim")

    def _say(self, text: str, style: str = "", bar: tuple[str, str] = ("", "")) -> None:
        if self._live is not None:
            self._live.refresh()  # else the region comes back as it was, under the line
        each, first = bar
        shown = Text(printable(first + text).rstrip("\n"), style)
        if self._console.is_terminal:  # break lines between words; in a pipe, nowhere
            lines = shown.wrap(self._console, max(self._console.width - len(each), NARROWEST))
        else:
            lines = shown.split(allow_blank=True)
        for line in lines:
            self._console.print(Text(each, style) + line, soft_wrap=True)

    def _region(self) -> Group:
        """Return what is redrawn: the end of the text of the model call, and what is going on."""
        width, height = self._console.size
        room = max(height - STATUS_LINES, 1)
        # The end that can be seen, and no more: the text may be long, and this runs often.
        end = printable("".join(self._saying))[-width * room :]
        lines = Text(end).wrap(self._console, width)[-room:] if end else []
        return Group(*lines, self._status())

    def _status(self) -> Spinner:
        if self._lost is not None:
            text = Text(f"{LOST} ({elapsed(self._lost)})", "yellow")
            return Spinner("dots", text, style="yellow")
        now = time.time()
        shown = islice(self._doing.values(), STEPS)
        doing = [f"{label} {elapsed(now - began)}" for label, began in shown]
        if len(self._doing) > STEPS:
            doing.append(f"{len(self._doing) - STEPS} more")
        return Spinner("dots", Text(", ".join(doing) or "waiting", "dim"), style="dim")


def named(event: Event) -> str:
    """Return what a step of the event's run is named after: of a child, its step and what it is."""
    if event.is_own:
        return ""
    parent, child = event.proto.parent_step_key, event.proto.workflow_id
    return f"{parent} " if parent == child else f"{parent} {child} "


def elapsed(seconds: float) -> str:
    """Return a time that goes on: seconds without a fraction, or a larger unit."""
    return f"{seconds:.0f} s" if seconds < MINUTES else span(timedelta(seconds=seconds))


def violations(data: dict[str, Any]) -> list[dict[str, str]]:
    """Return what an answer violates of the output schema."""
    found: list[dict[str, str]] = data["invalid_output"]["violations"]
    return found


def result_of(data: dict[str, Any]) -> str:
    """Return what a tool returned; nothing for a model call."""
    if data["step_type"] == "llm":
        return ""
    return f" · {brief(json_of(data.get('data', {}).get('result')))}"


def tokens(data: dict[str, Any]) -> list[str]:
    """Return the tokens and the cost, as far as they are known."""
    known = []
    if usage := data.get("usage"):
        known.append(f"{usage['input_tokens']} tokens in, {usage['output_tokens']} out")
    if "cost" in data:
        known.append(f"${data['cost']:.6f}")
    return known


def totals(data: dict[str, Any]) -> list[str]:
    """Return what the whole run took: model calls, tokens, cost and time, as far as known."""
    calls = data.get("total_steps", 0)
    parts = [f"{calls} model call{'' if calls == 1 else 's'}"] if calls else []
    parts += tokens(data)
    if "spent" in data and data["spent"] != data.get("usage"):
        parts.append(f"{data['spent']['total_tokens']} tokens spent, failed calls included")
    if "duration" in data:
        parts.append(f"{data['duration']:.2f} s")
    return parts
