"""Ask a question and watch who finds what: `python -m examples.research.ask [QUESTION]`."""

from __future__ import annotations

import asyncio
import json
import sys

from examples.research.app import Findings, Question, research
from polos import Event, PolosClient, events

QUESTION = "How did lighthouses become better?"


def label(event: Event, said: dict[str, str]) -> str | None:
    """Return a line for an event, if it deserves one; `said` has the text of each run so far."""
    run = event.data["_metadata"]["execution_id"]
    if event.event_type == "text_delta":
        said[run] = said.get(run, "") + event.data["content"]
    elif event.event_type in ("step_start", "step_retry"):
        said.pop(run, None)  # a new call begins, or this one starts over
    elif event.event_type == "tool_call":
        call = event.data["tool_call"]["function"]
        return f"{call['name']} {json.dumps(json.loads(call['arguments']), ensure_ascii=False)}"
    elif event.event_type == "agent_finish":
        if event.data["result"].get("result_schema"):
            found = Findings.model_validate_json(said[run])
            return "found " + ", ".join(one.source for one in found.claims)
        return said.get(run, "")
    elif event.event_type == "error":
        return str(event.data["error"])
    return None


async def main() -> None:
    """Start the research, label what its agents do, and print the report."""
    client = PolosClient()
    question = Question(text=" ".join(sys.argv[1:]) or QUESTION)
    handle = await research.invoke(client, question)
    print(f"run {handle.id}", flush=True)
    said: dict[str, str] = {}
    async for event in events.stream_workflow(client, workflow_run_id=handle.id):
        if line := label(event, said):
            print(f"{event.data['_metadata']['workflow_id']:>8} | {line}", flush=True)
    ended = await handle.get(client)
    report = ended["result"]
    if report is None:
        raise SystemExit(f"The research is {ended['status']}: {ended['error']}")
    print(f"\n{report.text}")
    for number, source in enumerate(report.sources, 1):
        print(f"[{number}] {source}")
    if report.missing:
        print("Without", ", ".join(report.missing))


if __name__ == "__main__":
    asyncio.run(main())
