"""Runs a workflow's or an agent's code against a history."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from os import PathLike
from typing import Any, cast

from google.protobuf.message import Message

from polos_client.calls.client import PolosClient
from polos_client.define.agent import Agent
from polos_client.define.workflow import Workflow
from polos_client.errors import AgentNotFound, DefinitionError
from polos_service.agents.definition import Definition as AgentDefinition
from polos_service.agents.definition import PinnedOutput, PinnedTool
from polos_service.agents.loop import AgentLoop
from polos_service.agents.runnable import bare_request
from polos_service.errors import Finished, Unable
from polos_service.models import Model
from polos_service.replay.context import Stopped, context_of
from polos_service.replay.course import Course, ReplayDiffers, Replayed
from polos_service.replay.endings import words
from polos_service.replay.history import History, HistoryInvalid
from polos_service.runs.context import RunContext
from polos_service.runs.drive import outcome, stopped
from polos_service.runs.endings import ending_of
from polos_service.runs.journals import Journals
from polos_service.runs.runnable import Runnable
from polos_service.workflows.definition import Definition as WorkflowDefinition
from polos_service.workflows.independent import Others
from polos_service.workflows.means import Means
from polos_service.workflows.runnable import MAX_RETRIES, WorkflowRunnable

PATIENCE = 5.0
"""Seconds for which the code may do nothing that the replay can see."""


async def replay(
    code: Workflow | Agent,
    history: History | str | PathLike[str],
    *,
    client: PolosClient | None = None,
    patience: float = PATIENCE,
) -> Replayed:
    """Run code against the log of a run, without side effects, and compare.

    What the log has, the code gets: results of steps, answers to waits, answers of the model. No
    function of a step, no tool and no model is called, and nothing is written. Where the code asks
    for something that the log does not have, the replay is over: if the run goes on there, that is
    as it should be; if the log goes on in another way, they differ.

    The code between the steps does run, stop conditions of agents included.

    Args:
        code: the workflow or agent as it is now.
        history: a `History`; the path of a file that `polos runs export` wrote; with `client`, the
            id of a run.
        client: the service that has the run; None: `history` is not an id.
        patience: seconds, above 0, after which code counts as stopped that neither ends nor asks
            for anything. They pass only where the code differs, or takes as long between two steps.

    Returns:
        How far the code went the way of the log, and how it goes on.

    Raises:
        ReplayDiffers: the code does not go the way of the log.
        HistoryInvalid: the history cannot be used, or is of other code.
        CallError, ConnectionLost: the service refused, or could not be reached.
        DefinitionError: `code` is neither a workflow nor an agent.

    """
    if not isinstance(code, Workflow | Agent):
        raise DefinitionError(f"{code!r:.80} is neither a Workflow nor an Agent")
    if client is not None and isinstance(history, str):
        history = await History.fetch(client, history)
    elif not isinstance(history, History):
        history = History.read(history)
    kind = "workflow" if isinstance(code, Workflow) else "agent"
    if (history.kind, history.workflow_id) != (kind, code.id):
        raise HistoryInvalid(
            f"run {history.run_id} is of the {history.kind} {history.workflow_id!r}, "
            f"not of the {kind} {code.id!r}"
        )
    found = await _compared(code, history, patience)
    if isinstance(found, ReplayDiffers):
        raise found
    return found


async def _compared(
    code: Workflow | Agent, history: History, patience: float
) -> Replayed | ReplayDiffers:
    journals = Journals(history.run_id)
    for event in history.events:
        journals.add(event)
    journals.root.settle()
    clock = Stopped(history.events[-1])
    course = Course(history.events, journals.root, history.run_id)
    ctx = context_of(journals, course, clock)
    starts_over = course.end is None
    work = asyncio.create_task(outcome(_run(code, history, ctx, clock, starts_over=starts_over)))
    settled = asyncio.create_task(course.settled())
    try:
        while not course.found.done():
            course.moved.clear()
            moved = asyncio.create_task(course.moved.wait())
            ends: set[asyncio.Future[Any]] = {work, settled, moved, course.found}
            done, _ = await asyncio.wait(
                ends, timeout=patience, return_when=asyncio.FIRST_COMPLETED
            )
            moved.cancel()
            if work in done:
                _end(ctx, course, work.result())
            elif not done:
                course.stop(f" within {patience:g} s")
        return course.found.result()
    finally:
        await stopped(work, settled)


def _end(ctx: RunContext, course: Course, result: Message | BaseException) -> None:
    """Note how the code has ended."""
    if isinstance(result, Finished):
        course.stop("")  # what it was about to do is noted
    elif isinstance(result, Unable):
        course.differ(str(result), 1)
    elif isinstance(result, Message):
        course.ends(result, words(result))
    else:
        ending = ending_of(ctx, result)
        told = (
            f"raises {type(result).__name__}: {result}" if ending.defect else words(ending.payload)
        )
        course.ends(ending.payload, told)


async def _run(
    code: Workflow | Agent,
    history: History,
    ctx: RunContext,
    clock: Stopped,
    *,
    starts_over: bool,
) -> Message:
    means = Means(clock, answers_nothing, finds_nothing, NO_OTHERS)
    if isinstance(code, Workflow):
        start = history.events[0].workflow_start
        definition = WorkflowDefinition(
            workflow_id=code.id,
            code_version=start.code_version,
            payload_json=start.payload_json if start.HasField("payload_json") else None,
            initial_state=dict(history.initial_state),
            session_id=history.session_id,
            user_id=history.user_id,
        )
        retries = MAX_RETRIES if starts_over else 0
        runnable = WorkflowRunnable(code, means, retries)
        return await runnable.run(ctx, definition.model_dump_json().encode())
    pinned = _definition(code, history)
    return await AgentLoop(code, cast("Model", None), ctx, pinned, means).run()


NO_OTHERS = cast("Others", None)
"""Never asked: to start a run is a step, and how one has ended is told by the log."""


async def answers_nothing(*_: object, **__: object) -> None:
    """Never called: to answer a wait of another run is a step."""


def finds_nothing(runnable_id: str, project: str) -> Runnable:
    """Refuse: a child that the log has is not run, and one that it does not have never is."""
    del project
    raise AgentNotFound(f"A replay runs no {runnable_id!r}.", agent_id=runnable_id, known="")


def _definition(agent: Agent, history: History) -> AgentDefinition:
    """Return what the run was started with, as far as its log tells; the rest is the agent's."""
    request = replace(
        bare_request(agent),
        initial_state=history.initial_state,
        session_id=history.session_id,
        user_id=history.user_id,
        streaming=history.events[0].agent_start.streaming,
    )
    pinned = AgentDefinition.pin(agent, request, [])
    known = {tool.name: tool for tool in pinned.tools}
    tools = [
        known.get(name) or PinnedTool(name=name, description="", parameters={})
        for name in history.events[0].agent_start.tools
    ]
    name = history.events[0].agent_start.output_schema_name
    output = (pinned.output or PinnedOutput(name=name, schema={})) if name else None
    return pinned.model_copy(update={"tools": tools, "output": output})
