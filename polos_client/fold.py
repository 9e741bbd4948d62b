"""RunAccumulator: a run's text and result, from its events. Pure: it reads nothing."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Sequence
from typing import Any, Literal

from polos.v1 import event_pb2 as pb
from polos.v1.error_pb2 import FAILURE_REASON_RUN_TIMEOUT
from polos.v1.run_pb2 import ToolResult as ToolResultMessage
from polos_client.errors import ResultMismatch, RunCancelled, RunError, RunFailed, RunTimeout
from polos_client.event import (
    dollars,
    failure_reason,
    parsed,
    result_fields,
    seconds,
    usage_fields,
)
from polos_client.result import AgentResult, ToolResult, Usage
from polos_client.typed import answered, typed


class RunAccumulator:
    """Folds a log whose events are added in order: to what one run of it says and does.

    Text, tools and tokens are the run's own. Events of the runs that its steps began are
    passed over, whether they stand or are void.

    Attributes:
        is_typed: whether the agent has an output schema; None until its run has begun.
        outcome: the terminal event, of the root where a child has none; None until it was added.
        sequence: that of the last event that was added; 0 before the first.

    """

    def __init__(self, run_id: str) -> None:
        """Begin to fold the events of the run `run_id`."""
        self.is_typed: bool | None = None
        self.outcome: pb.Event | None = None
        self.sequence = 0
        self._run_id = run_id
        self._texts: defaultdict[str, list[str]] = defaultdict(list)
        self._attempts: dict[str, int] = {}
        self._calls: dict[str, pb.ToolCall] = {}
        self._arguments: defaultdict[str, defaultdict[int, list[str]]] = defaultdict(
            lambda: defaultdict(list)
        )
        """Of the calls whose arguments exceed an event: the pieces, by step and call."""
        self._tools: list[pb.StepFinish] = []
        self._usages: list[pb.Usage] = []

    def add(self, events: Sequence[pb.Event]) -> None:
        """Take the next events, at least one; a kind that is not known is passed over."""
        for event in events:
            if event.run_id != self._run_id:
                continue
            if not event.HasField("text_delta"):
                self._take(event)
                continue
            delta = event.text_delta  # nearly all are such: a call for each would show
            key = delta.step_key
            if delta.attempt >= self._attempts.get(key, 1):
                self._texts[key].append(delta.content)
        last = events[-1]
        self.sequence = last.sequence
        if last.terminal:
            self.outcome = last

    def _take(self, event: pb.Event) -> None:
        kind = event.WhichOneof("payload")
        if kind == "step_start":
            self._start(event.step_start)
        elif kind == "step_retry":
            self._retry(event.step_retry)
        elif kind == "step_finish":
            self._finish(event.step_finish)
        elif kind == "agent_start":
            self.is_typed = bool(event.agent_start.output_schema_name)
        elif kind == "tool_call_delta":
            piece = event.tool_call_delta
            if piece.attempt >= self._attempts.get(piece.step_key, 1):
                self._arguments[piece.step_key][piece.call].append(piece.content)

    @property
    def text(self) -> str:
        """What the agent has said in all its model calls, in order, without what is void.

        Of an agent with an output schema: the JSON text of its answer.
        """
        return "".join(piece for pieces in self._texts.values() for piece in pieces)

    @property
    def pieces(self) -> Sequence[str]:
        """The text of the last model call that has one, in pieces.

        It is the same list as before if the text has only grown.
        """
        return next(reversed(self._texts.values()), ())

    @property
    def tool_results(self) -> list[ToolResult]:
        """The calls of tools that have ended, in the order in which they did."""
        return [tool_result(self._call(step), step) for step in self._tools]

    @property
    def usage(self) -> Usage:
        """The tokens: of the terminal event if there is one, else of the finished calls."""
        own = self.outcome is not None and self.outcome.run_id == self._run_id
        told = outcome_usage(self.outcome) if own and self.outcome else None
        return told or total(self._usages)

    def takes_back(self, step: pb.StepFinish) -> bool:
        """Return whether the text of a model call that has ended is not part of the answer.

        Of an agent with an output schema only the answer itself is.
        """
        asks = step.finish_reason == pb.FinishReason.FINISH_REASON_TOOL_CALLS
        return step.HasField("invalid_output") or (bool(self.is_typed) and asks)

    def result(self, output: Any = None) -> AgentResult:
        """Return the result.

        `output` is the type of the agent's answers, if it is known.

        Raises:
            RunFailed: the run failed.
            RunCancelled: it was cancelled.
            RunTimeout: it took longer than it was given.
            ResultMismatch: the result is of a class that this process does not have.
            ValueError: it has not ended.

        """
        return self.conclude(lambda text, schema: answered(text, schema, output))

    def conclude(self, read: Callable[[str, str], Any]) -> AgentResult:
        """Return the result, as `conclude` does with `read`; raise what `result` raises."""
        outcome = self.check()
        key = outcome.agent_finish.result_step_key
        text = "".join(self._texts[key]) if key else None
        return conclude(outcome, self.tool_results, long_result=text, read=read)

    def check(self) -> pb.Event:
        """Return the terminal event of a run that ended well.

        Raises:
            RunFailed, RunCancelled, RunTimeout: it did not.
            ValueError: it has not ended.

        """
        if self.outcome is None:
            raise ValueError("the run has not ended: there is no result yet")
        outcome = self.outcome
        if outcome.run_id != self._run_id:
            outcome = _taken(outcome, self._run_id)
        check(outcome, text=self.text, usage=self.usage)
        return outcome

    def _call(self, step: pb.StepFinish) -> pb.ToolCall:
        """Return the call that a step has made, with its arguments, however long."""
        call = self._calls.get(step.step_key, step.tool_call)
        if not call.HasField("long_arguments"):
            return call
        where = call.long_arguments
        arguments = "".join(self._arguments[where.step_key][where.call])
        return pb.ToolCall(id=call.id, name=call.name, arguments_json=arguments)

    def _start(self, step: pb.StepStart) -> None:
        if step.HasField("tool_call"):
            self._calls[step.step_key] = step.tool_call

    def _retry(self, retry: pb.StepRetry) -> None:
        self._attempts[retry.step_key] = retry.attempt
        self._texts.pop(retry.step_key, None)
        self._arguments.pop(retry.step_key, None)

    def _finish(self, step: pb.StepFinish) -> None:
        if step.step_type == "tool":
            self._tools.append(step)
        elif self.takes_back(step):
            self._texts.pop(step.step_key, None)
        elif step.step_type == "llm" and step.WhichOneof("outcome") == "result_json":
            # It has the whole answer, unless that exceeds an event: the deltas have it then.
            self._texts[step.step_key] = [_content(step.result_json)]
        if step.HasField("usage") and not step.HasField("failure"):
            self._usages.append(step.usage)


class Voids:
    """Tells which runs of a log are void because the step that began them begins anew.

    A `step_retry` voids every child that an earlier attempt of the step began, with all
    descendants of that child. What the earlier attempt itself said is for the reader to drop.
    """

    def __init__(self) -> None:
        """Begin before the first event."""
        self._attempts: dict[tuple[str, str], int] = {}
        self._origins: dict[str, pb.Event] = {}
        self._void: set[str] = set()

    def add(self, event: pb.Event) -> None:
        """Take the log's next event into account."""
        if event.HasField("parent_run_id") and event.run_id not in self._origins:
            self._origins[event.run_id] = event
            self._judge(event)
        if event.HasField("step_retry"):
            retry = event.step_retry
            self._attempts[event.run_id, retry.step_key] = retry.attempt
            for origin in self._origins.values():  # a run begins before its children
                self._judge(origin)

    def void(self, run_id: str) -> bool:
        """Return whether a run is void, as far as the events so far tell."""
        return run_id in self._void

    def _judge(self, first: pb.Event) -> None:
        """Note that a run is void, by the run's first event."""
        step = first.parent_run_id, first.parent_step_key
        if step[0] in self._void or first.parent_attempt < self._attempts.get(step, 1):
            self._void.add(first.run_id)


