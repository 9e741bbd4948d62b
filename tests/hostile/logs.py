"""Logs as long as a test wants them, written without running anything."""

from __future__ import annotations

from pathlib import Path

from google.protobuf.message import Message

from polos.v1.event_pb2 import AgentFinish, StepFinish, StepStart, TextDelta, ToolCall
from polos.v1.run_pb2 import RunState
from polos_service.runs.frame import Encoder
from polos_service.runs.lineage import Lineage
from polos_service.store import Frame, RunStore
from polos_service.store.sqlite import SqliteStore
from tests.support.stores import first_claim, new_run

RUN = "run"
"""The id of the run."""

FRAME = 250
"""Events of a frame."""


async def write_log(folder: Path, deltas: int, tools: int = 0) -> None:
    """Put a run that ended into `folder`/runs.db, with so many deltas and calls of a tool."""
    store = await SqliteStore.open(folder / "runs.db")
    try:
        await append_log(store, deltas, tools)
    finally:
        await store.close()


async def append_log(store: RunStore, deltas: int, tools: int = 0) -> None:
    """Create the run and write its whole log."""
    await store.create(new_run(run_id=RUN, workflow_id="demo"))
    claim = await first_claim(store, ["demo"])
    encoder = Encoder(Lineage(RUN, "demo"))
    payloads: list[Message] = [
        TextDelta(content=f"word{index} ", step_key="llm:1", step=1, attempt=1)
        for index in range(deltas)
    ]
    for index in range(tools):
        payloads[deltas // 2 : deltas // 2] = call_of_a_tool(index)
    last = len(payloads) + 1
    for start in range(0, len(payloads), FRAME):
        piece = payloads[start : start + FRAME]
        data = b"".join(
            encoder.encode(payload, sequence=start + number, time=start + number)
            for number, payload in enumerate(piece, 1)
        )
        await store.append(claim, Frame(first=start + 1, last=start + len(piece), data=data))
    end = encoder.encode(AgentFinish(result="done"), sequence=last, time=last, terminal=True)
    outcome = RunState.RUN_STATE_COMPLETED
    await store.append(claim, Frame(first=last, last=last, data=end, outcome=outcome))


def call_of_a_tool(index: int) -> list[Message]:
    """Return the events of a call."""
    key, call = f"add:{index}", ToolCall(id=f"call-{index}", name="add", arguments_json="[1]")
    return [
        StepStart(step_key=key, step_type="tool", attempt=1, tool_call=call),
        StepFinish(
            step_key=key,
            step_type="tool",
            attempt=1,
            result_json=str(index),
            tool_call=ToolCall(id=call.id, name=call.name),
        ),
    ]
