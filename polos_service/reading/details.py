"""What a run's log says of its outcome and its tools; the log may be long.

Few events are needed: the terminal one is the last, and events of tools say so in their
bytes. All others are skipped without being decoded.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

from polos.v1.event_pb2 import Event, StepFinish, ToolCall
from polos.v1.run_pb2 import ToolResult
from polos_client.errors import StoreUnavailable
from polos_service.pacer import Pacer
from polos_service.reading.tail import READ_LIMIT, response_of
from polos_service.runs.frame import cut, decode
from polos_service.store import ENDED, RunRecord, RunStore, Slice

TOOL = b"\x12\x04tool"
"""What the bytes of every event of a tool's step hold: its `step_type`, which is field 2."""

RESULTS_LIMIT = 1024 * 1024
"""Bytes of tool results that are returned of a run at most."""


@dataclass(frozen=True, kw_only=True, slots=True)
class RunDetails:
    """A run's record, and what its log says beyond that.

    Attributes:
        record: the run.
        outcome: the terminal event; None if the run has not ended.
        tool_results: in the order in which the tools finished.
        omitted: further tool results, beyond RESULTS_LIMIT.

    """

    record: RunRecord
    outcome: Event | None
    tool_results: Sequence[ToolResult] = ()
    omitted: int = 0


class Details:
    """Reads logs for answers, a piece at a time, fairly between all that are asked for."""

    def __init__(self, store: RunStore, pacer: Pacer) -> None:
        self._store = store
        self._pacer = pacer

    async def ended(self, project: str, run_id: str) -> RunDetails:
        """Return the run with its outcome, if it has ended; without the results of its tools.

        Raises:
            RunNotFound: there is no such run.

        """
        record = await self._store.get(project, run_id)
        if record.state not in ENDED:
            return RunDetails(record=record, outcome=None)
        part = await self._read(project, run_id, record.latest - 1, 1)
        frame = part.frames[0]
        data, _ = cut(frame.data, record.latest - frame.first, 1)
        return RunDetails(record=record, outcome=decode(data)[0])

    async def whole(self, project: str, run_id: str) -> RunDetails:
        """Return the run with its outcome and the results of its own tools.

        Raises:
            RunNotFound: there is no such run.

        """
        details = await self.ended(project, run_id)
        latest = details.record.latest
        results = Results(details.record)
        after = 0
        while after < latest:
            await self._pacer.next()
            part = await self._read(project, run_id, after, READ_LIMIT)
            data, after = response_of(part, after)
            if TOOL in data:
                results.add(decode(data))
        return replace(details, tool_results=results.found, omitted=results.omitted)

    async def _read(self, project: str, run_id: str, after: int, limit: int) -> Slice:
        """Return frames behind a cursor; the record says that there are some.

        Raises:
            StoreUnavailable: the store does not have them.

        """
        part = await self._store.read(project, run_id, after, limit)
        if not part.frames:  # this replica has not heard yet of what the record counts
            await self._store.wait(project, run_id, after)
            part = await self._store.read(project, run_id, after, limit)
        if not part.frames:
            raise StoreUnavailable(
                f"The store lacks events of run {run_id} behind {after}. Restore it from a back-up."
            )
        return part


class Results:
    """Collects the results of a root run's own tools.

    Attributes:
        found: the results, RESULTS_LIMIT bytes at most.
        omitted: how many more there are.

    """

    def __init__(self, record: RunRecord) -> None:
        """Collect from the events that the record counts; what came later is ignored."""
        self.found: list[ToolResult] = []
        self.omitted = 0
        self._record = record
        self._calls: dict[str, ToolCall] = {}
        self._size = 0

    def add(self, events: Sequence[Event]) -> None:
        """Take the next events."""
        for event in events:
            if event.sequence > self._record.latest:
                break
            if event.run_id != self._record.run_id:
                continue
            if event.step_start.HasField("tool_call"):
                self._calls[event.step_start.step_key] = event.step_start.tool_call
            elif event.step_finish.HasField("tool_call"):
                self._finish(event.step_finish)

    def _finish(self, finish: StepFinish) -> None:
        call = self._calls.pop(finish.step_key, finish.tool_call)
        result = ToolResult(tool_call=call, step_key=finish.step_key)
        if finish.HasField("failure"):
            result.failure.CopyFrom(finish.failure)
        else:
            result.result_json = finish.result_json
        self._size += result.ByteSize()
        if self._size > RESULTS_LIMIT:
            self.omitted += 1
        else:
            self.found.append(result)
