"""What a run looks like to a program: plain text, or JSON; and how an ended run is told."""

from __future__ import annotations

import json
import sys
from contextlib import AbstractContextManager
from typing import TYPE_CHECKING, Any, Protocol

import typer

from polos_service.cli.exits import ANSWER_CUT, DONE, RUN_CANCELLED, RUN_FAILED, complain
from polos_service.cli.text import printable

if TYPE_CHECKING:
    from polos_client.event import Event

BRIEF = 200
"""Characters of arguments, results and answers that are shown at most."""

LOST = "Connection lost, trying again"
"""What is said while the service cannot be reached."""

CUT = {
    "length": "the answer is incomplete: it reached the token limit (finish reason length)",
    "content_filter": "the answer is incomplete: it was filtered (finish reason content_filter)",
    "refusal": "the model refused to answer (finish reason refusal)",
}
"""Finish reasons that are not failures, but leave no whole answer, and what is said then."""

ENDS = ("agent_finish", "workflow_finish", "error", "run_cancelled")
"""The kinds of events that end a run, a child as well as the root."""


class Output(AbstractContextManager["Output"], Protocol):
    """Where the events of a run go, while it is entered."""

    def show(self, event: Event) -> None:
        """Show the next event."""

    def pause(self) -> None:
        """Leave the screen to a question."""

    def resume(self) -> None:
        """Take the screen back."""

    def lost(self, seconds: float | None) -> None:
        """Tell for how long there has been no connection; None: there is one."""


class _Piped(Output):
    """Standard output that no person looks at: there is no screen to share."""

    _lost = False

    def __exit__(self, *error: object) -> None:
        """Leave; everything is written already."""

    def pause(self) -> None:
        """Write nothing anyway until the next event."""

    def resume(self) -> None:
        """Go on with the next event."""

    def lost(self, seconds: float | None) -> None:
        """Say on standard error once that the connection is lost, and that it is back."""
        if self._lost is not (seconds is not None):
            self._lost = not self._lost
            typer.echo(f"{LOST}." if self._lost else "Connected again.", err=True)


class JsonLines(_Piped):
    """One JSON object a line, as the events come."""

    def show(self, event: Event) -> None:
        """Print the event."""
        print_json(as_dict(event))


class PlainText(_Piped):
    """The result alone: an agent's text, each model call's once it can no longer become void.

    Of a workflow, what it returned, as JSON.
    """

    def __init__(self) -> None:
        self._texts = Texts()

    def show(self, event: Event) -> None:
        """Print what is final; problems go to standard error."""
        if (text := self._texts.add(event)) and event.is_own:
            print_line(text.removesuffix("\n"))
        if not event.proto.terminal:
            return
        if problem := problem_of(event):
            complain(problem)
        elif event.proto.HasField("workflow_finish"):
            print_line(event.proto.workflow_finish.result_json)


def print_json(value: dict[str, Any]) -> None:
    """Print a JSON object on a line of its own, at once."""
    print_line(json_of(value))


def print_line(line: str) -> None:
    """Print a line, at once."""
    sys.stdout.write(f"{line}\n")
    sys.stdout.flush()


def json_of(value: Any) -> str:
    """Return a value as JSON text on one line."""
    return json.dumps(value, ensure_ascii=False)


def brief(text: str, most: int = BRIEF) -> str:
    """Return the text on one line, cut at `most` characters."""
    line = " ".join(text.split())
    return line if len(line) <= most else f"{line[:most]} …"


def as_dict(event: Event) -> dict[str, Any]:
    """Return an event with its place in the log."""
    parent = {"parent_run_id": event.proto.parent_run_id} if is_child(event) else {}
    return {
        "sequence": event.sequence_id,
        "run_id": event.proto.run_id,
        **parent,
        "event_type": event.event_type,
        "data": event.data,
        "created_at": event.created_at.isoformat(),
    }


def is_child(event: Event) -> bool:
    """Return whether the event is of a child, rather than of the root run."""
    return event.proto.HasField("parent_run_id")


def kind_of(event: Event) -> str:
    """Return what the event tells, by the name of its payload; "unknown" if it is too new.

    `Event.event_type` may be a name that the run's code has chosen, this one never is.
    """
    return event.proto.WhichOneof("payload") or "unknown"


class Texts:
    """What model calls have said, each once it has finished: the root run's and its children's.

    Of an agent with an output schema, the answer alone.
    """

    def __init__(self) -> None:
        self._saying: dict[tuple[str, str], list[str]] = {}
        self._typed: set[str] = set()

    def add(self, event: Event) -> str:
        """Take the next event; return the text of the model call that it ends, else nothing."""
        data, run_id = event.data, event.proto.run_id
        match kind_of(event):
            case "agent_start" if "output_schema_name" in data:
                self._typed.add(run_id)
            case "text_delta":
                self._saying.setdefault((run_id, data["step_key"]), []).append(data["content"])
            case "step_retry":
                self._saying.pop((run_id, data["step_key"]), None)
            case "step_finish" if data["step_type"] == "llm":
                said = self._saying.pop((run_id, data["step_key"]), [])
                asks = data.get("finish_reason") == "tool_calls"
                if "invalid_output" in data or (asks and run_id in self._typed):
                    return ""
                if "long_answer" in data:
                    return "".join(said)
                result = data.get("data", {}).get("result")
                return str(result.get("content") or "") if isinstance(result, dict) else ""
        return ""


def problem_of(event: Event) -> str | None:
    """Return in a sentence what went wrong in the run that `event` ended; None: nothing."""
    data = event.data
    match kind_of(event):
        case "agent_finish":
            return CUT.get(data["result"].get("finish_reason", ""))
        case "workflow_finish":
            return None
        case "run_cancelled":
            return f"run {event.proto.run_id} was cancelled"
        case "error":
            return printable(data["error"])
    return f"run {event.proto.run_id} ended with an unknown event; update this program"


def exit_code(event: Event) -> int:
    """Return the exit code that tells how `event` ended the run."""
    match kind_of(event):
        case "agent_finish":
            return DONE if problem_of(event) is None else ANSWER_CUT
        case "workflow_finish":
            return DONE
        case "run_cancelled":
            return RUN_CANCELLED
    return RUN_FAILED


def output_for(*, as_json: bool) -> Output:
    """Return where a run goes: JSON if asked for, the live view on a terminal, else plain text."""
    if as_json:
        return JsonLines()
    if not sys.stdout.isatty():
        return PlainText()
    from polos_service.cli.view import View, terminal  # noqa: PLC0415 - rich: a pipe needs none

    return View(terminal())
