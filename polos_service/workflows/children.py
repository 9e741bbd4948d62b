"""What a workflow's code starts inside its run: other workflows, and agents."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable, Mapping
from dataclasses import replace
from functools import partial
from typing import Any

from pydantic import BaseModel

from polos.v1.error_pb2 import FailureReason
from polos_client.calls.start import checked_payload
from polos_client.deadlines import Deadlines
from polos_client.errors import AgentNotFound, InvalidRequest
from polos_client.names import in_python
from polos_service.caller import Caller
from polos_service.errors import StepError, Unable
from polos_service.runs.attempt import Attempt, StepOutput
from polos_service.runs.children import ChildStart, run_child
from polos_service.runs.context import RunContext
from polos_service.runs.runnable import AGENT, Runnable, RunRequest
from polos_service.sidethread import SMALL
from polos_service.tools.local import apart
from polos_service.tools.values import encode
from polos_service.workflows.definition import KIND as WORKFLOW
from polos_service.workflows.functions import FAILED, MODELS
from polos_service.workflows.invocation import Invocation
from polos_service.workflows.results import LEADING, output_of, value_of

Find = Callable[[str, str], Runnable]
"""Returns what a project knows by an id; raises AgentNotFound."""

KINDS = frozenset({AGENT, WORKFLOW})
"""The kinds of steps that begin a child."""

FOUND = "found"
"""The member of a step's private part that names the kind of what ran, if the step's is another."""


class Children:
    """The children of one run of a workflow."""

    def __init__(
        self, ctx: RunContext, find: Find, session_id: str | None, user_id: str | None
    ) -> None:
        self._ctx = ctx
        self._find = find
        self._session_id = session_id
        self._user_id = user_id

    async def call(self, key: str, invocation: Invocation) -> Any:
        """Run an agent or a workflow as a child, in the step `key`, and return its result.

        Raises:
            StepError: it failed, is not known, or cannot be started with this.

        """
        # What was not loaded when the step began may be of another kind than it was taken for.
        recorded = self._ctx.kind(key)
        kind = recorded if recorded in KINDS else self._kind(invocation.target_id)

        values: list[Any] = []

        async def body(attempt: Attempt) -> StepOutput:
            output, found = await self.run(attempt, invocation)
            with self._ctx.working():
                values.append(await self._value(found, output, invocation.target_id))
            if found == kind:
                return output
            return replace(output, private={**output.private, FOUND: found})

        output = await self._ctx.step(key, kind, body, resumes=True, abandons=True)
        if values:
            return values[0]
        with self._ctx.handing_over():
            found = output.private.get(FOUND, kind)
            try:
                return await self._value(found, output, invocation.target_id)
            except StepError as error:  # it could be read when the step ended
                await self._ctx.leave_unread(key, error)

    async def run(self, attempt: Attempt, invocation: Invocation) -> tuple[StepOutput, str]:
        """Run an agent or a workflow as the child of an attempt of a step.

        Returns:
            The step's output, and the kind of what ran.

        Raises:
            StepError: it failed, is not known, or cannot be started with this.
            Unable: it is not known here, and has begun.

        """
        runnable = self.known(invocation.target_id)
        if isinstance(runnable, StepError):
            if self._ctx.children.recorded(attempt) is not None:
                raise Unable(f"{runnable.message} A child of this run executes it.")
            raise runnable
        timeout = runnable.timeout if invocation.timeout is None else invocation.timeout

        async def pin() -> bytes:
            return (await self.pinned(runnable, replace(invocation, timeout=timeout)))[1]

        child, end = await run_child(self._ctx, attempt, ChildStart(runnable, pin, timeout))
        return output_of(child.run_id, end, child.tools), runnable.kind

    async def _value(self, kind: str, output: StepOutput, target_id: str) -> Any:
        """Return what a child's step gives to the code: see `value_of`."""
        value = partial(value_of, kind, output, self.answers_of(target_id))
        if not (output.result_json.startswith(LEADING) or output.private.get(MODELS)):
            return value()
        try:
            return await apart(value)
        except RuntimeError as error:  # a validator has raised what no exception handler takes
            raise StepError(FAILED, f"What the child returned cannot be read: {error}") from None

    def answers_of(self, target_id: str) -> Any:
        """Return the type of an agent's answers, if it is known here."""
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

    async def pinned(self, runnable: Runnable, invocation: Invocation) -> tuple[RunRequest, bytes]:
        """Return the start of a run, and its definition.

        Raises:
            StepError: it cannot be started with this.

        """
        text, _ = encode(invocation.payload)
        try:
            request = self._request(runnable, text, invocation)
            if len(text) <= SMALL:
                return request, runnable.pin(request)
            return request, await asyncio.to_thread(runnable.pin, request)
        except InvalidRequest as error:
            raise StepError(FAILED, str(in_python(error))) from None

    def _request(self, runnable: Runnable, text: str, invocation: Invocation) -> RunRequest:
        """Return the start of a run; `text` is its payload in JSON.

        Raises:
            InvalidRequest: an agent cannot be given this payload, or the state is of a wrong type.

        """
        state = _object(invocation.initial_state)
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
            deadlines=Deadlines(run=invocation.timeout),
            session_id=self._session_id,
            user_id=self._user_id,
            streaming=streaming,
        )


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
