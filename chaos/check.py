"""What is wrong with a run: what readers saw against its log, and the log against the plan."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence

from chaos.answered import EXPIRED, REJECTED, wrong_answers
from chaos.grown import GIVEN_UP, of_branch, parts_of, wrong_tree
from chaos.moves import wrong_moves
from chaos.places import Place
from chaos.questions import ASK_USER, tool_of
from chaos.story import Effect, Log, Story
from chaos.tree import FALLS_FOR_GOOD
from chaos.work import calls_of
from polos import TextChunk
from polos.v1.error_pb2 import FailureReason
from polos.v1.event_pb2 import Event, StepFinish, StepRetry, StepStart
from polos.v1.run_pb2 import RunState

COMPLETED = {
    "agent_finish": RunState.RUN_STATE_COMPLETED,
    "workflow_finish": RunState.RUN_STATE_COMPLETED,
}
"""The terminal events of a run that is to complete, and the state that it is in then."""

FAILED = {"error": RunState.RUN_STATE_FAILED}
"""That of a run that is to fail."""

CANCELLED = {"run_cancelled": RunState.RUN_STATE_CANCELLED}
"""That of a run that is cancelled."""

SHOWN = 12
"""Numbers that a finding tells at most."""

ONCE = ("once", "sign")
"""The tools that must not run twice."""

UNKNOWN = FailureReason.FAILURE_REASON_TOOL_OUTCOME_UNKNOWN
TOOL_FAILED = FailureReason.FAILURE_REASON_TOOL_FAILED


def wrong(
    story: Story, log: Log, effects: Mapping[str, Sequence[Effect]], asked: Counter[tuple[str, int]]
) -> Iterator[str]:
    """Yield what is wrong; nothing is, if nothing comes."""
    yield from story.problems
    if not story.done:
        last = log.events[-1].WhichOneof("payload") if log.events else "none"
        yield f"its log has {len(log.events)} events, the last is {last}; state {log.state}"
        return
    yield from log.problems
    yield from density(log)
    readers = {"the live reader": story.live, "the replay": story.replayed}
    if story.plan.hops:
        readers["the reader that comes and goes"] = story.hopped
    for who, seen in readers.items():
        yield from difference(who, seen, log.events)
    for run_id, seen in story.children.items():
        yield from difference(f"the reader of {run_id}", seen, of_branch(run_id, log.events))
    yield from ending(story, log)
    parts, strange = parts_of(story, log)
    yield from wrong_tree(story, parts, strange)
    for part in parts:
        found = wrong_part(part.story, part.log, effects, asked)
        yield from (part.name + one for one in found)
    if log.events[-1].HasField("agent_finish") and story.origin is None:
        yield from read(story, log)


def wrong_part(
    story: Story, log: Log, effects: Mapping[str, Sequence[Effect]], asked: Counter[tuple[str, int]]
) -> Iterator[str]:
    """Yield what is wrong with what one run of a tree did, the root or a child."""
    yield from attempts(log.events)
    yield from wrong_answers(story, log, effects)
    if story.plan.moves:
        yield from wrong_moves(story, log, effects)
    else:
        yield from words(story, log, asked)
        yield from tools(story, log, effects)


def density(log: Log) -> Iterator[str]:
    """Yield gaps, repetitions and disorder of the log itself."""
    numbers = [event.sequence for event in log.events]
    if numbers != list(range(1, len(numbers) + 1)):
        yield f"log: its events are numbered {shown(numbers)}"


def difference(who: str, seen: Sequence[Event], truth: Sequence[Event]) -> Iterator[str]:
    """Yield what a reader saw otherwise than the log has it."""
    numbers = [event.sequence for event in seen]
    if lost := sorted({event.sequence for event in truth} - set(numbers)):
        yield f"lost: {who} missed {shown(lost)}"
    if repeated := sorted(number for number, count in Counter(numbers).items() if count > 1):
        yield f"repeated: {who} saw {shown(repeated)} more than once"
    if numbers != sorted(numbers):
        yield f"reordered: {who} saw {shown(numbers)}"
    known = {event.sequence: event for event in truth}
    if altered := [event.sequence for event in seen if known.get(event.sequence) != event]:
        yield f"altered: {who} saw {shown(altered)} otherwise than the log has them"


def attempts(events: Sequence[Event]) -> Iterator[str]:
    """Yield steps that begin, speak or end out of their order."""
    current: dict[str, int] = {}
    finished: set[str] = set()
    given_up: set[str] = set()
    for event in events:
        kind = str(event.WhichOneof("payload"))
        payload = getattr(event, kind)
        if kind == "workflow_retry":
            finished -= given_up  # the code that starts over begins them anew
        if not hasattr(payload, "attempt") or kind == "workflow_retry":
            continue
        key, attempt = payload.step_key, payload.attempt
        if key in finished:
            yield f"twice: {kind} of {key} follows the end of that step"
        if attempt != current.get(key, 0) + (kind in {"step_start", "step_retry"}):
            yield f"text: {kind} of {key} is of attempt {attempt}, which was not announced"
        current[key] = attempt
        if kind == "step_finish":
            finished.add(key)
            (given_up.add if payload.failure.reason == GIVEN_UP else given_up.discard)(key)


def ending(story: Story, log: Log) -> Iterator[str]:
    """Yield what is wrong with the run's end."""
    terminals = [event.sequence for event in log.events if event.terminal]
    if terminals != [len(log.events)]:
        yield f"terminal: the events {shown(terminals)} of {len(log.events)} are terminal"
        return
    kind = str(log.events[-1].WhichOneof("payload"))
    planned = FAILED if story.plan.falls == FALLS_FOR_GOOD else COMPLETED
    if (planned | CANCELLED).get(kind) != log.state:
        yield f"state: the run ended with {kind} and is in state {log.state}: {log.events[-1]}"
    if kind == "run_cancelled" and story.plan.cancel is None:
        yield "state: the run was cancelled, and nobody had asked for that"
    raised = "RunCancelled" if kind == "run_cancelled" else ""
    if not story.plan.moves and story.origin is None and story.error != raised:
        yield f"state: the run ended with {kind}, and text() raised {story.error or 'nothing'}"


