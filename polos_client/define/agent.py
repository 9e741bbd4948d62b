"""Agent: a definition, and how it is run."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, NoReturn

from pydantic import BaseModel

from polos_client.budget import Budget
from polos_client.deadlines import DEFAULTS, PATIENCE, Deadlines
from polos_client.define import checks
from polos_client.define.agent_tool import AgentTool
from polos_client.define.children import AgentRunConfig
from polos_client.define.inside import require_outside
from polos_client.define.output import Output
from polos_client.define.registry import DEFINED
from polos_client.define.stop import StopCondition, StopConditionContext, default_steps, max_steps
from polos_client.define.tool import Tool, ToolApproval
from polos_client.errors import InvalidRequest
from polos_client.unbuilt import missing, refuse

if TYPE_CHECKING:
    from polos_client.calls.client import PolosClient
    from polos_client.calls.handle import ExecutionHandle
    from polos_client.calls.start import Start
    from polos_client.calls.stream import AgentStream
    from polos_client.result import AgentResult

Input = str | Sequence[Mapping[str, Any]]
"""The user's message, or a conversation in the form of the OpenAI chat API."""

State = Mapping[str, Any] | BaseModel
"""What tools find in their context: a dict of JSON values, or a model that is written as one."""

Stop = StopCondition | Callable[[StopConditionContext], Any]
"""A stop condition, or a plain function that is one: `(ctx) -> bool`, or an async one."""


