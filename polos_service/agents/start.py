"""Accepts starts: checks a request, pins its definition, and puts the run on disk."""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import uuid_utils
from google.protobuf.duration_pb2 import Duration

from polos.v1.run_pb2 import Deadlines as DeadlinesMessage
from polos.v1.run_pb2 import RunOptions
from polos.v1.run_service_pb2 import CreateRunRequest
from polos_client.deadlines import MAX_SECONDS, MIN_SECONDS, Deadlines
from polos_client.define.agent import Agent
from polos_client.errors import Draining, InvalidRequest
from polos_service.agents.definition import Definition
from polos_service.agents.parsing import ParseError, parse
from polos_service.agents.registry import Registry
from polos_service.models import Model
from polos_service.runs.clock import Clock
from polos_service.runs.frame import SECOND
from polos_service.store import NewRun, RunStore

INPUT_LIMIT = 1024 * 1024
STATE_LIMIT = 256 * 1024
"""Bytes of an input, and of an initial state or the model options, at most."""

OPTIONS_LIMIT = 100
"""Model options of a run; no provider has as many."""

CHECKED_AT_ONCE = 32 * 1024
"""Bytes of a start that is checked in the loop, in a few milliseconds; larger ones are
checked in a thread, one after the other."""

NAME_LIMIT = 256
REQUEST_ID_LIMIT = 128
"""Characters of a session's or user's id, and of a request id, at most."""

DRAIN_RETRY = 1.0
"""Seconds after which a start that was refused at the end may find the next process."""


class Starts:
    """Turns requests into runs."""

    def __init__(self, registry: Registry, store: RunStore, clock: Clock) -> None:
        self._registry = registry
        self._store = store
        self._clock = clock
        self._draining = False
        self._checking = ThreadPoolExecutor(1, "polos-check")

    def drain(self) -> None:
        """Refuse every start from now on."""
        self._draining = True
        self._checking.shutdown(wait=False)

    async def start(self, project: str, request: CreateRunRequest) -> str:
        """Put the run on disk and return its id; a repeated request id returns its run's.

        Raises:
            AgentNotFound: the agent is not loaded.
            Draining: the service is about to stop.
            InvalidRequest: a field is wrong.
            RequestIdReused: the request id started a run with another payload.

        """
        if self._draining:
            raise Draining("The service is about to stop. Try again.", retry_after=DRAIN_RETRY)
        if not request.agent_id:
            raise InvalidRequest({"agent_id": "is empty"})
        agent = self._registry.agent(request.agent_id)
        model = self._registry.model(agent)
        if request.ByteSize() <= CHECKED_AT_ONCE:
            run = self._new_run(project, agent, model, request)
        else:
            loop = asyncio.get_running_loop()
            run = await loop.run_in_executor(
                self._checking, self._new_run, project, agent, model, request
            )
        return await self._store.create(run)

    def _new_run(
        self, project: str, agent: Agent, model: Model, request: CreateRunRequest
    ) -> NewRun:
        checked = Checked(request)
        checked.take_options(model.check(checked.model_options))
        if checked.violations:
            raise InvalidRequest(checked.violations)
        options = request.options
        now = self._clock.now()
        deadlines = checked.deadlines.over(agent.deadlines)
        definition = Definition.pin(
            agent,
            messages=checked.messages,
            options=checked.model_options,
            initial_state=checked.initial_state,
            deadlines=deadlines,
            session_id=optional(options, "session_id"),
            user_id=optional(options, "user_id"),
            streaming=request.streaming,
        )
        return NewRun(
            project=project,
            run_id=str(uuid_utils.uuid7()),
            workflow_id=agent.id,
            request_id=request.request_id or None,
            digest=digest(request),
            definition=definition.model_dump_json().encode(),
            session_id=definition.session_id,
            user_id=definition.user_id,
            streaming=request.streaming,
            create_time=now,
            deadline=now + round(deadlines.run * SECOND) if deadlines.run else None,
        )


