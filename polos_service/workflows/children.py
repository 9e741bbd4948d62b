"""What a workflow's code starts inside its run: other workflows, and agents."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable, Iterable, Mapping
from dataclasses import replace
from functools import partial
from json import JSONDecoder
from typing import Any

from pydantic import BaseModel

from polos.v1.error_pb2 import FailureReason
from polos.v1.event_pb2 import AgentFinish, Event, StepFinish, ToolCall, WorkflowFinish
from polos.v1.run_pb2 import ToolResult as ToolResultMessage
from polos_client.calls.start import checked_payload
from polos_client.deadlines import MAX_RUN_SECONDS, Deadlines, is_duration
from polos_client.errors import (
    AgentNotFound,
    InvalidRequest,
    ResultMismatch,
    StepExecutionError,
)
from polos_client.event import parsed
from polos_client.fold import conclude, tool_result
from polos_client.result import AgentResult
from polos_client.typed import answered
from polos_service.caller import Caller
from polos_service.errors import StepError, Unable
from polos_service.limits import OUTPUT_LIMIT
from polos_service.runs.attempt import Attempt, StepOutput
from polos_service.runs.children import ChildStart, run_child
from polos_service.runs.context import RunContext
from polos_service.runs.runnable import AGENT, Runnable, RunRequest
from polos_service.runs.said import size_of
from polos_service.sidethread import SMALL
from polos_service.tools.values import decode, encode
from polos_service.workflows.definition import KIND as WORKFLOW
from polos_service.workflows.functions import FAILED, MODELS, apart

Find = Callable[[str, str], Runnable]
"""Returns what a project knows by an id; raises AgentNotFound."""

TYPED = '{"result":'
"""How the output of a step begins whose child has answered with JSON text."""

KINDS = frozenset({AGENT, WORKFLOW})
"""The kinds of steps that begin a child."""

FOUND = "found"
"""The member of a step's private part that names the kind of what ran, if the step's is another."""

TOOLS_LIMIT = OUTPUT_LIMIT // 2
"""Bytes of tool results at most that stand in the result of an agent; the rest is left out."""


class Children:
    """The children of one run of a workflow."""

    def __init__(
        self, ctx: RunContext, find: Find, session_id: str | None, user_id: str | None
    ) -> None:
        self._ctx = ctx
        self._find = find
        self._session_id = session_id
        self._user_id = user_id

    async def call(
        self, key: str, target: Any, payload: Any, state: Any, timeout: float | None
    ) -> Any:
        """Run an agent or a workflow as a child, and return its result.

        Args:
            key: the step's key.
            target: an Agent, a Workflow, or the id of one.
            payload: what it is given.
            state: its initial state.
            timeout: seconds that it may take; None: its own deadline.

        Raises:
            StepError: it failed, is not known, or cannot be started with this.
            StepExecutionError: an argument is of a wrong type.

        """
        target_id = checked_target(key, target, timeout)
        # What was not loaded when the step began may be of another kind than it was taken for.
        recorded = self._ctx.kind(key)
        kind = recorded if recorded in KINDS else self._kind(target_id)

        values: list[Any] = []

        async def body(attempt: Attempt) -> StepOutput:
            output, found = await self.run(attempt, target_id, payload, state, timeout)
            with self._ctx.working():
                values.append(await self._value(found, output, target_id))
            if found == kind:
                return output
            return replace(output, private={**output.private, FOUND: found})

        output = await self._ctx.step(key, kind, body, resumes=True, abandons=True)
        if values:
            return values[0]
        with self._ctx.handing_over():
            try:
                return await self._value(output.private.get(FOUND, kind), output, target_id)
            except StepError as error:  # it could be read when the step ended
                await self._ctx.leave_unread(key, error)

    async def run(
        self,
        attempt: Attempt,
        target_id: str,
        payload: Any,
        state: Any = None,
        timeout: float | None = None,
    ) -> tuple[StepOutput, str]:
        """Run an agent or a workflow as the child of an attempt of a step.

        Args:
            attempt: the attempt.
            target_id: the id of the agent or workflow.
            payload: as in `call`.
            state: as in `call`.
            timeout: as in `call`.

        Returns:
            The step's output, and the kind of what ran.

        Raises:
            StepError: it failed, is not known, or cannot be started with this.
            Unable: it is not known here, and has begun.

        """
        runnable = self.known(target_id)
        if isinstance(runnable, StepError):
            if self._ctx.child(attempt) is not None:
                raise Unable(f"{runnable.message} A child of this run executes it.")
            raise runnable
        own = runnable.timeout if timeout is None else timeout

        async def pin() -> bytes:
            return (await self.pinned(runnable, payload, state, own))[1]

        child, end = await run_child(self._ctx, attempt, ChildStart(runnable, pin, own))
        return output_of(child, end), runnable.kind

    async def _value(self, kind: str, output: StepOutput, target_id: str) -> Any:
        """Return what a child's step gives to the code: see `value_of`."""
        value = partial(value_of, kind, output, self._returned(target_id))
        if not (output.result_json.startswith(TYPED) or output.private.get(MODELS)):
            return value()
        try:
            return await apart(value)
        except RuntimeError as error:  # a validator has raised what no exception handler takes
            raise StepError(FAILED, f"What the child returned cannot be read: {error}") from None

    def _returned(self, target_id: str) -> Any:
        """Return the type of an agent's answers, if it is known."""
        return getattr(self.known(target_id), "output_schema", None)

    def _kind(self, target_id: str) -> str:
        known = self.known(target_id)
        return WORKFLOW if isinstance(known, StepError) else known.kind

    def known(self, target_id: str) -> Runnable | StepError:
        """Return what the project knows by an id, or why it cannot be started."""
        try:
            return self._find(target_id, self._ctx.project)
        except AgentNotFound as error:
            return StepError(FailureReason.FAILURE_REASON_CODE_MISSING, str(error))

    async def pinned(
        self, runnable: Runnable, payload: Any, state: Any, timeout: float | None
    ) -> tuple[RunRequest, bytes]:
        """Return the start of a run, and its definition.

        Raises:
            StepError: it cannot be started with this.

        """
        text, _ = encode(payload)
        try:
            request = self._request(runnable, text, _object(state), timeout)
            if len(text) <= SMALL:
                return request, runnable.pin(request)
            return request, await asyncio.to_thread(runnable.pin, request)
        except InvalidRequest as error:
            raise StepError(FAILED, str(error)) from None

    def _request(
        self, runnable: Runnable, text: str, state: Mapping[str, Any], timeout: float | None
    ) -> RunRequest:
        """Return the start of a run.

        Raises:
            InvalidRequest: an agent cannot be given this payload.

        """
        is_agent = runnable.kind == AGENT
        given = json.loads(text)
        streaming = checked_payload(given) if is_agent else False
        return RunRequest(
            caller=Caller(project=self._ctx.project, principal="", scopes=frozenset()),
            runnable_id=runnable.id,
            payload=_messages(given["input"]) if is_agent else None,
            payload_json=None if is_agent or given is None else text,
            digest=b"",
            size=len(text),
            model_options=(given.get("provider_kwargs") or {}) if is_agent else {},
            initial_state=state,
            deadlines=Deadlines(run=timeout),
            session_id=self._session_id,
            user_id=self._user_id,
            streaming=streaming,
        )