def tool_result(
    call: pb.ToolCall,
    ended: pb.StepFinish | ToolResultMessage,
    read: Callable[[str, str], Any] | None = None,
) -> ToolResult:
    """Return how a call of a tool ended, as `ended` says.

    `read` returns what JSON text stands for; given the name of its class. None: an instance of
    that class, if this process has it.
    """
    failed = ended.WhichOneof("outcome") == "failure"
    schema = ended.result_schema
    return ToolResult(
        tool_name=call.name,
        status="failed" if failed else "completed",
        input=parsed(call.arguments_json or "{}"),
        result=None if failed else (read or _returned)(ended.result_json, schema),
        error=ended.failure.message if failed else None,
        tool_call_id=call.id,
        result_schema=schema or None,
    )


def _returned(text: str, schema: str) -> Any:
    """Return what a tool returned: of the class that it was of, if this process has that."""
    try:
        return typed(text, schema) if schema else parsed(text)
    except (ResultMismatch, ValueError):
        return parsed(text)


def conclude(
    outcome: pb.Event,
    tool_results: list[ToolResult],
    *,
    long_result: str | None = None,
    read: Callable[[str, str], Any] = answered,
) -> AgentResult:
    """Return the result of the run that `outcome` ended well: see `check`.

    Args:
        outcome: the run's terminal event.
        tool_results: for the result.
        long_result: the text of the last model call, if it exceeds the terminal event.
        read: returns what the JSON text of an answer stands for; given the name of its class.

    Raises:
        ResultMismatch: the answer is of a class that this process does not have.

    """
    if outcome.HasField("workflow_finish"):
        return _workflow_result(outcome, tool_results)
    finish = outcome.agent_finish
    result: Any = finish.result if long_result is None else long_result
    fields = result_fields(outcome)
    fields.pop("result_step_key", None)
    if finish.result_is_json:
        result = read(result, finish.result_schema)
    return AgentResult(tool_results=tool_results, **{**fields, "result": result})


