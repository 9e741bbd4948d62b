"""What the page is sent: events of a run, as the two kinds of view need them."""

from __future__ import annotations

from typing import Any

from polos import Event

Message = dict[str, Any]


def text(event: Event) -> Message | None:
    """Return a message of the view that shows text alone; None if the event adds nothing."""
    data = event.data
    match event.event_type:
        case "text_delta":
            return {"type": "text_chunk", "content": data["content"], "step": data["step_key"]}
        case "step_retry":
            return {"type": "reset", "step": data["step_key"]}
        case "agent_finish":
            return {"type": "done"}
        case "error":
            return {"type": "error", "message": data["error"]}
        case "run_cancelled":
            return {"type": "error", "message": "The run was cancelled."}
    return None


def progress(event: Event) -> Message | None:
    """Return a message of the view that shows tools, too; None if the event adds nothing."""
    data = event.data
    match event.event_type:
        case "text_delta":
            return {"type": "text", "content": data["content"], "step": data["step_key"]}
        case "tool_call":
            call = data["tool_call"]
            return {
                "type": "tool_call",
                "id": call["id"],
                "tool": call["function"]["tool_name"],
                "arguments": call["function"].get("arguments", "…"),
                "step": data["step_key"],
                "status": "executing",
            }
        case "step_finish" if data["step_type"] == "tool":
            return {
                "type": "tool_call",
                "id": data["tool_call"]["id"],
                "status": "failed" if "error" in data else "done",
                "seconds": data["duration"],
                "error": data.get("error"),
            }
        case "agent_finish":
            return {"type": "complete", "usage": data.get("usage")}
    return text(event)