class Checked:
    """A request's values, and what is wrong with them, by field."""

    def __init__(self, request: CreateRunRequest) -> None:
        self.violations: dict[str, str] = {}
        self.messages = self._messages(request)
        self.initial_state = self._object(request.options, "initial_state_json")
        self.model_options = self._options(request.options)
        self.deadlines = Deadlines(
            run=self._seconds(request.options, "timeout"),
            first_token=self._seconds(request.options.deadlines, "first_token"),
            token_gap=self._seconds(request.options.deadlines, "token_gap"),
            tool_call=self._seconds(request.options.deadlines, "tool_call"),
        )
        self._bound("request_id", request.request_id, REQUEST_ID_LIMIT)
        self._bound("options.session_id", request.options.session_id, NAME_LIMIT)
        self._bound("options.user_id", request.options.user_id, NAME_LIMIT)

    def take_options(self, wrong: Mapping[str, str]) -> None:
        """Add what the provider finds wrong with the model options."""
        for name, what in wrong.items():
            self.violations[f"options.provider_options_json.{name}"] = what

    def _messages(self, request: CreateRunRequest) -> list[dict[str, Any]]:
        if request.input and request.input_messages_json:
            self.violations["input_messages_json"] = "cannot be given together with input"
        elif request.input_messages_json:
            return self._conversation(request.input_messages_json)
        elif not request.input.strip():
            self.violations["input"] = "is empty"
        else:
            self._size("input", request.input, INPUT_LIMIT)
        return [{"role": "user", "content": request.input}]

    def _conversation(self, text: str) -> list[dict[str, Any]]:
        field = "input_messages_json"
        messages = self._parse(field, text, INPUT_LIMIT)
        if self.violations:
            return []
        if not isinstance(messages, list) or not messages:
            self.violations[field] = "is not a JSON array with at least one message"
            return []
        for index, message in enumerate(messages):
            if not isinstance(message, dict) or not isinstance(message.get("role"), str):
                self.violations[f"{field}[{index}]"] = "is not an object with a role"
                return []
        return messages

    def _object(self, options: RunOptions, name: str) -> dict[str, Any]:
        field = f"options.{name}"
        if not options.HasField(name):  # type: ignore[arg-type]  # both fields are optional ones
            return {}
        found = len(self.violations)
        value = self._parse(field, getattr(options, name), STATE_LIMIT)
        if isinstance(value, dict):
            return value
        if len(self.violations) == found:
            self.violations[field] = "is not a JSON object"
        return {}

    def _options(self, options: RunOptions) -> dict[str, Any]:
        name = "provider_options_json"
        value = self._object(options, name)
        if len(value) > OPTIONS_LIMIT:
            what = f"has {len(value)} members, the limit is {OPTIONS_LIMIT}"
            self.violations[f"options.{name}"] = what
            return {}
        return value

    def _parse(self, field: str, text: str, limit: int) -> Any:
        if not self._size(field, text, limit):
            return None
        try:
            return parse(text)
        except ParseError as error:
            self.violations[f"{field}{error.path}"] = str(error)
            return None

    def _seconds(self, options: RunOptions | DeadlinesMessage, name: str) -> float | None:
        if not options.HasField(name):  # type: ignore[arg-type]  # each name is a field of it
            return None
        duration: Duration = getattr(options, name)
        seconds = duration.seconds + duration.nanos / SECOND
        if not MIN_SECONDS <= seconds <= MAX_SECONDS:
            prefix = "options.deadlines" if isinstance(options, DeadlinesMessage) else "options"
            self.violations[f"{prefix}.{name}"] = (
                f"is {seconds} s, not from {MIN_SECONDS:g} s to {MAX_SECONDS:.0f} s"
            )
            return None
        return seconds

    def _bound(self, field: str, text: str, limit: int) -> None:
        if len(text) > limit:
            self.violations[field] = f"has {len(text)} characters, the limit is {limit}"

    def _size(self, field: str, text: str, limit: int) -> bool:
        size = len(text.encode())
        if size > limit:
            self.violations[field] = f"has {size} bytes, the limit is {limit}"
        return size <= limit


def optional(options: RunOptions, name: str) -> str | None:
    """Return a string field's value, None where it is absent."""
    return getattr(options, name) if options.HasField(name) else None  # type: ignore[arg-type]


def digest(request: CreateRunRequest) -> bytes:
    """Return what is the same for two requests that ask for the same run."""
    payload = CreateRunRequest()
    payload.CopyFrom(request)
    payload.ClearField("request_id")
    return hashlib.sha256(payload.SerializeToString(deterministic=True)).digest()
