"""From requests that start a run to values. Every wrong field is named, with what is wrong."""

from __future__ import annotations

import hashlib
from typing import Any

from google.protobuf.duration_pb2 import Duration

from polos.v1.run_pb2 import Deadlines as DeadlinesMessage
from polos.v1.run_pb2 import RunOptions
from polos.v1.run_service_pb2 import CreateRunRequest, StreamRunRequest
from polos_client.budget import MAX_MICROS, MAX_TOKENS
from polos_client.deadlines import MAX_RUN_SECONDS, MAX_SECONDS, MIN_SECONDS, Deadlines
from polos_client.errors import InvalidRequest
from polos_client.wire import INPUT_LIMIT, MEDIA_COUNT, NAME_LIMIT, REQUEST_ID_LIMIT, STATE_LIMIT
from polos_service.api.parsing import ParseError, parse
from polos_service.caller import Caller
from polos_service.runs.frame import SECOND
from polos_service.runs.runnable import AGENT, RunRequest
from polos_service.runs.spending import TreeBudget
from polos_service.workflows.definition import KIND as WORKFLOW

NO_INPUT = (
    "cannot be given to a workflow: give it a payload (payload_json; in Python payload, on the "
    "command line --payload)"
)
"""Why an input is refused."""

OPTIONS_LIMIT = 100
"""Model options of a run at most; no provider has as many."""


def as_create(request: StreamRunRequest) -> CreateRunRequest:
    """Return the request that starts the same run without reading it."""
    return CreateRunRequest(
        agent_id=request.agent_id,
        input=request.input,
        input_messages_json=request.input_messages_json,
        options=request.options if request.HasField("options") else None,
        request_id=request.request_id,
        streaming=True,
        payload_json=request.payload_json if request.HasField("payload_json") else None,
    )


def run_request(caller: Caller, request: CreateRunRequest, kind: str = "") -> RunRequest:
    """Return the start that a request asks for.

    Args:
        caller: who asks.
        request: what is asked for.
        kind: the kind of what is to be started; empty if it is not known.

    Raises:
        InvalidRequest: fields are wrong; it names all of them.

    """
    if not request.agent_id:
        raise InvalidRequest({"agent_id": "is empty"})
    fields = Fields(request, kind)
    if fields.violations:
        raise InvalidRequest(fields.violations)
    options = request.options
    return RunRequest(
        caller=caller,
        runnable_id=request.agent_id,
        payload=fields.messages,
        payload_json=fields.payload_json,
        digest=digest(request),
        size=request.ByteSize(),
        model_options=fields.model_options,
        initial_state=fields.initial_state,
        deadlines=fields.deadlines,
        session_id=options.session_id if options.HasField("session_id") else None,
        user_id=options.user_id if options.HasField("user_id") else None,
        streaming=request.streaming,
        request_id=request.request_id or None,
        budget=fields.budget,
    )


class Fields:
    """The values of a request's fields, and what is wrong with them, by field."""

    def __init__(self, request: CreateRunRequest, kind: str) -> None:
        self.violations: dict[str, str] = {}
        self.payload_json = self._payload(request, kind)
        self.messages = self._messages(request, kind)
        self.initial_state = self._object(request.options, "initial_state_json")
        self.model_options = self._options(request.options, kind)
        self.deadlines = Deadlines(
            run=self._seconds(request.options, "timeout"),
            first_token=self._seconds(request.options.deadlines, "first_token"),
            token_gap=self._seconds(request.options.deadlines, "token_gap"),
            tool_call=self._seconds(request.options.deadlines, "tool_call"),
        )
        self.budget = self._budget(request.options)
        self._bound("request_id", request.request_id, REQUEST_ID_LIMIT)
        self._bound("options.session_id", request.options.session_id, NAME_LIMIT)
        self._bound("options.user_id", request.options.user_id, NAME_LIMIT)

    def _payload(self, request: CreateRunRequest, kind: str) -> str | None:
        if not request.HasField("payload_json"):
            return None
        if kind == AGENT:
            self.violations["payload_json"] = "cannot be given to an agent: give it an input"
        else:
            self._parse("payload_json", request.payload_json, STATE_LIMIT)
        return request.payload_json

    def _messages(self, request: CreateRunRequest, kind: str) -> list[dict[str, Any]]:
        """Return the conversation; a workflow has none."""
        if kind == WORKFLOW:
            for name in ("input", "input_messages_json"):
                if getattr(request, name):
                    self.violations[name] = NO_INPUT
            return []
        if not kind and not (request.input or request.input_messages_json):
            return []  # what is to be started does not exist
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
        found = len(self.violations)
        messages = self._parse(field, text, INPUT_LIMIT, MEDIA_COUNT)
        if len(self.violations) > found:
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

    def _options(self, options: RunOptions, kind: str) -> dict[str, Any]:
        name = "provider_options_json"
        if kind == WORKFLOW and options.HasField("provider_options_json"):
            self.violations[f"options.{name}"] = "cannot be given to a workflow: it asks no model"
            return {}
        value = self._object(options, name)
        if len(value) > OPTIONS_LIMIT:
            what = f"has {len(value)} members, the limit is {OPTIONS_LIMIT}"
            self.violations[f"options.{name}"] = what
            return {}
        return value

    def _budget(self, options: RunOptions) -> TreeBudget | None:
        tokens = options.budget_tokens if options.HasField("budget_tokens") else None
        micros = options.budget_cost.usd_micros if options.HasField("budget_cost") else None
        if tokens is not None and not 1 <= tokens <= MAX_TOKENS:
            self.violations["options.budget_tokens"] = f"is {tokens}, not from 1 to {MAX_TOKENS}"
        if micros is not None and not 1 <= micros <= MAX_MICROS:
            what = f"is {micros}, not from 1 to {MAX_MICROS}"
            self.violations["options.budget_cost.usd_micros"] = what
        bounded = tokens is not None or micros is not None
        return TreeBudget(tokens, micros) if bounded else None

    def _parse(self, field: str, text: str, limit: int, hint: str = "") -> Any:
        if not self._size(field, text, limit, hint):
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
        of_part = isinstance(options, DeadlinesMessage)
        most = MAX_SECONDS if of_part else MAX_RUN_SECONDS
        if not MIN_SECONDS <= seconds <= most:
            field = f"options.deadlines.{name}" if of_part else f"options.{name}"
            self.violations[field] = f"is {seconds} s, not from {MIN_SECONDS:g} s to {most:.0f} s"
            return None
        return seconds

    def _bound(self, field: str, text: str, limit: int) -> None:
        if len(text) > limit:
            self.violations[field] = f"has {len(text)} characters, the limit is {limit}"

    def _size(self, field: str, text: str, limit: int, hint: str = "") -> bool:
        size = len(text.encode())
        if size > limit:
            self.violations[field] = f"has {size} bytes, the limit is {limit}{hint}"
        return size <= limit


def digest(request: CreateRunRequest) -> bytes:
    """Return what is the same for two requests that ask for the same run."""
    payload = CreateRunRequest()
    payload.CopyFrom(request)
    payload.ClearField("request_id")
    return hashlib.sha256(payload.SerializeToString(deterministic=True)).digest()
