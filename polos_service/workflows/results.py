"""Results of agents and workflows: as JSON text in the log, and as what the code gets of them."""

from __future__ import annotations

from collections.abc import Iterable
from json import JSONDecoder
from typing import Any

from polos.v1.error_pb2 import FailureReason
from polos.v1.event_pb2 import AgentFinish, Event, StepFinish, ToolCall, WorkflowFinish
from polos.v1.run_pb2 import ToolResult as ToolResultMessage
from polos_client.errors import ResultMismatch
from polos_client.event import parsed
from polos_client.fold import conclude, tool_result
from polos_client.result import AgentResult
from polos_client.typed import answered
from polos_service.errors import StepError
from polos_service.limits import OUTPUT_LIMIT
from polos_service.runs.attempt import StepOutput
from polos_service.runs.runnable import AGENT
from polos_service.runs.said import size_of
from polos_service.tools.values import decode
from polos_service.workflows.functions import MODELS

LEADING = '{"result":'
"""How a JSON object begins that `leading` makes."""

TOOLS_LIMIT = OUTPUT_LIMIT // 2
"""Bytes of tool results at most that stand in the result of an agent; the rest is left out."""


def output_of(run_id: str, end: Any, ended: Iterable[tuple[ToolCall, StepFinish]]) -> StepOutput:
    """Return the output of the step whose child ended well.

    `ended` are the child's calls of tools with what they returned.

    Raises:
        StepError: an agent's answer is larger than the output of a step.

    """
    if isinstance(end, WorkflowFinish):
        models = {"": end.result_schema} if end.result_schema else {}
        return StepOutput(result_json=end.result_json, private={MODELS: models} if models else {})
    if end.result_step_key:
        raise StepError(
            FailureReason.FAILURE_REASON_OUTPUT_TOO_LARGE,
            f"The answer of the agent exceeds {OUTPUT_LIMIT} bytes. It is in the events of "
            f"the child run {run_id}.",
        )
    return StepOutput(result_json=agent_json(run_id, end, ended))


def agent_json(
    run_id: str, end: AgentFinish, ended: Iterable[tuple[ToolCall, StepFinish | ToolResultMessage]]
) -> str:
    """Return the `AgentResult` of an agent whose run ended so as JSON text.

    `ended` are its calls of tools with what they returned: as many as there is room for.
    """
    outcome = Event(run_id=run_id, agent_finish=end)
    result = conclude(outcome, [], read=lambda text, _: text)
    room = min(TOOLS_LIMIT, OUTPUT_LIMIT - size_of(_written(result, end)))
    for call, finish in ended:
        tool = tool_result(call, finish, read=lambda text, _: parsed(text))
        room -= size_of(tool.model_dump_json()) + 1
        if room < 0:
            break
        result.tool_results.append(tool)
    return _written(result, end)


def _written(result: AgentResult, end: AgentFinish) -> str:
    if not end.result_is_json:
        return result.model_dump_json()
    return leading(end.result, result.model_dump_json(exclude={"result"}))


def value_of(kind: str, output: StepOutput, returned: Any = None) -> Any:
    """Return what a child's step gives to the code.

    `returned` is the type of an agent's answers, if it is known.

    Raises:
        StepError: the class of a model in it is not loaded.

    """
    text = output.result_json
    if kind != AGENT:
        return decode(text, output.private.get(MODELS, {}))
    result = AgentResult.model_validate_json(text)
    if (answer := result_in(text)) is not None:
        try:
            result.result = answered(answer, result.result_schema or "", returned)
        except ResultMismatch as error:
            raise StepError(FailureReason.FAILURE_REASON_CODE_MISSING, str(error)) from error
    return result


def leading(result: str, rest: str) -> str:
    """Return a JSON object, not empty, with a result in JSON before its other members.

    The text of the result stays as it is, so that its numbers stay exact. It comes first, so
    that `result_in` finds it.
    """
    return f"{LEADING}{result},{rest[1:]}"


def result_in(text: str) -> str | None:
    """Return the JSON text of the result in what `leading` has made; None if it has not."""
    if not text.startswith(LEADING):
        return None
    start = len(text) - len(text[len(LEADING) :].lstrip())  # models write line ends before JSON
    _, end = JSONDecoder().raw_decode(text, start)
    return text[start:end]