def checked_target(key: str, target: Any, timeout: Any) -> str:
    """Return the id of what a step starts.

    Raises:
        StepExecutionError: it is neither a workflow nor an agent nor an id, or the timeout is not
            one.

    """
    target_id = target if isinstance(target, str) else getattr(target, "id", None)
    if not isinstance(target_id, str) or not target_id:
        raise StepExecutionError(
            f"{target!r:.80} of {key!r} must be a workflow, an agent, or the id of one."
        )
    if timeout is not None and not is_duration(timeout, MAX_RUN_SECONDS):
        raise StepExecutionError(
            f"run_timeout_seconds={timeout!r:.80} of {key!r} must be from 0.001 s to "
            f"{MAX_RUN_SECONDS:.0f} s."
        )
    return target_id


def _messages(given: Any) -> list[Any]:
    """Return the conversation that an agent is given."""
    if isinstance(given, str) and given.strip():
        return [{"role": "user", "content": given}]
    if isinstance(given, list) and given:
        return given
    raise InvalidRequest({"payload.input": "must be a text or a list of messages, not empty"})


def _object(state: Any) -> dict[str, Any]:
    if state is None:
        return {}
    if not isinstance(state, Mapping | BaseModel):
        told = type(state).__name__
        raise InvalidRequest({"initial_state": f"must be a dict or a pydantic model, not {told}"})
    found: dict[str, Any] = json.loads(encode(state)[0])
    return found


