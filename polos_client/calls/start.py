"""Start: what a caller asks for when a run begins, checked before it is sent."""

from __future__ import annotations

import json
import uuid
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from google.protobuf.duration_pb2 import Duration
from pydantic import BaseModel

from polos.v1.run_pb2 import RunOptions
from polos.v1.run_service_pb2 import CreateRunRequest, StreamRunRequest
from polos_client.budget import Budget
from polos_client.deadlines import MAX_RUN_SECONDS, MIN_SECONDS, Deadlines, is_duration
from polos_client.errors import InvalidRequest
from polos_client.wire import INPUT_LIMIT, MEDIA_COUNT, NAME_LIMIT, REQUEST_ID_LIMIT, STATE_LIMIT

NO_MEMORY = "session_id groups runs only: sessions have no memory yet in this version"
"""What a program that gives a session is told, once for each line that does."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Start:
    """What a run is started with.

    Attributes:
        workflow_id: the agent or workflow that runs.
        input: the user's message, or a conversation; at most 1 MiB as it is sent. None for a
            workflow.
        payload: what a workflow is given: JSON values or a model, at most 256 KiB as JSON. None:
            nothing.
        initial_state: what tools find in their context; at most 256 KiB as JSON.
        session_id: at most 256 characters.
        user_id: at most 256 characters.
        run_timeout_seconds: from 0.001 s to 100 years; None: what the deadlines say.
        deadlines: bounds of this run; None: the agent's.
        provider_options: model parameters of this run; at most 256 KiB as JSON.
        request_id: makes the start idempotent; from 1 to 128 characters. None: a new one for
            each request.
        budget: what the run and its children may use; None: any.

    """

    workflow_id: str
    input: str | Sequence[Mapping[str, Any]] | None = None
    payload: Any = None
    initial_state: Mapping[str, Any] | BaseModel | None = None
    session_id: str | None = None
    user_id: str | None = None
    run_timeout_seconds: float | None = None
    deadlines: Deadlines | None = None
    provider_options: Mapping[str, Any] = field(default_factory=dict)
    request_id: str | None = None
    budget: Budget | None = None

    def create_request(self, *, streaming: bool) -> CreateRunRequest:
        """Return the request that starts the run alone.

        Raises:
            InvalidRequest: a value cannot be used or sent.

        """
        request = CreateRunRequest(streaming=streaming)
        self._fill(request)
        return request

    def stream_request(self) -> StreamRunRequest:
        """Return the request that starts the run and reads it.

        Raises:
            InvalidRequest: a value cannot be used or sent.

        """
        request = StreamRunRequest()
        self._fill(request)
        return request

    def _fill(self, request: CreateRunRequest | StreamRunRequest) -> None:
        request.agent_id = _named("workflow_id", self.workflow_id, NAME_LIMIT)
        request.request_id = request_id_or_new(self.request_id)
        if isinstance(self.input, str):
            request.input = _bounded("input", self.input, INPUT_LIMIT)
        elif self.input is None:
            if self.payload is not None:
                request.payload_json = payload_json("payload", self.payload)
        else:
            messages = _conversation(self.input)
            request.input_messages_json = _json("input", messages, list, INPUT_LIMIT, MEDIA_COUNT)
        self._fill_options(request.options)

    def _fill_options(self, options: RunOptions) -> None:
        if self.session_id is not None:
            options.session_id = _named("session_id", self.session_id, NAME_LIMIT)
        if self.user_id is not None:
            options.user_id = _named("user_id", self.user_id, NAME_LIMIT)
        if self.initial_state is not None:
            text = _json("initial_state", _state(self.initial_state), dict, STATE_LIMIT)
            options.initial_state_json = text
        if self.provider_options:
            text = _json("provider_kwargs", self.provider_options, dict, STATE_LIMIT)
            options.provider_options_json = text
        if self.run_timeout_seconds is not None:
            options.timeout.CopyFrom(_duration(self.run_timeout_seconds))
        if self.deadlines is not None:
            if not isinstance(self.deadlines, Deadlines):
                raise InvalidRequest(
                    {"deadlines": f"must be Deadlines, not {self.deadlines!r:.80}"}
                )
            self._fill_deadlines(options, self.deadlines)
        if self.budget is not None:
            _fill_budget(options, self.budget)

    def _fill_deadlines(self, options: RunOptions, deadlines: Deadlines) -> None:
        if deadlines.run is not None and self.run_timeout_seconds is None:
            options.timeout.CopyFrom(_duration(deadlines.run))
        if deadlines.first_token is not None:
            options.deadlines.first_token.CopyFrom(_duration(deadlines.first_token))
        if deadlines.token_gap is not None:
            options.deadlines.token_gap.CopyFrom(_duration(deadlines.token_gap))
        if deadlines.tool_call is not None:
            options.deadlines.tool_call.CopyFrom(_duration(deadlines.tool_call))


def _fill_budget(options: RunOptions, budget: Budget) -> None:
    if not isinstance(budget, Budget):
        raise InvalidRequest({"budget": f"must be a Budget, not {budget!r:.80}"})
    if budget.tokens is not None:
        options.budget_tokens = budget.tokens
    if budget.cost is not None:
        options.budget_cost.usd_micros = budget.micros


def warn_of_session(session_id: str | None, *, stacklevel: int = 3) -> None:
    """Warn whoever starts a run in a session that sessions have no memory.

    Args:
        session_id: the session; None: there is nothing to warn of.
        stacklevel: as of `warnings.warn`; by default the caller of the caller is warned.

    """
    if session_id is not None:
        warnings.warn(NO_MEMORY, stacklevel=stacklevel)


def not_named(options: Mapping[str, Any], name: str, *, instead: str) -> None:
    """Refuse a bound by the name that it has at another method.

    Raises:
        InvalidRequest: `name` is one of the options.

    """
    if name in options:
        raise InvalidRequest({name: f"is not known here; pass {instead}={options[name]!r}"})


def checked_payload(payload: Any) -> bool:
    """Check the payload of an agent's `invoke` and return whether the run shall stream.

    Raises:
        InvalidRequest: it is not a dict, lacks the input, or has an unknown key or a value of
            another type.

    """
    if not isinstance(payload, Mapping):
        told = type(payload).__name__
        raise InvalidRequest({"payload": f'must be a dict like {{"input": "Hello"}}, not {told}'})
    unknown = sorted(set(payload) - {"input", "streaming", "provider_kwargs"})
    if unknown:
        known = "is not known; an agent takes input, streaming and provider_kwargs"
        raise InvalidRequest({f"payload.{name}": known for name in unknown})
    if "input" not in payload:
        raise InvalidRequest({"payload.input": "is missing; an agent needs it"})
    streaming = payload.get("streaming", False)
    if not isinstance(streaming, bool):
        raise InvalidRequest({"payload.streaming": f"must be True or False, not {streaming!r}"})
    options = payload.get("provider_kwargs")
    if not isinstance(options, Mapping | None):
        raise InvalidRequest({"payload.provider_kwargs": f"must be a dict, not {options!r:.80}"})
    return streaming


def _state(state: Any) -> Mapping[str, Any]:
    if isinstance(state, BaseModel):
        return state.model_dump(mode="json")
    if not isinstance(state, Mapping):
        told = type(state).__name__
        raise InvalidRequest({"initial_state": f"must be a dict or a pydantic model, not {told}"})
    return state


def _conversation(messages: Any) -> Sequence[Any]:
    if not isinstance(messages, list | tuple):
        told = type(messages).__name__
        raise InvalidRequest({"input": f"must be a string or a list of messages, not {told}"})
    for index, message in enumerate(messages):
        if not _is_message(message):
            wanted = 'must be a dict like {"role": "user", "content": "Hello"}'
            raise InvalidRequest({f"input[{index}]": f"{wanted}, not {message!r:.80}"})
    return messages


def _is_message(message: Any) -> bool:
    """Return True if the message says something; an assistant's may be calls of tools alone."""
    if not isinstance(message, Mapping) or "role" not in message:
        return False
    return message.get("content") is not None or message["role"] == "assistant"