def words(story: Story, log: Log, asked: Counter[tuple[str, int]]) -> Iterator[str]:
    """Yield what is wrong with the run's text, from the model to its result."""
    finishes = {one.step_key: one for one in finishes_of(log.events)}
    texts = []
    for number, turn in enumerate(story.plan.turns, 1):
        finish = finishes.get(f"llm:{number}")
        if finish is None:
            continue
        if finish.HasField("failure"):
            if not was_given_up(story, finish):
                yield f"state: {finish.step_key} failed: {finish.failure}"
            continue
        requests = asked[story.plan.name, number]
        # A holder that lost its claim may ask the model once more before it notices. And a child
        # that was given up may begin anew when its parent starts over, under the same name.
        lost = story.faults[Place.STOLEN] or story.faults[Place.TAKEOVER]
        first = 1 if lost or story.plan.cancel is not None else requests
        content = json.loads(finish.result_json)["content"]
        if content not in [turn.text(number, one) for one in range(first, requests + 1)]:
            yield f"text: {finish.step_key} says {content!r}, asked {requests} times"
        if said(log.events, finish) != content:
            yield f"text: the deltas of {finish.step_key} do not make up its output"
        texts.append(content)
    end = log.events[-1].agent_finish
    if not log.events[-1].HasField("agent_finish"):
        return
    if len(texts) != len(story.plan.turns) or end.total_steps != len(texts):
        yield f"text: {len(texts)} model calls finished, of {len(story.plan.turns)}"
    if end.result != texts[-1]:
        yield f"text: the result is {end.result!r}"


def read(story: Story, log: Log) -> Iterator[str]:
    """Yield what is wrong with the text that readers got of a run that has completed."""
    ends = sorted(finishes_of(log.events), key=lambda one: one.step_key)
    told = [one.result_json for one in ends if one.step_type == "llm" and one.result_json]
    texts = [json.loads(one)["content"] for one in told]
    if story.text != "".join(texts):
        yield f"text: text() returned {story.text!r}, not {''.join(texts)!r}"
    if story.chunks is not None and kept(story.chunks) != "".join(texts):
        yield f"text: text_chunks add up to {kept(story.chunks)!r}, not {''.join(texts)!r}"


