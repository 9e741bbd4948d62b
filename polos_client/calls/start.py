"""Start: what a caller says when a run begins, checked before it travels."""

from __future__ import annotations

import json
import uuid
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from google.protobuf.duration_pb2 import Duration

from polos.v1.run_pb2 import RunOptions
from polos.v1.run_service_pb2 import CreateRunRequest, StreamRunRequest
from polos_client.deadlines import MAX_SECONDS, MIN_SECONDS, Deadlines, is_duration
from polos_client.errors import InvalidRequest

if TYPE_CHECKING:
    from polos_client.define.agent import Agent, Input

_MAX_INPUT = 1024 * 1024
_MAX_STATE = 256 * 1024
_MAX_NAME = 256


@dataclass(frozen=True, kw_only=True, slots=True)
class Start:
    """What a run is started with.

    Attributes:
        agent: the agent; it travels by its id.
        input: the user's message, or a conversation; at most 1 MiB as it travels.
        initial_state: what tools find in their context; at most 256 KiB as JSON.
        session_id: at most 256 characters.
        user_id: at most 256 characters.
        run_timeout_seconds: from 0.001 to 2592000 s; None: what the deadlines say.
        deadlines: bounds of this run; None: the agent's.
        provider_options: model parameters of this run; at most 256 KiB as JSON.
        request_id: makes the start idempotent.

    """

    agent: Agent
    input: Input
    initial_state: Mapping[str, Any] | None = None
    session_id: str | None = None
    user_id: str | None = None
    run_timeout_seconds: float | None = None
    deadlines: Deadlines | None = None
    provider_options: Mapping[str, Any] = field(default_factory=dict)
    request_id: str = field(default_factory=lambda: str(uuid.uuid4()))

    def create_request(self, *, streaming: bool) -> CreateRunRequest:
        """Return the request that starts the run alone.

        Raises:
            InvalidRequest: a value cannot travel.

        """
        request = CreateRunRequest(
            agent_id=self.agent.id, request_id=self.request_id, streaming=streaming
        )
        self._fill(request)
        return request

    def stream_request(self) -> StreamRunRequest:
        """Return the request that starts the run and reads it.

        Raises:
            InvalidRequest: a value cannot travel.

        """
        request = StreamRunRequest(agent_id=self.agent.id, request_id=self.request_id)
        self._fill(request)
        return request

    def _fill(self, request: CreateRunRequest | StreamRunRequest) -> None:
        if isinstance(self.input, str):
            request.input = _bounded("input", self.input, _MAX_INPUT)
        else:
            messages = _conversation(self.input)
            request.input_messages_json = _json("input", messages, list, _MAX_INPUT)
        self._fill_options(request.options)

    def _fill_options(self, options: RunOptions) -> None:
        if self.session_id is not None:
            options.session_id = _named("session_id", self.session_id)
        if self.user_id is not None:
            options.user_id = _named("user_id", self.user_id)
        if self.initial_state is not None:
            if not isinstance(self.initial_state, Mapping):
                told = type(self.initial_state).__name__
                raise InvalidRequest({"initial_state": f"must be a dict, not {told}"})
            text = _json("initial_state", self.initial_state, dict, _MAX_STATE)
            options.initial_state_json = text
        if self.provider_options:
            text = _json("provider_kwargs", self.provider_options, dict, _MAX_STATE)
            options.provider_options_json = text
        if self.run_timeout_seconds is not None:
            options.timeout.CopyFrom(_duration(self.run_timeout_seconds))
        if self.deadlines is not None:
            self._fill_deadlines(options, self.deadlines)

    def _fill_deadlines(self, options: RunOptions, deadlines: Deadlines) -> None:
        if deadlines.run is not None and self.run_timeout_seconds is None:
            options.timeout.CopyFrom(_duration(deadlines.run))
        if deadlines.first_token is not None:
            options.deadlines.first_token.CopyFrom(_duration(deadlines.first_token))
        if deadlines.token_gap is not None:
            options.deadlines.token_gap.CopyFrom(_duration(deadlines.token_gap))
        if deadlines.tool_call is not None:
            options.deadlines.tool_call.CopyFrom(_duration(deadlines.tool_call))


def not_named(options: Mapping[str, Any], name: str, *, instead: str) -> None:
    """Refuse a bound by the name that it has at another method.

    Raises:
        InvalidRequest: `name` is one of the options.

    """
    if name in options:
        raise InvalidRequest({name: f"is not known here; pass {instead}={options[name]!r}"})


def checked_payload(payload: Any) -> bool:
    """Check the payload of `agent.invoke` and return whether the run shall stream.

    Raises:
        InvalidRequest: it is no dict, has no input, or a key that is not known.

    """
    if not isinstance(payload, Mapping):
        told = type(payload).__name__
        raise InvalidRequest({"payload": f'must be a dict like {{"input": "Hello"}}, not {told}'})
    unknown = sorted(set(payload) - {"input", "streaming"})
    if unknown:
        known = "is not known; there are input and streaming"
        raise InvalidRequest({f"payload.{name}": known for name in unknown})
    if "input" not in payload:
        raise InvalidRequest({"payload.input": "is missing"})
    streaming = payload.get("streaming", False)
    if not isinstance(streaming, bool):
        raise InvalidRequest({"payload.streaming": f"must be True or False, not {streaming!r}"})
    return streaming


def _conversation(messages: Any) -> Sequence[Any]:
    if not isinstance(messages, list | tuple):
        told = type(messages).__name__
        raise InvalidRequest({"input": f"must be a text or a list of messages, not {told}"})
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


def _json(name: str, value: Any, kind: type[list[Any] | dict[Any, Any]], limit: int) -> str:
    plain = kind(value)
    if not plain and kind is list:
        raise InvalidRequest({name: "is empty"})
    try:
        text = json.dumps(plain, ensure_ascii=False, allow_nan=False, separators=(",", ":"))
    except (TypeError, ValueError, RecursionError) as error:
        raise InvalidRequest({name: f"cannot be written as JSON: {error}"}) from error
    return _bounded(name, text, limit)


def _bounded(name: str, text: str, limit: int) -> str:
    size = _size(name, text)
    if not size:
        raise InvalidRequest({name: "is empty"})
    if size > limit:
        raise InvalidRequest({name: f"has {size} bytes; at most {limit} are taken"})
    return text


def _size(name: str, text: str) -> int:
    """Return how many bytes the text has as it travels."""
    try:
        return len(text.encode())
    except UnicodeEncodeError as error:
        raise InvalidRequest({name: f"is no valid Unicode text: {error.reason}"}) from None


def _named(name: str, text: Any) -> str:
    if not isinstance(text, str):
        raise InvalidRequest({name: f"must be a text, not {text!r:.80}"})
    _size(name, text)
    if len(text) > _MAX_NAME:
        raise InvalidRequest({name: f"has {len(text)} characters; at most {_MAX_NAME} are taken"})
    return text


def _duration(seconds: float) -> Duration:
    if not is_duration(seconds):
        bounds = f"from {MIN_SECONDS:g} to {MAX_SECONDS:.0f}"
        raise InvalidRequest({"run_timeout_seconds": f"is {seconds!r}; it must be {bounds}"})
    duration = Duration()
    duration.FromNanoseconds(round(seconds * 1e9))
    return duration
