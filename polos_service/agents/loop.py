"""The agent loop: model call, tool calls, model call, ... each of them a durable step.

It is ordinary code. After a crash it runs again from its start, and each step that had
finished returns at once what the log holds.
"""

from __future__ import annotations

import asyncio
import json
from collections import Counter
from collections.abc import Sequence
from contextlib import nullcontext
from dataclasses import replace
from typing import cast

from polos.v1.error_pb2 import FailureReason
from polos.v1.event_pb2 import AgentFinish, FinishReason, ToolCall
from polos_client.define.agent import Agent
from polos_client.define.agent_tool import AgentTool
from polos_client.define.context import WorkflowContext
from polos_client.define.steps import NO_STEPS, Steps
from polos_client.define.stop import Step as Turn
from polos_client.define.stop import StopCondition, StopConditionContext
from polos_service.agents.answers import UNJUDGED, Answers, check_given, check_valid
from polos_service.agents.body import Body, ToolSteps, answer_in, input_of
from polos_service.agents.definition import Definition, PinnedTool, shown
from polos_service.agents.people import Decision, People
from polos_service.agents.telling import UNHEARD, WRONG, Telling
from polos_service.agents.turn import Outcome, answer_of, event_of, fitting, turn_of
from polos_service.errors import StepError, Unable
from polos_service.limits import OUTPUT_LIMIT
from polos_service.models import Model, ModelAnswer, ModelRequest, without_tools
from polos_service.models.messages import Call
from polos_service.runs.attempt import Attempt, StepOutput
from polos_service.runs.context import RunContext
from polos_service.runs.retries import Backoff
from polos_service.runs.runnable import AGENT
from polos_service.runs.said import size_of
from polos_service.sidethread import SMALL
from polos_service.tools.local import call_tool
from polos_service.tools.result import Returned
from polos_service.tools.stint import Limit, Stint
from polos_service.workflows.invocation import Invocation
from polos_service.workflows.means import Means
from polos_service.workflows.steps import WorkflowSteps

PARALLEL_TOOLS = 32
"""Tool calls of one run that work at once; each may hold a thread. Further ones have not begun.
Those that wait, for a person or in `ctx.step`, and agents do not count."""

MODEL_TRIES = 4
"""How often one model call is tried in all, as long as its failure is retryable."""


