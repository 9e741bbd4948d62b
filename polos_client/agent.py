"""Agent: a definition, and how it is run."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from polos_client.deadlines import DEFAULTS, Deadlines
from polos_client.errors import DefinitionError
from polos_client.stop import StopCondition, max_steps
from polos_client.tool import Tool
from polos_client.unbuilt import refuse

if TYPE_CHECKING:
    from polos_client.client import PolosClient
    from polos_client.handle import ExecutionHandle
    from polos_client.result import AgentResult
    from polos_client.stream import AgentStream

_ID = re.compile(r"[A-Za-z0-9_.-]{1,128}")
_PROVIDERS = ("openai", "scripted")
_RETRIES = 2
_MAX_TEMPERATURE = 2

Input = str | Sequence[Mapping[str, Any]]
"""The user's message, or a conversation in the form of the OpenAI chat API."""


class Agent:
    """A language model with instructions and tools.

    The service that loads it runs it; a caller needs only a definition of the same id.

    Attributes:
        id: unique in a service.
        provider: who serves the model: "openai" (any server of that API) or "scripted".
        model: the model's name; the script, at provider "scripted".
        description: what it does; empty if nothing was said.
        system_prompt: the instructions; None if there are none.
        tools: what the model may call.
        temperature: sampling temperature; None is the provider's default.
        max_output_tokens: bound on the tokens of one model call; None is the provider's.
        provider_base_url: the provider's address; None is the service's own setting.
        deadlines: how long a run and its parts may take, all of them given.
        stop_conditions: asked in this order; `max_steps(count=10)` comes last where no
            other `max_steps` was given.

    """

    def __init__(  # noqa: PLR0917 - the documented signature
        self,
        id: str,
        provider: str,
        model: str,
        description: str | None = None,
        system_prompt: str | None = None,
        tools: Iterable[Tool] | None = None,
        temperature: float | None = None,
        max_output_tokens: int | None = None,
        provider_base_url: str | None = None,
        provider_llm_api: str | None = None,
        queue: Any = None,
        stop_conditions: Iterable[StopCondition] | None = None,
        output_schema: Any = None,
        on_start: Any = None,
        on_end: Any = None,
        on_agent_step_start: Any = None,
        on_agent_step_end: Any = None,
        on_tool_start: Any = None,
        on_tool_end: Any = None,
        guardrails: Any = None,
        guardrail_max_retries: int = _RETRIES,
        compaction: Any = None,
        stream_to_workflow: bool = False,  # noqa: FBT001, FBT002
        deadlines: Deadlines = DEFAULTS,
    ) -> None:
        """Define an agent.

        Raises:
            DefinitionError: a value cannot be used, or asks for what is not built yet:
                queue, output_schema, the hooks (on_...), guardrails, compaction,
                stream_to_workflow, another provider_llm_api than "chat_completions".

        """
        refuse(
            "Agent",
            {
                "queue": queue,
                "output_schema": output_schema,
                "on_start": on_start,
                "on_end": on_end,
                "on_agent_step_start": on_agent_step_start,
                "on_agent_step_end": on_agent_step_end,
                "on_tool_start": on_tool_start,
                "on_tool_end": on_tool_end,
                "guardrails": guardrails or None,
                "guardrail_max_retries": _unless(_RETRIES, guardrail_max_retries),
                "compaction": compaction,
                "stream_to_workflow": stream_to_workflow or None,
                "provider_llm_api": _unless("chat_completions", provider_llm_api),
            },
        )
        self.id = _checked_id(id)
        self.provider = _checked_provider(provider)
        self.model = _checked_model(model)
        self.description = description or ""
        self.system_prompt = system_prompt
        self.tools: tuple[Tool, ...] = _checked_tools(tools or ())
        self.temperature = _checked_temperature(temperature)
        self.max_output_tokens = _checked_bound(max_output_tokens)
        self.provider_base_url = provider_base_url
        self.deadlines = deadlines.over(DEFAULTS)
        self.stop_conditions: tuple[StopCondition, ...] = _checked_stops(stop_conditions or ())

    def __repr__(self) -> str:
        return f"<Agent {self.id}>"

    async def run(
        self,
        client: PolosClient,
        input: Input,
        *,
        initial_state: Mapping[str, Any] | None = None,
        session_id: str | None = None,
        user_id: str | None = None,
        timeout: float | None = 600.0,
        deadlines: Deadlines | None = None,
        **provider_kwargs: Any,
    ) -> AgentResult:
        """Run to the end and return the result.

        Args:
            client: where the service is.
            input: the user's message, or a conversation.
            initial_state: what tools find in their context, as JSON values.
            session_id: groups runs for listing.
            user_id: who it is for, for listing.
            timeout: seconds after which the run is cancelled; None: no bound but the
                deadline of the run.
            deadlines: bounds of this run, before the agent's own.
            provider_kwargs: model parameters of this run, for example `seed=7`.

        Raises:
            RunFailed: the run failed.
            RunCancelled: the run was cancelled.
            RunTimeout: the run took longer than `timeout`, and was cancelled.
            CallError: the service refused the start.
            ConnectionLost: the service could not be reached.

        """
        from polos_client import running  # noqa: PLC0415 - grpc loads only where something runs
        from polos_client.start import Start  # noqa: PLC0415

        start = Start(
            agent=self,
            input=input,
            initial_state=initial_state,
            session_id=session_id,
            user_id=user_id,
            deadlines=deadlines,
            provider_options=provider_kwargs,
        )
        return await running.run(client, start, timeout)

    async def stream(
        self,
        client: PolosClient,
        input: Input,
        *,
        initial_state: Mapping[str, Any] | None = None,
        session_id: str | None = None,
        user_id: str | None = None,
        run_timeout_seconds: float | None = None,
        deadlines: Deadlines | None = None,
        **provider_kwargs: Any,
    ) -> AgentStream:
        """Start a run and return its stream, when the run is on disk.

        Args:
            client: where the service is.
            input: the user's message, or a conversation.
            initial_state: what tools find in their context, as JSON values.
            session_id: groups runs for listing.
            user_id: who it is for, for listing.
            run_timeout_seconds: how long it may take, 0.001 to 2592000; None: no bound.
            deadlines: bounds of this run, before the agent's own.
            provider_kwargs: model parameters of this run, for example `seed=7`.

        Raises:
            CallError: the service refused the start.
            ConnectionLost: the service could not be reached.

        """
        from polos_client import running  # noqa: PLC0415
        from polos_client.start import Start  # noqa: PLC0415

        start = Start(
            agent=self,
            input=input,
            initial_state=initial_state,
            session_id=session_id,
            user_id=user_id,
            run_timeout_seconds=run_timeout_seconds,
            deadlines=deadlines,
            provider_options=provider_kwargs,
        )
        return await running.stream(client, start)

    async def invoke(
        self,
        client: PolosClient,
        payload: Mapping[str, Any],
        *,
        initial_state: Mapping[str, Any] | None = None,
        session_id: str | None = None,
        user_id: str | None = None,
        run_timeout_seconds: float | None = None,
        deadlines: Deadlines | None = None,
    ) -> ExecutionHandle:
        """Start a run and return its handle at once.

        Args:
            client: where the service is.
            payload: `{"input": ..., "streaming": False}`; `streaming` is optional.
            initial_state: what tools find in their context, as JSON values.
            session_id: groups runs for listing.
            user_id: who it is for, for listing.
            run_timeout_seconds: how long the run may take, from 0.001 to 2592000 s; the
                same as the deadline `run`. None: what the deadlines say.
            deadlines: bounds of this run, before the agent's own.

        Raises:
            InvalidRequest: the payload has no input, or a key that is not known.
            CallError: the service refused the start.
            ConnectionLost: the service could not be reached.

        """
        from polos_client import running  # noqa: PLC0415
        from polos_client.start import Start, checked_payload  # noqa: PLC0415

        streaming = checked_payload(payload)
        start = Start(
            agent=self,
            input=payload["input"],
            initial_state=initial_state,
            session_id=session_id,
            user_id=user_id,
            run_timeout_seconds=run_timeout_seconds,
            deadlines=deadlines,
        )
        return await running.invoke(client, start, streaming=streaming)