def check(outcome: pb.Event, *, text: str, usage: Usage) -> None:
    """Check that the run that `outcome` ended has a result.

    Args:
        outcome: the run's terminal event.
        text: what the agent had said, for the error.
        usage: the tokens that were used, for the error.

    Raises:
        RunFailed: the run failed, or ended in a way that a later version added.
        RunCancelled: it was cancelled.
        RunTimeout: it took longer than it was given.

    """
    kind = outcome.WhichOneof("payload")
    if kind not in ("agent_finish", "workflow_finish"):
        raise _run_error(outcome, kind, text, usage)


def outcome_usage(outcome: pb.Event, name: Literal["usage", "spent"] = "usage") -> Usage | None:
    """Return the tokens that a terminal event tells, or those spent; None if it tells none."""
    kind = outcome.WhichOneof("payload")
    if kind not in ("agent_finish", "workflow_finish", "error", "run_cancelled"):
        return None
    payload = getattr(outcome, kind)
    return Usage(**usage_fields(getattr(payload, name))) if payload.HasField(name) else None


def total(usages: list[pb.Usage]) -> Usage:
    """Return the sum; a kind of token that no summand tells stays unknown."""
    sums: dict[str, int] = {}
    for one in usages:
        for name, count in usage_fields(one).items():
            sums[name] = sums.get(name, 0) + count
    return Usage(**sums)


def _taken(outcome: pb.Event, run_id: str) -> pb.Event:
    """Return how a child has ended that has no end of its own: as its root, but without a result.

    `outcome` is the event that ended the root.
    """
    taken = pb.Event(run_id=run_id, workflow_id=outcome.workflow_id)
    if outcome.HasField("error"):
        taken.error.CopyFrom(outcome.error)
    else:
        taken.run_cancelled.SetInParent()
    return taken


def _content(result_json: str) -> str:
    """Return the text of a model call's output."""
    result: Any = parsed(result_json)
    content = result.get("content") if isinstance(result, dict) else None
    return content if isinstance(content, str) else ""


def _workflow_result(outcome: pb.Event, tool_results: list[ToolResult]) -> AgentResult:
    finish = outcome.workflow_finish
    return AgentResult(
        **_told_spent(finish),
        agent_run_id=outcome.run_id,
        result=parsed(finish.result_json),
        result_schema=finish.result_schema or None,
        tool_results=tool_results,
        usage=outcome_usage(outcome) or Usage(),
        duration=seconds(finish.duration) if finish.HasField("duration") else None,
    )


def _told_spent(finish: pb.WorkflowFinish) -> dict[str, Any]:
    """Return what a workflow has spent, as far as the service tells it, for `AgentResult`."""
    told: dict[str, Any] = {}
    if finish.HasField("cost"):
        told["cost"] = dollars(finish.cost)
    if finish.HasField("spent"):
        told["spent"] = Usage(**usage_fields(finish.spent))
    if finish.HasField("spent_cost"):
        told["spent_cost"] = dollars(finish.spent_cost)
    return told


def _run_error(outcome: pb.Event, kind: str | None, text: str, usage: Usage) -> RunError:
    run_id = outcome.run_id
    spent = outcome_usage(outcome, "spent")
    if kind == "run_cancelled":
        return RunCancelled(
            f"run {run_id} was cancelled",
            run_id=run_id,
            reason="cancelled",
            text=text,
            usage=usage,
            spent=spent,
        )
    if kind != "error":
        return RunFailed(
            f"run {run_id} ended with an event that this client does not know; update it",
            run_id=run_id,
            reason="unknown",
            text=text,
            usage=usage,
        )
    error = outcome.error
    cls = RunTimeout if error.reason == FAILURE_REASON_RUN_TIMEOUT else RunFailed
    return cls(
        error.message,
        run_id=run_id,
        reason=failure_reason(error.reason),
        retryable=error.retryable,
        text=text,
        usage=usage,
        spent=spent,
        error_id=error.error_id or None,
    )
