"""What a run's log says of its outcome and its tools, for a run that may have a long log.

Hardly any event is needed: the terminal one is the last, and events of tools say so in
their bytes. All others are passed over without being decoded.
"""

from __future__ import annotations

from polos.v1.event_pb2 import Event, StepFinish, ToolCall
from polos.v1.run_pb2 import Run, ToolResult
from polos_service.api.grpc.messages import run_of
from polos_service.api.grpc.tail import READ_LIMIT, response_of
from polos_service.api.grpc.turns import Turns
from polos_service.runs.frame import cut, decode
from polos_service.store import ENDED, RunStore

TOOL = b"\x12\x04tool"
"""What the bytes of every event of a tool's step hold: its `step_type`, which is field 2."""

RESULTS_LIMIT = 1024 * 1024
"""Bytes of tool results in an answer of `GetRun` at most."""


class Details:
    """Reads logs for answers, a piece at a time, fairly between all that are asked for."""

    def __init__(self, store: RunStore, turns: Turns) -> None:
        self._store = store
        self._turns = turns

    async def ended(self, project: str, run_id: str) -> Run:
        """Return the run with its outcome, if it has ended.

        Raises:
            RunNotFound: there is no such run.

        """
        run = run_of(await self._store.get(project, run_id))
        if run.state in ENDED:
            part = await self._store.read(project, run_id, run.latest_sequence - 1, 1)
            frame = part.frames[0]
            data, _ = cut(frame.data, run.latest_sequence - frame.first, 1)
            run.outcome.CopyFrom(decode(data)[0])
        return run

    async def whole(self, project: str, run_id: str) -> Run:
        """Return the run with its outcome and the results of its tools.

        Raises:
            RunNotFound: there is no such run.

        """
        run = await self.ended(project, run_id)
        results = Results(run)
        after = 0
        while after < run.latest_sequence:
            await self._turns.next()
            part = await self._store.read(project, run_id, after, READ_LIMIT)
            data, after = response_of(part, after)
            if TOOL in data:
                results.add(decode(data))
        return run


class Results:
    """Puts the results of tools into a run."""

    def __init__(self, run: Run) -> None:
        self._run = run
        self._calls: dict[str, ToolCall] = {}
        self._size = 0

    def add(self, events: list[Event]) -> None:
        """Take the next events; what came after the run's record is passed over."""
        for event in events:
            if event.sequence > self._run.latest_sequence:
                break
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
            self._run.tool_results_omitted += 1
        else:
            self._run.tool_results.append(result)