def tools(story: Story, log: Log, effects: Mapping[str, Sequence[Effect]]) -> Iterator[str]:
    """Yield tools that ran twice, or not at all."""
    finishes = {one.step_key: one for one in finishes_of(log.events) if one.step_type == "tool"}
    planned = calls_of(story.plan.turns)
    if log.events[-1].HasField("agent_finish") and set(finishes) != set(planned):
        yield f"lost: the tool steps {sorted(finishes)} have finished, not {sorted(planned)}"
    for key in planned:
        done = effects.get(f"{story.run_id}/{key}", [])
        yield from executions(key, done, log.events)
        if tool_of(key) in ONCE and len(done) > 1:
            yield f"twice: {key} must not, and ran {len(done)} times"
        if key in finishes:
            yield from outcome(story, finishes[key], done)


def executions(key: str, done: Sequence[Effect], events: Sequence[Event]) -> Iterator[str]:
    """Yield executions of a tool that no attempt before its end accounts for.

    They need not come in the order of their attempts: a holder that was stopped right before
    it called the tool calls it when it goes on, and learns only then that it lost its claim.
    """
    ran = [one.attempt for one in done]
    begun = {
        start.attempt
        for start in (getattr(event, str(event.WhichOneof("payload"))) for event in events)
        if isinstance(start, StepStart | StepRetry) and start.step_key == key
    }
    if len(ran) != len(set(ran)) or not begun.issuperset(ran):
        yield f"twice: {key} ran in the attempts {ran}, of which {sorted(begun)} were announced"


def outcome(story: Story, finish: StepFinish, done: Sequence[Effect]) -> Iterator[str]:
    """Yield what is wrong with how a tool step ended."""
    results = [one.execution for one in done if one.attempt == finish.attempt]
    name = tool_of(finish.step_key)
    if name == ASK_USER or finish.failure.reason in {REJECTED, EXPIRED}:
        return  # that is compared with the answer
    if was_given_up(story, finish):
        return
    if name == "break" and finish.failure.reason != TOOL_FAILED:
        yield f"state: {finish.step_key} must fail, and did not: {finish}"
    elif finish.HasField("failure"):
        interrupted = finish.attempt > 1 and name in ONCE and finish.failure.reason == UNKNOWN
        if name != "break" and not interrupted:
            yield f"state: {finish.step_key} failed: {finish.failure.message}"
    elif json.loads(finish.result_json) not in results:
        yield f"twice: {finish.step_key} ran again after it had finished, or never ran"


def was_given_up(story: Story, finish: StepFinish) -> bool:
    """Return whether a step ended because its run was cancelled, or given up by its parent."""
    return finish.failure.reason == GIVEN_UP and story.plan.cancel is not None


def finishes_of(events: Sequence[Event]) -> list[StepFinish]:
    """Return the ends of steps."""
    return [event.step_finish for event in events if event.HasField("step_finish")]


def said(events: Sequence[Event], finish: StepFinish) -> str:
    """Return what the deltas of the attempt that finished say."""
    deltas = [event.text_delta for event in events if event.HasField("text_delta")]
    mine = (finish.step_key, finish.attempt)
    return "".join(one.content for one in deltas if (one.step_key, one.attempt) == mine)


def kept(chunks: Sequence[TextChunk]) -> str:
    """Return what chunks add up to, resets applied."""
    texts: dict[str, str] = {}
    for chunk in chunks:
        texts[chunk.step_key] = "" if chunk.reset else texts.get(chunk.step_key, "") + chunk
    return "".join(texts.values())


def shown(numbers: Sequence[int]) -> str:
    """Return numbers, not all of them if they are many."""
    more = len(numbers) - SHOWN
    return f"{list(numbers[:SHOWN])}{f' and {more} more' if more > 0 else ''}"
