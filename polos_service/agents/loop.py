"""The agent loop: model call, tool calls, model call, ... each of them a durable step.

It is ordinary code. After a crash it runs again from its start, and each step that had
finished returns at once what the log holds.
"""

from __future__ import annotations

import asyncio
import json
from collections import Counter
from collections.abc import Sequence
from dataclasses import replace

from polos.v1.event_pb2 import (
    AgentFinish,
    FinishReason,
    ReasoningDelta,
    TextDelta,
    ToolCallRequested,
)
from polos_client.define.agent import Agent
from polos_client.define.context import WorkflowContext
from polos_client.define.stop import Step as Turn
from polos_client.define.stop import StopCondition, StopConditionContext
from polos_service.agents.definition import Definition
from polos_service.agents.turn import Answer, Outcome, event_of, fitting, turn_of
from polos_service.errors import StepError
from polos_service.models import Model, ModelRequest
from polos_service.models.messages import Call
from polos_service.runs.attempt import Attempt, StepOutput
from polos_service.runs.context import RunContext
from polos_service.tools.local import call_tool

PARALLEL_TOOLS = 32
"""Tool calls of one run that work at once; each may hold a thread. Further ones have not begun."""

MODEL_TRIES = 4
"""How often one model call is tried in all, as long as its failure is retryable."""


class AgentLoop:
    """One run of an agent."""

    def __init__(self, agent: Agent, model: Model, ctx: RunContext, definition: Definition) -> None:
        """Prepare a run of the definition, with the code that the agent has now.

        Raises:
            StepError: a stop condition of the definition is no longer part of the agent.

        """
        self._names = {tool.name for tool in definition.tools}
        self._tools = {tool.id: tool for tool in agent.tools if tool.id in self._names}
        self._stops = definition.restore_stops(agent.stop_conditions)
        self._model = model
        self._ctx = ctx
        self._definition = definition
        self._messages = definition.messages()
        self._turns: list[Turn] = []
        self._uses: Counter[str] = Counter()
        # Each tool call gets a copy of its own: parsing JSON is much faster than copying objects.
        self._initial_state = json.dumps(definition.initial_state)
        self._places = asyncio.Semaphore(PARALLEL_TOOLS)

    async def run(self) -> AgentFinish:
        """Run to the end and return the terminal event.

        Raises:
            StepError: a model call failed for good.

        """
        self._ctx.start(self._definition.started())
        number = 0
        while True:
            number += 1
            answer = await self._ask(number)
            if not answer.asks:
                return self._finish(answer, answer.finish_reason)
            outcomes = await self._call_all(answer.calls)
            self._messages += [answer.message(), *(outcome.message() for outcome in outcomes)]
            self._turns.append(turn_of(number, answer, outcomes))
            stop = await self._stop()
            if stop is not None:
                return self._finish(answer, FinishReason.FINISH_REASON_STOP_CONDITION, stop.name)

    async def _ask(self, number: int) -> Answer:
        request = ModelRequest(
            model=self._definition.model,
            messages=self._messages,
            tools=[tool.model_dump() for tool in self._definition.tools],
            temperature=self._definition.temperature,
            max_output_tokens=self._definition.max_output_tokens,
            options=self._definition.options,
            settings=self._definition.settings,
            base_url=self._definition.base_url,
            api=self._definition.api,
            first_token=self._definition.deadlines.first_token,
            token_gap=self._definition.deadlines.token_gap,
            turn=number,
        )
        output = await self._ctx.step(
            f"llm:{number}",
            "llm",
            lambda attempt: self._answer(attempt, request),
            tries=MODEL_TRIES,
        )
        return Answer.of(output)

    async def _answer(self, attempt: Attempt, request: ModelRequest) -> StepOutput:
        key, turn, number = attempt.key, request.turn, attempt.number

        streaming = self._definition.streaming
        output = Telling(attempt, turn) if streaming else UNHEARD
        answer = fitting(await self._model.answer(replace(request, attempt=number), output))
        if streaming and answer.finish_reason == FinishReason.FINISH_REASON_TOOL_CALLS:
            for call in answer.calls:
                await attempt.emit(
                    ToolCallRequested(
                        tool_call=event_of(call), step_key=key, step=turn, attempt=number
                    )
                )
        return Answer.record(answer)

    async def _call_all(self, calls: Sequence[Call]) -> list[Outcome]:
        keys = [self._key(call.name) for call in calls]
        async with asyncio.TaskGroup() as group:
            tasks = [
                group.create_task(self._call(key, call), name=f"polos-tool-{key}")
                for key, call in zip(keys, calls, strict=True)
            ]
        return [task.result() for task in tasks]

    async def _call(self, key: str, call: Call) -> Outcome:
        try:
            async with self._places:
                output = await self._ctx.step(
                    key, "tool", lambda attempt: self._use(attempt, call), call=event_of(call)
                )
        except StepError as error:
            return Outcome(call=call, error=error.message)
        return Outcome(call=call, result_json=output.result_json)

    async def _use(self, attempt: Attempt, call: Call) -> StepOutput:
        await attempt.checkpoint()
        context = WorkflowContext(
            workflow_id=self._definition.agent_id,
            execution_id=self._ctx.run_id,
            session_id=self._definition.session_id,
            user_id=self._definition.user_id,
            step_key=attempt.key,
            attempt=attempt.number,
            idempotency_key=f"{self._ctx.run_id}/{attempt.key}",
            initial_state=json.loads(self._initial_state),
        )
        limit = self._definition.deadlines.tool_call
        return StepOutput(result_json=await call_tool(self._tools, event_of(call), context, limit))

    def _key(self, name: str) -> str:
        # A name that a model made up cannot be a step key: it could be that of another step.
        tool = name if name in self._names else "unknown_tool"
        self._uses[tool] += 1
        uses = self._uses[tool]
        return tool if uses == 1 else f"{tool}:{uses}"

    async def _stop(self) -> StopCondition | None:
        """Return the first stop condition that holds, if any does."""
        context = StopConditionContext(
            steps=self._turns,
            agent_id=self._definition.agent_id,
            agent_run_id=self._ctx.run_id,
        )
        for stop in self._stops:
            if await stop.holds(context):
                return stop
        return None

    def _finish(
        self, answer: Answer, reason: FinishReason.ValueType, stop: str = ""
    ) -> AgentFinish:
        return AgentFinish(
            result=answer.text,
            usage=self._ctx.totals.usage,
            cost=self._ctx.totals.cost,
            finish_reason=reason,
            stop_condition=stop,
            total_steps=self._ctx.totals.steps,
            duration=self._ctx.age(),
        )


class Telling:
    """Tells the readers of a run what a model says, while it says it."""

    def __init__(self, attempt: Attempt, turn: int) -> None:
        self._attempt = attempt
        self._key = attempt.key
        self._number = attempt.number
        self._turn = turn

    async def text(self, piece: str) -> None:
        """Emit a piece of the text."""
        await self._attempt.emit(
            TextDelta(content=piece, step_key=self._key, step=self._turn, attempt=self._number)
        )

    async def reasoning(self, piece: str) -> None:
        """Emit a piece of the reasoning."""
        await self._attempt.emit(
            ReasoningDelta(content=piece, step_key=self._key, step=self._turn, attempt=self._number)
        )


class Unheard:
    """Drops what a model says: the run does not stream."""

    async def text(self, piece: str) -> None:
        """Drop a piece of the text."""

    async def reasoning(self, piece: str) -> None:
        """Drop a piece of the reasoning."""


UNHEARD = Unheard()