class Agent:
    """A language model with instructions and tools.

    The service that loads it runs it; a caller needs only a definition with the same id.

    Attributes:
        id: unique within a service.
        provider: the provider of the model: "openai" (any server with that API), "anthropic",
            "scripted", or another provider that the service has.
        model: the model's name; for the provider "scripted", the script.
        description: what it does; empty if none was given.
        system_prompt: the instructions; None if there are none.
        tools: the tools that the model may call. They can be set later, for agents that call each
            other; an agent among them is the same as `agent.as_tool()`.
        temperature: sampling temperature; None: the provider's default.
        max_output_tokens: limit on the tokens of one model call; None: the provider's default.
        provider_base_url: the provider's address; None: the service's setting.
        provider_llm_api: which of the provider's APIs is used; None: its default.
        provider_kwargs: the provider's own parameters, sent with each model call. `extra_body`
            is merged into them, `extra_headers` are sent as headers.
        deadlines: how long a run and its parts may take, without None.
        bounded: True if the author set how long a run may take.
        stream_to_workflow: True if the agent streams wherever a workflow runs it.
        output: the type of its answers; None if it answers with text.
        output_schema: that type, as it was given; None if it answers with text.
        output_schema_name: `module.Class` of that type; None if it answers with text.

    """

    def __init__(  # noqa: PLR0917 - the documented signature
        self,
        id: str,
        provider: str,
        model: str,
        description: str | None = None,
        system_prompt: str | None = None,
        tools: Iterable[Tool | Agent] | None = None,
        temperature: float | None = None,
        max_output_tokens: int | None = None,
        provider_base_url: str | None = None,
        provider_llm_api: str | None = None,
        queue: Any = None,
        stop_conditions: Iterable[Stop] | None = None,
        output_schema: Any = None,
        on_start: Any = None,
        on_end: Any = None,
        on_agent_step_start: Any = None,
        on_agent_step_end: Any = None,
        on_tool_start: Any = None,
        on_tool_end: Any = None,
        guardrails: Any = None,
        guardrail_max_retries: int = 2,
        compaction: Any = None,
        stream_to_workflow: bool = False,  # noqa: FBT001, FBT002
        deadlines: Deadlines = DEFAULTS,
        provider_kwargs: Mapping[str, Any] | None = None,
    ) -> None:
        """Define an agent.

        Raises:
            DefinitionError: a value is invalid, or requests a feature that is not built yet: see
                `polos_client.unbuilt`.

        """
        refuse(
            "Agent",
            {
                "queue": queue,
                "on_start": on_start,
                "on_end": on_end,
                "on_agent_step_start": on_agent_step_start,
                "on_agent_step_end": on_agent_step_end,
                "on_tool_start": on_tool_start,
                "on_tool_end": on_tool_end,
                "guardrails": guardrails,
                "guardrail_max_retries": guardrail_max_retries,
                "compaction": compaction,
            },
        )
        self.id = checks.agent_id(id)
        self.provider = checks.provider_name(provider)
        self.model = checks.model_name(model)
        self.description = description or ""
        self.system_prompt = system_prompt
        self.tools = tools
        self.temperature = checks.temperature(temperature)
        self.max_output_tokens = checks.output_tokens(max_output_tokens)
        self.provider_base_url = checks.base_url(provider_base_url)
        self.provider_llm_api = checks.llm_api(provider_llm_api)
        self.provider_kwargs = checks.provider_kwargs(provider_kwargs)
        self.bounded = deadlines is not DEFAULTS and deadlines.run is not None
        self.deadlines = deadlines.over(DEFAULTS)
        self.stream_to_workflow = stream_to_workflow
        self.output_schema = output_schema
        self.output = None if output_schema is None else Output(output_schema)
        self.output_schema_name = self.output.name if self.output else None
        self._stop_conditions = checks.stop_conditions(stop_conditions)
        DEFINED[self.id] = self

    if not TYPE_CHECKING:  # checkers refuse these names by themselves

        def __getattr__(self, name: str) -> NoReturn:
            raise missing(self, name)

    def __repr__(self) -> str:
        return f"<Agent {self.id}>"

    @property
    def tools(self) -> tuple[Tool, ...]:
        """What the model may call."""
        return self._tools

    @tools.setter
    def tools(self, value: Iterable[Tool | Agent] | None) -> None:
        """Set what the model may call.

        Raises:
            DefinitionError: one is neither a tool nor an agent, or two have one name.

        """
        self._tools = checks.tools(value, Agent)

    def as_tool(
        self,
        id: str | None = None,
        description: str | None = None,
        *,
        approval: ToolApproval | None = None,
        approval_timeout: float | None = None,
        editable: bool = False,
    ) -> AgentTool:
        """Return this agent as a tool of another one: a call is a run of it with the `input`.

        The run is a child of the caller's run. Its result is the result of the call; a failure is
        reported to the caller's model.

        Args:
            id: the name of the tool for the model; None: the agent's id, with `_` for each dot,
                truncated after 64 characters.
            description: what it does, for the model; None: the agent's description.
            approval: see `@tool`.
            approval_timeout: see `@tool`.
            editable: see `@tool`.

        Raises:
            DefinitionError: as `@tool`.

        """
        return AgentTool(
            self,
            id,
            description or self.description,
            approval=approval,
            approval_timeout=approval_timeout,
            editable=editable,
        )

    @property
    def stop_conditions(self) -> tuple[StopCondition, ...]:
        """Asked in this order; where none is a `max_steps`, one of `default_steps()` comes last.

        Raises:
            DefinitionError: POLOS_AGENT_MAX_STEPS, which is read each time, is invalid.

        """
        given = self._stop_conditions
        bounded = any(one.name == max_steps.name for one in given)
        return given if bounded else (*given, max_steps(count=default_steps()))

    async def run(  # noqa: PLR0917 - the order of the original SDK
        self,
        client: PolosClient,
        input: Input,
        initial_state: State | None = None,
        session_id: str | None = None,
        user_id: str | None = None,
        timeout: float | None = PATIENCE,
        *,
        deadlines: Deadlines | None = None,
        budget: Budget | None = None,
        request_id: str | None = None,
        **provider_kwargs: Any,
    ) -> AgentResult:
        """Run to the end and return the result.

        Args:
            client: a client of the service.
            input: the user's message, or a conversation.
            initial_state: what tools find in their context: a dict of JSON values, or a model.
            session_id: groups runs for listing.
            user_id: the user that the run is for, for listing.
            timeout: seconds after which the run is cancelled, above 0; None: only the deadline of
                the run limits it, 24 h by default. If no timeout is given, the call raises after
                600 s, and the run continues.
            deadlines: deadlines of this run, which take precedence over the agent's.
            budget: what the model calls of the run and of all its children may use; None: no limit.
            request_id: makes the start safe to repeat: the same id with the same arguments is the
                same run; 1 to 128 characters. None: a new one.
            provider_kwargs: model parameters of this run, for example `seed=7`.

        Raises:
            RunFailed: the run failed.
            RunCancelled: the run was cancelled.
            RunTimeout: the run took longer than `timeout`, and was cancelled.
            ResultMismatch: the result is of a class that this process does not have.
            WorkflowTimeoutError: no timeout was given, and the run has not ended within 600 s.
            InvalidRequest: an argument is invalid; nothing was started.
            RequestIdReused: `request_id` started a run with other arguments.
            CallError: the service refused the start.
            ConnectionLost: the service could not be reached.
            RuntimeError: it is called inside a run.

        """
        from polos_client.calls import running  # noqa: PLC0415 - grpc loads only where something runs
        from polos_client.calls.start import not_named  # noqa: PLC0415

        require_outside("agent.run", "ctx.step.agent_invoke_and_wait")
        not_named(provider_kwargs, "run_timeout_seconds", instead="timeout")
        start = self._start(
            client,
            input,
            initial_state=initial_state,
            session_id=session_id,
            user_id=user_id,
            deadlines=deadlines,
            budget=budget,
            request_id=request_id,
            provider_options=provider_kwargs,
        )
        return await running.run(client, start, timeout, self.output_schema)

    async def stream(  # noqa: PLR0917 - the order of the original SDK
        self,
        client: PolosClient,
        input: Input,
        initial_state: State | None = None,
        session_id: str | None = None,
        user_id: str | None = None,
        run_timeout_seconds: float | None = None,
        *,
        deadlines: Deadlines | None = None,
        budget: Budget | None = None,
        request_id: str | None = None,
        **provider_kwargs: Any,
    ) -> AgentStream:
        """Start a run and return its stream once the run is stored.

        Args:
            client: see `run`.
            input: see `run`.
            initial_state: see `run`.
            session_id: see `run`.
            user_id: see `run`.
            run_timeout_seconds: how long the run may take, from 0.001 s to 100 years; the same as
                the deadline `run`. None: as in the deadlines, 24 h by default.
            deadlines: see `run`.
            budget: see `run`.
            request_id: see `run`.
            provider_kwargs: see `run`.

        Raises:
            InvalidRequest: an argument is invalid; nothing was started.
            CallError, ConnectionLost, RuntimeError: the run was not started; see `run`.

        """
        from polos_client.calls import running  # noqa: PLC0415
        from polos_client.calls.start import not_named  # noqa: PLC0415

        require_outside("agent.stream", "ctx.step.agent_invoke_and_wait")
        not_named(provider_kwargs, "timeout", instead="run_timeout_seconds")
        start = self._start(
            client,
            input,
            initial_state=initial_state,
            session_id=session_id,
            user_id=user_id,
            run_timeout_seconds=run_timeout_seconds,
            deadlines=deadlines,
            budget=budget,
            request_id=request_id,
            provider_options=provider_kwargs,
        )
        return await running.stream(client, start, self.output_schema)

    async def invoke(  # noqa: PLR0917 - the order of the original SDK
        self,
        client: PolosClient,
        payload: Mapping[str, Any],
        queue: Any = None,
        concurrency_key: str | None = None,
        session_id: str | None = None,
        user_id: str | None = None,
        initial_state: State | None = None,
        run_timeout_seconds: float | None = None,
        *,
        deadlines: Deadlines | None = None,
        budget: Budget | None = None,
        request_id: str | None = None,
    ) -> ExecutionHandle:
        """Start a run and return its handle once the run is stored.

        Args:
            client: see `run`.
            payload: `{"input": ..., "streaming": False, "provider_kwargs": {...}}`; all but
                `input` are optional.
            queue: not built yet.
            concurrency_key: not built yet.
            session_id: see `run`.
            user_id: see `run`.
            initial_state: see `run`.
            run_timeout_seconds: see `stream`.
            deadlines: see `run`.
            budget: see `run`.
            request_id: see `run`.

        Raises:
            DefinitionError: `queue` or `concurrency_key` was given. Nothing was started.
            InvalidRequest: the payload is not a dict, has no input or an unknown key; or another
                argument is invalid. Nothing was started.
            CallError, ConnectionLost, RuntimeError: the run was not started; see `run`.

        """
        from polos_client.calls import running  # noqa: PLC0415
        from polos_client.calls.start import checked_payload  # noqa: PLC0415

        require_outside("agent.invoke", "ctx.step.agent_invoke")
        refuse("agent.invoke", {"queue": queue, "concurrency_key": concurrency_key})
        streaming = checked_payload(payload)
        start = self._start(
            client,
            payload["input"],
            initial_state=initial_state,
            session_id=session_id,
            user_id=user_id,
            run_timeout_seconds=run_timeout_seconds,
            deadlines=deadlines,
            budget=budget,
            request_id=request_id,
            provider_options=payload.get("provider_kwargs") or {},
        )
        return await running.invoke(client, start, streaming=streaming)

    def with_input(  # noqa: PLR0917 - the order of the original SDK
        self,
        input: Input,
        initial_state: State | None = None,
        session_id: str | None = None,
        user_id: str | None = None,
        streaming: bool = False,  # noqa: FBT001, FBT002
        run_timeout_seconds: float | None = None,
        **provider_kwargs: Any,
    ) -> AgentRunConfig:
        """Return this agent with an input, for `ctx.step.agent_invoke_and_wait` and batches.

        Args:
            input: the user's message, or a conversation.
            initial_state: what tools find in their context.
            session_id: groups runs, if `batch_agent_invoke` starts the run; an agent that a run
                starts has the session of that run.
            user_id: the user that the run is for, likewise.
            streaming: whether the run's stream has the agent's text as it is generated.
            run_timeout_seconds: how long it may take, from 0.001 s to 100 years; None: its own
                deadline.
            provider_kwargs: model parameters of this run.

        """
        return AgentRunConfig(
            self,
            input,
            initial_state,
            streaming or self.stream_to_workflow,
            run_timeout_seconds,
            provider_kwargs,
            session_id,
            user_id,
        )

    def _start(self, client: PolosClient, input: Input, **said: Any) -> Start:
        """Return the start of a run of this agent, once the client is ready for it."""
        from polos_client.calls import running  # noqa: PLC0415
        from polos_client.calls.start import Start, warn_of_session  # noqa: PLC0415

        if input is None:  # which is right for a workflow
            told = "must be a string or a list of messages, not NoneType"
            raise InvalidRequest({"input": told})
        warn_of_session(said["session_id"], stacklevel=4)
        start = Start(workflow_id=self.id, input=input, **said)
        running.prepare(client, self)
        return start
