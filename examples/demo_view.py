"""What the demo shows: steps, text, tokens and time as they come; plain lines in a pipe."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from time import monotonic
from typing import Self

from rich.console import Console, Group
from rich.live import Live
from rich.text import Text

from polos import Event

VOID = "bright_black strike"
"""How text looks that a retry has voided."""


FRAMES = 10
"""How often the screen is redrawn, per second."""


class View:
    """The demo's part of the screen.

    Used as a context manager around a run it keeps a line with tokens and time up to date.
    """

    def __init__(self, console: Console) -> None:
        """Show everything on `console`."""
        self._console = console
        self._shown = Text()
        self._text_begins: int | None = None
        self._tokens = 0
        self._began = self._killed = monotonic()
        self._live = Live(
            console=console,
            get_renderable=self._picture,
            vertical_overflow="visible",
            refresh_per_second=FRAMES,
        )

    @contextmanager
    def doing(self, what: str) -> Iterator[None]:
        """Show that something goes on, and then that it is done and how long it took."""
        began = monotonic()
        if not self._console.is_terminal:
            self.note(f"{what} ...")
            self._console.file.flush()
        with self._console.status(what) if self._console.is_terminal else nullcontext():
            yield
        self.note(f"✓ {what} ({monotonic() - began:.1f} s)", "green")

    def note(self, text: str, style: str = "") -> None:
        """Show a line of text."""
        self._console.print(Text(text, style), soft_wrap=True)

    def __enter__(self) -> Self:
        self._began = monotonic()
        self.note("")
        if self._console.is_terminal:
            self._live.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._live.stop()
        if not self._console.is_terminal:
            self.note(f"{self._totals()}\n")

    def killed(self, event: Event) -> None:
        """Show that the service was killed after an event."""
        self._killed = monotonic()
        self._add(
            f"\n✗ kill -9: the service is gone, after event {event.sequence_id}\n", "bold red"
        )

    def restarted(self) -> None:
        """Show that the service runs again."""
        seconds = monotonic() - self._killed
        self._add(f"✓ started again on the same store ({seconds:.1f} s)\n", "green")

    def show(self, event: Event) -> None:
        """Show one event of the run."""
        data = event.data
        match event.event_type:
            case "agent_start":
                self._add(f"agent {data['agent_id']} on {data['model']}\n", "bright_black")
            case "step_start":
                self._add(f"▸ {data['step_key']}\n", "cyan")
            case "text_delta":
                if self._text_begins is None:
                    self._text_begins = len(self._shown)
                self._tokens += 1  # nearly: a model says a token at a time, seldom more
                self._add(data["content"])
            case "tool_call":
                call = data["tool_call"]["function"]
                self._add(f"{call['name']}({call['arguments']})\n", "magenta")
            case "step_retry":
                self._void()
                self._add(f"↻ {data['step_key']} starts over, its text is void\n", "yellow")
            case "step_finish":
                self._finish(data)

    def _finish(self, data: dict[str, object]) -> None:
        """Show that a step has finished, and what a function of the demo returned."""
        said = self._text_begins is not None
        self._text_begins = None
        output = data.get("data")
        is_function = data["step_type"] in ("run", "tool")
        returned = f": {output['result']}" if is_function and isinstance(output, dict) else ""
        line = f"✓ {data['step_key']}{returned} ({data['duration']:.1f} s)\n"
        self._add(f"\n{line}" if said else line, "cyan")

    def _void(self) -> None:
        """Strike the text of the step's attempt that was interrupted."""
        if self._text_begins is not None:
            text = self._shown
            end = text.plain.find("\n✗", self._text_begins)
            text.stylize(VOID, self._text_begins, len(text) if end < 0 else end)
        self._text_begins = None
        self._tokens = 0

    def _add(self, text: str, style: str = "") -> None:
        self._shown.append(text, style)
        if not self._console.is_terminal:
            self._console.print(Text(text, style), end="", soft_wrap=True)
            self._console.file.flush()

    def _totals(self) -> str:
        return f"{self._tokens} pieces of text, {monotonic() - self._began:.1f} s"

    def _picture(self) -> Group:
        return Group(self._shown, Text(self._totals(), "bright_black"))