class AgentLoop:
    """One run of an agent."""

    def __init__(
        self, agent: Agent, model: Model, ctx: RunContext, definition: Definition, means: Means
    ) -> None:
        """Prepare a run of the definition, with the code that the agent has now.

        Raises:
            StepError: a stop condition or the output schema of the definition is no longer part
                of the agent.

        """
        self._names = {tool.name for tool in definition.tools}
        self._tools = {tool.id: tool for tool in agent.tools if tool.id in self._names}
        self._stops = definition.restore_stops(agent.stop_conditions)
        self._model = model
        self._ctx = ctx
        self._definition = definition
        self._means = means
        self._children = means.children(ctx, definition.session_id, definition.user_id)
        self._messages = definition.messages()
        self._turns: list[Turn] = []
        self._finished = 0
        self._uses: Counter[str] = Counter()
        # Each tool call gets a copy of its own: parsing JSON is much faster than copying objects.
        self._initial_state = json.dumps(definition.initial_state)
        self._places = asyncio.Semaphore(PARALLEL_TOOLS)
        approvals = {tool.name for tool in definition.tools if tool.approval}
        limit = definition.deadlines.tool_call
        self._answers = self._answers_of(agent)
        self._people = People(ctx, self._tools, approvals, limit, self._places)

    async def run(self) -> AgentFinish:
        """Run to the end and return the terminal event.

        Raises:
            StepError: a model call failed for good, or no answer conforms to the output schema.

        """
        self._ctx.start(self._definition.started())
        number = 0
        while True:
            number += 1
            key = f"llm:{number}"
            answer, output = await self._ask(key, number)
            if not answer.asks:
                return await self._conclude(key, number, answer, output)
            outcomes = await self._call_all(key, answer.calls)
            self._messages += [answer.message(), *(outcome.message() for outcome in outcomes)]
            with self._ctx.working():  # a run above may wait for something else meanwhile
                self._turns.append(await self._turn(number, answer, outcomes))
                stop = await self._stop()
            if stop is not None:
                if self._answers is not None:
                    key, answer, output = await self._demand(number + 1)
                    self._require(answer, output)
                reason = FinishReason.FINISH_REASON_STOP_CONDITION
                return self._finish(key, answer, reason, output, stop.name)

    def _answers_of(self, agent: Agent) -> Answers | None:
        """Return what judges the answers, if the run has an output schema."""
        pinned = self._definition.output
        if pinned is None:
            return None
        if agent.output is None:
            raise StepError(
                FailureReason.FAILURE_REASON_CODE_MISSING,
                f"The agent {agent.id!r} no longer has the output schema {pinned.name}.",
            )
        return Answers(agent.output, pinned, self._definition.deadlines.tool_call)

    async def _conclude(
        self, key: str, number: int, answer: ModelAnswer, output: StepOutput
    ) -> AgentFinish:
        """Return the terminal event; where the answer is invalid, ask for another one, once.

        Raises:
            StepError: there is no valid answer.

        """
        if self._answers is not None:
            check_given(answer)
            if output.invalid is not None:
                if answer.text:
                    self._messages.append(answer.message())
                key, answer, output = await self._demand(number + 1, output.private.get(WRONG, ""))
                self._require(answer, output)
        return self._finish(key, answer, answer.finish_reason, output)

    async def _demand(self, number: int, wrong: str = "") -> tuple[str, ModelAnswer, StepOutput]:
        """Ask for an answer of the output schema, without tools.

        Args:
            number: of the model call.
            wrong: what is wrong with the answer before; empty if there was none.

        Returns:
            The step's key, the answer, and the step's output.

        """
        assert self._answers is not None  # noqa: S101 - only such agents get here
        self._messages.append(self._answers.demand(wrong))
        key = f"llm:{number}"
        return key, *await self._ask(key, number, last=True)

    def _require(self, answer: ModelAnswer, output: StepOutput) -> None:
        """Check that the last answer is whole and valid.

        Raises:
            StepError: it is not.

        """
        check_given(answer)
        check_valid(output.invalid)

    async def _ask(
        self, key: str, number: int, *, last: bool = False
    ) -> tuple[ModelAnswer, StepOutput]:
        """Call the model; `last` if it has to answer now, without tools."""
        request = ModelRequest(
            model=self._definition.model,
            messages=self._messages,
            tools=[tool.offered() for tool in self._definition.tools if self._can_call(tool)],
            temperature=self._definition.temperature,
            max_output_tokens=self._definition.max_output_tokens,
            options=self._definition.options,
            settings=self._definition.settings,
            base_url=self._definition.base_url,
            api=self._definition.api,
            output=self._answers.form if self._answers else None,
            first_token=self._definition.deadlines.first_token,
            token_gap=self._definition.deadlines.token_gap,
            turn=number,
            agent_id=self._definition.agent_id,
        )
        if last:
            request = without_tools(request)
        output = await self._ctx.step(
            key,
            "llm",
            lambda attempt: self._answer(attempt, request, last=last),
            retries=Backoff(MODEL_TRIES),
            reserve=self._definition.max_output_tokens or 0,
        )
        self._finished += 1
        return answer_of(output), output

    def _can_call(self, tool: PinnedTool) -> bool:
        return not (tool.agent and self._ctx.children.are_too_deep)

    async def _answer(self, attempt: Attempt, request: ModelRequest, *, last: bool) -> StepOutput:
        self._check_price(request)
        streams = self._definition.streaming
        telling = Telling(attempt, request.turn)
        answer = await self._model.answer(
            replace(request, attempt=attempt.number), telling if streams else UNHEARD
        )
        try:
            answer = fitting(answer)
            judged = await self._answers.judge(answer, last=last) if self._answers else UNJUDGED
            return await telling.end(answer, streams=streams, judged=judged)
        except StepError as error:
            error.used(answer.usage, answer.cost)
            raise

    def _check_price(self, request: ModelRequest) -> None:
        """Refuse a call whose cost will not be known, where a budget bounds the cost.

        Raises:
            StepError: it is refused.

        """
        if self._ctx.budget.usd_micros is None:
            return
        priced = getattr(self._model, "priced", None)  # not every package derives from Model
        if priced is None or not priced(request.model, request.base_url):
            raise StepError(
                FailureReason.FAILURE_REASON_PRICE_UNKNOWN,
                f"The run has a budget of cost, and the price of the model "
                f"{shown(self._definition.provider, request.model)!r} of the provider "
                f"{self._definition.provider!r} is not known. Add it to the file POLOS_PRICES, "
                "or start a run with a budget of tokens.",
            )

    async def _call_all(self, step_key: str, calls: Sequence[Call]) -> list[Outcome]:
        """Make the calls that the model step with this key asks for."""
        keys = [self._key(call.name) for call in calls]
        async with asyncio.TaskGroup() as group:
            tasks = [
                group.create_task(
                    self._call(key, call, event_of(call, step_key, index)),
                    name=f"polos-tool-{key}",
                )
                for index, (key, call) in enumerate(zip(keys, calls, strict=True))
            ]
        return [task.result() for task in tasks]

    async def _call(self, key: str, call: Call, event: ToolCall) -> Outcome:
        decision = await self._people.decide(key, call, lambda: self._question(key, call))
        try:
            output = await self._step(key, call, event, decision)
        except StepError as error:
            return Outcome(call=call, error=error.message, note=decision.note)
        return Outcome(call=call, result_json=output.result_json, note=decision.note)

    async def _step(self, key: str, call: Call, event: ToolCall, decision: Decision) -> StepOutput:
        """Make a call in a step, once there is a place for it; an agent needs none.

        Raises:
            StepError: the call failed.

        """
        stint = Stint(self._places, self._ctx.working)
        is_agent = isinstance(self._tools.get(call.name), AgentTool)
        async with nullcontext() if is_agent else stint:
            return await self._ctx.step(
                key,
                "tool",
                lambda attempt: self._use(attempt, call, decision, stint),
                call=event,
                resumes=self._ctx.children.last(key) is not None,
                works=False,
            )

    async def _use(
        self, attempt: Attempt, call: Call, decision: Decision, stint: Stint
    ) -> StepOutput:
        if decision.refusal is not None:
            raise decision.refusal
        if decision.answer_json is not None:
            return StepOutput(result_json=decision.answer_json)
        tool = self._tools.get(call.name)
        if tool is None and self._ctx.children.recorded(attempt) is not None:
            raise Unable(
                f"The agent {self._definition.agent_id!r} has no tool {call.name!r} here. A child "
                "of this run executes it."
            )
        limit, approved = self._definition.deadlines.tool_call, decision.approved
        if isinstance(tool, AgentTool):
            with self._ctx.working():
                given = {"input": await input_of(tool, asked(call), limit, approved)}
            output, kind = await self._children.run(attempt, Invocation(tool.agent.id, given))
            return answer_in(output) if kind == AGENT else output
        await attempt.checkpoint()
        if tool is None:
            return StepOutput(result_json=await self._called(call, self._context(attempt.key)))
        body = Body(self._ctx, attempt, tool, self._steps_of, stint)
        context = self._context(attempt.key, attempt.number, cast("Steps", ToolSteps(body)))
        returned = await body.result(asked(call), context, limit, approved)
        return StepOutput(result_json=returned, result_schema=returned.schema)

    def _steps_of(self, ctx: RunContext) -> WorkflowSteps:
        return self._means.steps(ctx, self._definition.session_id, self._definition.user_id)

    async def _question(self, key: str, call: Call) -> str:
        """Return what a tool that asks shows to whoever answers, as JSON text."""
        return await self._called(call, self._context(key))

    async def _called(self, call: Call, context: WorkflowContext) -> Returned:
        limit = Limit(self._definition.deadlines.tool_call)
        return await call_tool(self._tools, asked(call), context, limit)

    def _context(self, key: str, attempt: int = 1, steps: Steps = NO_STEPS) -> WorkflowContext:
        return WorkflowContext(
            workflow_id=self._definition.agent_id,
            execution_id=self._ctx.run_id,
            parent_execution_id=self._ctx.parent_run_id,
            root_execution_id=self._ctx.root.run_id,
            root_workflow_id=self._ctx.root.workflow_id,
            session_id=self._definition.session_id,
            user_id=self._definition.user_id,
            step_key=key,
            attempt=attempt,
            idempotency_key=f"{self._ctx.run_id}/{key}",
            initial_state=json.loads(self._initial_state),
            step=steps,
        )

    def _key(self, name: str) -> str:
        # A name that a model made up cannot be a step key: it could be that of another step.
        tool = name if name in self._names else "unknown_tool"
        self._uses[tool] += 1
        uses = self._uses[tool]
        return tool if uses == 1 else f"{tool}:{uses}"

    async def _turn(self, number: int, answer: ModelAnswer, outcomes: Sequence[Outcome]) -> Turn:
        """Return the turn as stop conditions see it; arguments of megabytes take a while."""
        size = sum(len(call.arguments_json) for call in answer.calls)
        if size <= SMALL:
            return turn_of(number, answer, outcomes)
        return await asyncio.to_thread(turn_of, number, answer, outcomes)

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
        self,
        key: str,
        answer: ModelAnswer,
        reason: FinishReason.ValueType,
        output: StepOutput,
        stop: str = "",
    ) -> AgentFinish:
        text = answer.text
        fits = size_of(text) <= OUTPUT_LIMIT
        return AgentFinish(
            result=text if fits else "",
            result_step_key="" if fits else key,
            finish_reason=reason,
            stop_condition=stop,
            total_steps=self._finished,
            duration=self._ctx.age(),
            result_schema=output.result_schema,
            result_is_json=self._answers is not None,
            **self._ctx.totals.told(),
        )


def asked(call: Call) -> ToolCall:
    """Return what the model asked for, whole."""
    return ToolCall(id=call.id, name=call.name, arguments_json=call.arguments_json)