def _json(
    name: str, value: Any, kind: type[list[Any] | dict[Any, Any]], limit: int, hint: str = ""
) -> str:
    plain = kind(value)
    if not plain and kind is list:
        raise InvalidRequest({name: "is empty"})
    try:
        text = json.dumps(plain, ensure_ascii=False, allow_nan=False, separators=(",", ":"))
    except (TypeError, ValueError, RecursionError) as error:
        raise InvalidRequest({name: f"cannot be written as JSON: {error}"}) from error
    return _bounded(name, text, limit, hint)


def _bounded(name: str, text: str, limit: int, hint: str = "") -> str:
    size = _size(name, text)
    if not size:
        raise InvalidRequest({name: "is empty"})
    if size > limit:
        raise InvalidRequest({name: f"has {size} bytes; at most {limit} are taken{hint}"})
    return text


def _size(name: str, text: str) -> int:
    """Return how many bytes the text has as it is sent."""
    try:
        return len(text.encode())
    except UnicodeEncodeError as error:
        raise InvalidRequest({name: f"is not valid Unicode text: {error.reason}"}) from None


def payload_json(name: str, value: Any) -> str:
    """Return a workflow's payload, or an answer, as JSON text.

    Raises:
        InvalidRequest: it cannot be written as JSON, or is too large.

    """
    if isinstance(value, BaseModel):
        return _bounded(name, value.model_dump_json(), STATE_LIMIT)
    try:
        text = json.dumps(
            value, ensure_ascii=False, allow_nan=False, separators=(",", ":"), default=_model
        )
    except (TypeError, ValueError, RecursionError) as error:
        raise InvalidRequest({name: f"cannot be written as JSON: {error}"}) from error
    return _bounded(name, text, STATE_LIMIT)


def _model(value: Any) -> Any:
    if isinstance(value, BaseModel):
        return value.model_dump(mode="json")
    raise TypeError(f"{type(value).__name__} is not a JSON value")


def _named(name: str, text: Any, limit: int) -> str:
    if not isinstance(text, str):
        raise InvalidRequest({name: f"must be a text, not {text!r:.80}"})
    _size(name, text)
    if len(text) > limit:
        raise InvalidRequest({name: f"has {len(text)} characters; at most {limit} are taken"})
    return text


def request_id_or_new(given: str | None) -> str:
    """Return the request id that a caller has given, or a new one.

    Raises:
        InvalidRequest: it cannot be used.

    """
    if given is None:
        return str(uuid.uuid4())
    if given == "":  # to the service, a call without an id: repeated, it would be another one
        raise InvalidRequest({"request_id": "is empty"})
    return _named("request_id", given, REQUEST_ID_LIMIT)


def _duration(seconds: float) -> Duration:
    if not is_duration(seconds, MAX_RUN_SECONDS):
        bounds = f"from {MIN_SECONDS:g} to {MAX_RUN_SECONDS:.0f}"
        raise InvalidRequest({"run_timeout_seconds": f"is {seconds!r}; it must be {bounds}"})
    duration = Duration()
    duration.FromNanoseconds(round(seconds * 1e9))
    return duration
