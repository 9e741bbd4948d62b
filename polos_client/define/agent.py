"""Agent: a definition, and how it is run."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from polos_client.deadlines import DEFAULTS, Deadlines
from polos_client.define import checks
from polos_client.define.stop import StopCondition
from polos_client.define.tool import Tool
from polos_client.define.unbuilt import refuse

if TYPE_CHECKING:
    from polos_client.calls.client import PolosClient
    from polos_client.calls.handle import ExecutionHandle
    from polos_client.calls.stream import AgentStream
    from polos_client.result import AgentResult

_RETRIES = 2

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
        self.id = checks.agent_id(id)
        self.provider = checks.provider_name(provider)
        self.model = checks.model_name(model)
        self.description = description or ""
        self.system_prompt = system_prompt
        self.tools = checks.tools(tools)
        self.temperature = checks.temperature(temperature)
        self.max_output_tokens = checks.output_tokens(max_output_tokens)
        self.provider_base_url = provider_base_url
        self.deadlines = deadlines.over(DEFAULTS)
        self.stop_conditions = checks.stop_conditions(stop_conditions)

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
            timeout: seconds after which the run is cancelled, above 0; None: only the
                deadline of the run bounds it, 24 h by default.
            deadlines: bounds of this run, before the agent's own.
            provider_kwargs: model parameters of this run, for example `seed=7`.

        Raises:
            RunFailed: the run failed.
            RunCancelled: the run was cancelled.
            RunTimeout: the run took longer than `timeout`, and was cancelled.
            InvalidRequest: an argument cannot be used; nothing was started.
            CallError: the service refused the start.
            ConnectionLost: the service could not be reached.

        """
        from polos_client.calls import running  # noqa: PLC0415 - grpc loads only where something runs
        from polos_client.calls.start import Start, not_named  # noqa: PLC0415

        not_named(provider_kwargs, "run_timeout_seconds", instead="timeout")
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
            run_timeout_seconds: how long the run may take, from 0.001 to 2592000 s; the
                same as the deadline `run`. None: what the deadlines say, 24 h by default.
            deadlines: bounds of this run, before the agent's own.
            provider_kwargs: model parameters of this run, for example `seed=7`.

        Raises:
            InvalidRequest: an argument cannot be used; nothing was started.
            CallError: the service refused the start.
            ConnectionLost: the service could not be reached.

        """
        from polos_client.calls import running  # noqa: PLC0415
        from polos_client.calls.start import Start, not_named  # noqa: PLC0415

        not_named(provider_kwargs, "timeout", instead="run_timeout_seconds")
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
                same as the deadline `run`. None: what the deadlines say, 24 h by default.
            deadlines: bounds of this run, before the agent's own.

        Raises:
            InvalidRequest: the payload is no dict, has no input, or a key that is not known; or
                another argument cannot be used. Nothing was started.
            CallError: the service refused the start.
            ConnectionLost: the service could not be reached.

        """
        from polos_client.calls import running  # noqa: PLC0415
        from polos_client.calls.start import Start, checked_payload  # noqa: PLC0415

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
