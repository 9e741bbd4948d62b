"""How the code of a run ends it: compared, and in words."""

from __future__ import annotations

import json
from typing import Any

from google.protobuf.message import Message

from polos.v1.event_pb2 import AgentFinish, Error, Event, WorkflowFinish

SHOWN = 200
"""Characters of a result that a message shows at most."""


def same_end(recorded: Event, payload: Message) -> bool:
    """Return whether an ending is the recorded one, apart from the time that it took."""
    before = getattr(recorded, recorded.WhichOneof("payload") or "")
    if type(before) is not type(payload):
        return False
    if isinstance(payload, WorkflowFinish) and isinstance(before, WorkflowFinish):
        return bool(_parsed(before.result_json) == _parsed(payload.result_json))
    if isinstance(payload, Error) and isinstance(before, Error):
        return (before.reason, before.message) == (payload.reason, payload.message)
    without = [type(payload).FromString(one.SerializeToString()) for one in (before, payload)]
    for one in without:
        one.ClearField("duration")
    return without[0] == without[1]


def words(payload: Message) -> str:
    """Return how a run ends, in words."""
    match payload:
        case WorkflowFinish():
            return f"ends with the result {_short(payload.result_json)}"
        case AgentFinish():
            reason = payload.stop_condition or f"finish reason {payload.finish_reason}"
            return (
                f"ends after {payload.total_steps} model calls ({reason}) with the text "
                + _short(json.dumps(payload.result, ensure_ascii=False))
            )
        case Error():
            return f"fails: {_short(payload.message)}"
    return f"ends with {type(payload).__name__}"


def _short(text: str) -> str:
    return text if len(text) <= SHOWN else f"{text[:SHOWN]}..."


def _parsed(text: str) -> Any:
    return json.loads(text) if text else None
