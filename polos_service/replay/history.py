"""The history of a run: what its readers see, in memory or in a file."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from contextlib import aclosing
from dataclasses import dataclass, field, replace
from os import PathLike
from pathlib import Path
from typing import Any, Self

from google.protobuf import json_format

from polos.v1.event_pb2 import Event
from polos_client.calls.client import PolosClient
from polos_client.calls.events import stream_workflow
from polos_client.errors import PolosError
from polos_client.wire import root_of

STARTS = {"agent_start": "agent", "workflow_start": "workflow"}
"""What a run is of, by the payload of its first event."""


class HistoryInvalid(PolosError):
    """A history cannot be replayed: it is empty, damaged, or not of the code that is given."""


@dataclass(frozen=True, kw_only=True)
class History:
    """What a replay knows of a run.

    A service never tells the initial state of a run, so it is not part of a history that was read
    from one: `dataclasses.replace` adds it, or the member `initial_state` of a file's first line.

    Attributes:
        events: the run's events, from the first on, without a gap.
        session_id: the session that the run was started in; None if none was given.
        user_id: the user that it was started for; None if none was given.
        initial_state: the state that it was started with.

    """

    events: Sequence[Event]
    session_id: str | None = None
    user_id: str | None = None
    initial_state: Mapping[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        """Check that the events are the beginning of a run.

        Raises:
            HistoryInvalid: they are not.

        """
        if not self.events:
            raise HistoryInvalid("the history has no events: the run has not begun")
        for expected, event in enumerate(self.events, start=1):
            if event.sequence != expected:
                raise HistoryInvalid(
                    f"event {expected} is missing from the history: event {event.sequence} stands "
                    "in its place"
                )
        if self._start not in STARTS:
            raise HistoryInvalid(
                f"the first event is {self._start or 'unknown'}: it does not start a run"
            )

    @property
    def run_id(self) -> str:
        """The run."""
        return self.events[0].run_id

    @property
    def workflow_id(self) -> str:
        """Id of the agent or workflow that the run executes."""
        return self.events[0].workflow_id

    @property
    def kind(self) -> str:
        """What the run is of: `agent` or `workflow`."""
        return STARTS[self._start]

    @property
    def _start(self) -> str:
        return self.events[0].WhichOneof("payload") or ""

    @classmethod
    async def fetch(cls, client: PolosClient, run_id: str) -> Self:
        """Read the history of a run, as far as its log has it now.

        Raises:
            CallError: the service refused: there is no such run, for example.
            ConnectionLost: it could not be reached.
            HistoryInvalid: the run has not begun, or is a child.

        """
        if (root := root_of(run_id)) != run_id:
            raise HistoryInvalid(
                f"run {run_id} is a child: its events are in the history of {root}"
            )
        run = await client.get_run(run_id)
        events: list[Event] = []
        if run.latest_sequence:
            async with aclosing(stream_workflow(client, workflow_run_id=run_id)) as stream:
                async for event in stream:
                    events.append(event.proto)
                    if event.sequence_id >= run.latest_sequence:
                        break
        return cls(
            events=events,
            session_id=run.session_id if run.HasField("session_id") else None,
            user_id=run.user_id if run.HasField("user_id") else None,
        )

    @classmethod
    def read(cls, path: str | PathLike[str]) -> Self:
        """Read a history from a file that `polos runs export` wrote.

        Raises:
            HistoryInvalid: the file cannot be read, or is not a history.

        """
        try:
            lines = Path(path).read_text(encoding="utf-8").splitlines()
        except (OSError, UnicodeDecodeError) as error:
            raise HistoryInvalid(f"{path} cannot be read: {error}") from error
        about: dict[str, Any] = {}
        events: list[Event] = []
        for number, line in enumerate(lines, start=1):
            try:
                if number == 1 and "history" in (first := json.loads(line)):
                    about = first["history"]
                    checked(about)
                elif line.strip():
                    events.append(json_format.Parse(line, Event(), ignore_unknown_fields=True))
            except (ValueError, TypeError, RecursionError, json_format.ParseError) as error:
                raise HistoryInvalid(f"{path}, line {number}: {error}") from error
        try:
            known: dict[str, Any] = {name: about[name] for name in ABOUT if name in about}
            return cls(events=events, **known)
        except HistoryInvalid as error:
            raise HistoryInvalid(f"{path}: {error}") from None

    def lines(self) -> Iterator[str]:
        """Yield the lines of a file that `read` reads, without newlines.

        The first says whom the run is for; each other is an event in protobuf's JSON form.
        """
        about: dict[str, Any] = {"run_id": self.run_id}
        about |= {"session_id": self.session_id, "user_id": self.user_id}
        if self.initial_state:
            about["initial_state"] = dict(self.initial_state)
        yield json.dumps({"history": about}, ensure_ascii=False)
        for event in self.events:
            yield json_format.MessageToJson(
                event, preserving_proto_field_name=True, indent=None, ensure_ascii=False
            )

    def of(self, **changes: Any) -> Self:
        """Return the history with other attributes; None changes nothing."""
        return replace(self, **{name: one for name, one in changes.items() if one is not None})


ABOUT: Mapping[str, tuple[type, ...]] = {
    "session_id": (str, type(None)),
    "user_id": (str, type(None)),
    "initial_state": (dict,),
}
"""What the first line of a file says besides the run's id, and the types of it."""


def checked(about: Any) -> None:
    """Check what the first line of a file says.

    Raises:
        TypeError: a value is of another type.

    """
    if not isinstance(about, dict):
        raise TypeError("'history' must be an object")
    for name, types in ABOUT.items():
        if name in about and not isinstance(about[name], types):
            raise TypeError(f"{name!r} cannot be {about[name]!r:.80}")