def output_of(child: RunContext, end: Any) -> StepOutput:
    """Return the output of the step whose child ended well.

    Raises:
        StepError: an agent's answer is larger than the output of a step.

    """
    if isinstance(end, WorkflowFinish):
        models = {"": end.result_schema} if end.result_schema else {}
        return StepOutput(result_json=end.result_json, private={MODELS: models} if models else {})
    if end.result_step_key:
        raise StepError(
            FailureReason.FAILURE_REASON_OUTPUT_TOO_LARGE,
            f"The answer of the agent exceeds {OUTPUT_LIMIT} bytes. It stands in the events of "
            f"the child run {child.run_id}.",
        )
    return StepOutput(result_json=agent_json(child.run_id, end, child.tools))


def agent_json(
    run_id: str, end: AgentFinish, ended: Iterable[tuple[ToolCall, StepFinish | ToolResultMessage]]
) -> str:
    """Return the `AgentResult` of an agent whose run ended so as JSON text.

    `ended` are its calls of tools with what they returned: as many as there is room for.
    """
    outcome = Event(run_id=run_id, agent_finish=end)
    result = conclude(outcome, [], read=lambda text, _: text)
    room = min(TOOLS_LIMIT, OUTPUT_LIMIT - size_of(_written(result, end)))
    for call, finish in ended:
        tool = tool_result(call, finish, read=lambda text, _: parsed(text))
        room -= size_of(tool.model_dump_json()) + 1
        if room < 0:
            break
        result.tool_results.append(tool)
    return _written(result, end)


def _written(result: AgentResult, end: AgentFinish) -> str:
    if not end.result_is_json:
        return result.model_dump_json()
    # The JSON text as it is, so that its numbers stay exact; first, so that it is found again.
    rest = result.model_dump_json(exclude={"result"})
    return f"{TYPED}{end.result},{rest[1:]}"


def value_of(kind: str, output: StepOutput, returned: Any = None) -> Any:
    """Return what a child's step gives to the code.

    `returned` is the type of an agent's answers, if it is known.

    Raises:
        StepError: the class of a model in it is not loaded.

    """
    text = output.result_json
    if kind == AGENT:
        result = AgentResult.model_validate_json(text)
        if (answer := json_answer(output)) is not None:
            result.result = _answered(answer, result.result_schema, returned)
        return result
    return decode(output.result_json, output.private.get(MODELS, {}))


def json_answer(output: StepOutput) -> str | None:
    """Return the JSON text that an agent has answered with, as it is; None if it was text."""
    text = output.result_json
    if not text.startswith(TYPED):
        return None
    start = len(text) - len(text[len(TYPED) :].lstrip())  # models write line ends before JSON
    _, end = JSONDecoder().raw_decode(text, start)
    return text[start:end]


def _answered(text: str, schema: str | None, returned: Any) -> Any:
    try:
        return answered(text, schema or "", returned)
    except ResultMismatch as error:
        raise StepError(FailureReason.FAILURE_REASON_CODE_MISSING, str(error)) from error
