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


class View:
    """The demo's part of the screen.

    Used as a context manager around an answer it keeps a line with tokens and time up to date.
    """

    def __init__(self, console: Console) -> None:
        self._console = console
        self._answer = Text()
        self._tokens = 0
        self._exactly = False
        self._started = self._ended = monotonic()
        self._live = Live(
            console=console, get_renderable=self._picture, vertical_overflow="visible"
        )

    @contextmanager
    def doing(self, what: str) -> Iterator[None]:
        """Show that something goes on, and then that it is done and how long it took."""
        started = monotonic()
        if not self._console.is_terminal:
            self.note(f"{what} ...")
            self._console.file.flush()
        with self._console.status(what) if self._console.is_terminal else nullcontext():
            yield
        self.note(f"✓ {what} ({monotonic() - started:.1f} s)", "green")

    def note(self, text: str, style: str = "") -> None:
        """Show a line of text."""
        self._console.print(Text(text, style), soft_wrap=True)

    def question(self, text: str) -> None:
        """Show what is asked."""
        self.note(f"\nQ: {text}\n", "bold")

    def __enter__(self) -> Self:
        self._started = monotonic()
        if self._console.is_terminal:
            self._live.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._live.stop()
        if not self._console.is_terminal:
            self.note(self._totals() if self._exactly else f"\n{self._totals()}")

    def show(self, event: Event) -> None:
        """Show one event of the run."""
        data, self._ended = event.data, monotonic()
        match event.event_type:
            case "agent_start":
                self._add(f"agent {data.get('agent_id')} on {data.get('model')}\n", "dim")
            case "step_start":
                self._add(f"▸ {data.get('step_key')}\n", "cyan")
            case "text_delta":
                self._tokens += 1  # nearly: a model says a token at a time, seldom more
                self._add(data.get("content", ""))
            case "tool_call":
                call = data.get("tool_call", {}).get("function", {})
                self._add(f"{call.get('name')}({call.get('arguments')})\n", "magenta")
            case "step_retry":
                self._add(f"\n↻ {data.get('step_key')}: {data.get('reason')}\n", "yellow")
            case "step_finish":
                self._add(f"\n✓ {data.get('step_key')} in {data['duration']:.2f} s\n", "cyan")
            case "agent_finish":
                self._tokens, self._exactly = data["usage"]["output_tokens"], True

    def _add(self, text: str, style: str = "") -> None:
        self._answer.append(text, style)
        if not self._console.is_terminal:
            self._console.print(Text(text, style), end="", soft_wrap=True)
            self._console.file.flush()

    def _totals(self) -> str:
        elapsed = (self._ended if self._exactly else monotonic()) - self._started
        about = "" if self._exactly else "about "
        rate = self._tokens / max(elapsed, 0.001)
        return f"{about}{self._tokens} tokens, {rate:.0f} tokens/s, {elapsed:.1f} s"

    def _picture(self) -> Group:
        return Group(self._answer, Text(self._totals(), "dim"))