def _unless(built: object, value: object) -> object:
    return None if value == built else value


def _checked_id(value: object) -> str:
    if not isinstance(value, str) or not _ID.fullmatch(value):
        raise DefinitionError(
            f"the agent id {value!r} must be 1 to 128 letters, digits, '_', '.' or '-'"
        )
    return value


def _checked_provider(value: str) -> str:
    if value not in _PROVIDERS:
        raise DefinitionError(
            f"there is no provider {value!r}; there are {', '.join(_PROVIDERS)} "
            "('openai' serves any compatible server: set provider_base_url)"
        )
    return value


def _checked_model(value: object) -> str:
    if not isinstance(value, str) or not value:
        raise DefinitionError(f"the model must be the name of one, not {value!r}")
    return value


def _checked_tools(tools: Iterable[Tool]) -> tuple[Tool, ...]:
    given = tuple(tools)
    for one in given:
        if not isinstance(one, Tool):
            raise DefinitionError(f"{one!r} is not a tool: put @tool on the function")
    ids = [one.id for one in given]
    twice = sorted({one for one in ids if ids.count(one) > 1})
    if twice:
        raise DefinitionError(f"two tools have the id {twice[0]!r}: give one @tool(id=...)")
    return given


def _checked_temperature(value: float | None) -> float | None:
    if value is not None and not 0 <= value <= _MAX_TEMPERATURE:
        raise DefinitionError(f"the temperature must be from 0 to 2, not {value!r}")
    return value


def _checked_bound(value: int | None) -> int | None:
    if value is not None and not 1 <= value < 2**31:
        raise DefinitionError(f"max_output_tokens must be at least 1, not {value!r}")
    return value


def _checked_stops(conditions: Iterable[StopCondition]) -> tuple[StopCondition, ...]:
    given = tuple(conditions)
    for one in given:
        if not isinstance(one, StopCondition):
            raise DefinitionError(
                f"{one!r} is not a stop condition: call it, as max_steps(count=5), or put "
                "@stop_condition on the function"
            )
    bounded = any(one.name == max_steps.name for one in given)
    return given if bounded else (*given, max_steps(count=10))
