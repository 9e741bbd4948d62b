"""An answer of megabytes is recorded in parts, and read back whole, whatever happens meanwhile."""

from __future__ import annotations

import asyncio
import importlib.util
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from polos.v1.event_pb2 import Event
from polos_client.define.agent import Agent
from polos_client.define.context import WorkflowContext
from polos_client.define.stop import StopConditionContext, stop_condition
from polos_client.define.tool import Tool, tool
from polos_client.fold import RunAccumulator
from polos_service.limits import PIECE_LIMIT
from polos_service.models import ModelAnswer, ModelRequest, Output
from polos_service.models.messages import Reasoning, Text, reasoning_of
from polos_service.store import ENDED, Claim, Entry, Frame, RunStore
from polos_service.store.sqlite import SqliteStore
from tests.support.agents import catalog, started
from tests.support.long import (
    DONE,
    LONG,
    STOP,
    Talker,
    answers,
    assert_bounded,
    filler,
    size_of,
    texts,
    thoughts,
)
from tests.support.runs import executing, kinds
from tests.support.stores import HeldStore, all_events, events_of, soon, until

OLD_FOLD = Path(__file__).parents[1] / "data" / "fold_0_1_0.py"
"""The fold of version 0.1.0's client."""

KINDS = list(answers())


def old_fold() -> ModuleType:
    spec = importlib.util.spec_from_file_location("fold_0_1_0", OLD_FOLD)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def using(begun: asyncio.Event | None = None) -> Tool:
    """Return a tool that never returns the first time if it is told to tell that it has begun."""

    @tool(id="use")
    async def use(ctx: WorkflowContext, text: str) -> int:
        if begun is not None and ctx.attempt == 1:
            begun.set()
            await asyncio.Event().wait()
        return len(text)

    return use


def agent(*tools: Tool, **more: Any) -> Agent:
    return Agent("a", "scripted", "mock", tools=tools, **more)


async def log(store: RunStore, agent: Agent, model: Talker, *, streaming: bool) -> list[Event]:
    """Run an agent to its end; return its events, and check what is stored."""
    agents = catalog(agent, model=model)
    async with executing(store, agents):
        run_id = await started(store, agents, streaming=streaming)
        return await all_events(store, run_id)


def folded(events: list[Event]) -> RunAccumulator:
    run = RunAccumulator(events[0].run_id)
    for event in events:
        run.add([event])
    return run


def folded_by_0_1_0(events: list[Event]) -> Any:
    run = old_fold().RunAccumulator()
    for event in events:
        run.add([event])
    return run


@pytest.mark.parametrize("streaming", [True, False], ids=["streaming", "silent"])
@pytest.mark.parametrize("kind", KINDS)
async def test_it_runs_to_its_end_and_readers_put_it_together(
    store: RunStore, kind: str, *, streaming: bool
) -> None:
    answer = answers()[kind]
    model = Talker(answer)
    events = await log(store, agent(using()), model, streaming=streaming)
    assert model.conversation[-1 - len(answer.calls)].parts == tuple(answer.parts)
    run = folded(events)
    assert run.text == answer.text + "Done."
    result = run.result()
    assert result.result == "Done."
    assert sorted(len(one.input["text"]) for one in result.tool_results) == sorted(
        one.result for one in result.tool_results
    )
    assert len(result.tool_results) == len(answer.calls)
    assert max(event.ByteSize() for event in events) <= PIECE_LIMIT + 16 * 1024
    assert folded_by_0_1_0(events).text == run.text
    again = folded(await events_of(store, events[0].run_id))
    assert again.result() == result


@pytest.mark.parametrize("streaming", [True, False], ids=["streaming", "silent"])
async def test_a_result_of_megabytes_is_that_of_its_step(
    store: RunStore, *, streaming: bool
) -> None:
    answer = ModelAnswer(parts=[Text(text=filler(LONG))], finish_reason=STOP)
    events = await log(store, agent(), Talker(answer), streaming=streaming)
    assert events[-1].agent_finish.result_step_key == "llm:1"
    assert not events[-1].agent_finish.result
    assert events[-2].step_finish.long_answer.text_bytes == len(answer.text.encode())
    assert folded(events).result().result == answer.text
    assert folded_by_0_1_0(events).text == answer.text


@pytest.mark.parametrize("streaming", [True, False], ids=["streaming", "silent"])
@pytest.mark.parametrize("kind", KINDS)
async def test_taken_up_before_a_tool_ends_the_model_is_told_the_same_bytes(
    store: RunStore, kind: str, *, streaming: bool
) -> None:
    answer, begun = answers()[kind], asyncio.Event()
    run_id = await interrupted(store, Talker(answer), begun, streaming=streaming)
    model = Talker(answer)
    events = await resumed(store, run_id, model)
    assert [request.turn for request in model.requests] == [2]
    said = model.conversation[-1 - len(answer.calls)]
    assert (said.parts, said.state) == (tuple(answer.parts), answer.state)
    assert folded(events).text == answer.text + "Done."


async def interrupted(
    store: RunStore, model: Talker, begun: asyncio.Event, *, streaming: bool = True
) -> str:
    """Run an agent until its tool works, then let go of the run."""
    agents = catalog(agent(using(begun)), model=model)
    async with executing(store, agents):
        run_id = await started(store, agents, streaming=streaming)
        await soon(begun.wait())
    return run_id


async def resumed(store: RunStore, run_id: str, model: Talker) -> list[Event]:
    async with executing(store, catalog(agent(using()), model=model)):
        return await all_events(store, run_id)


@pytest.mark.parametrize("kind", ["text", "reasoning"])
async def test_an_answer_that_is_cut_off_is_void(store: RunStore, kind: str) -> None:
    answer = answers()[kind]
    cut = Talker(answer, stop_after=20)
    agents = catalog(agent(using()), model=cut)
    async with executing(store, agents):
        run_id = await started(store, agents)
        await soon(cut.stuck.wait())
    whole = Talker(answer)
    events = await resumed(store, run_id, whole)
    assert "step_retry llm:1/2" in kinds(events)
    assert len(texts(events) if kind == "text" else thoughts(events)) > 60
    assert folded(events).text == answer.text + "Done."
    assert whole.conversation[-2].parts == tuple(answer.parts)


async def test_text_that_is_not_part_of_a_long_answer_is_a_defect(store: RunStore) -> None:
    text = filler(LONG)

    class Mistaken(Talker):
        async def answer(self, request: ModelRequest, output: Output) -> ModelAnswer:
            await super().answer(request, output)
            return ModelAnswer(parts=[Text(text=text[:-1])], finish_reason=STOP)

    model = Mistaken(ModelAnswer(parts=[Text(text=text)], finish_reason=STOP))
    events = await log(store, agent(), model, streaming=True)
    assert events[-1].error.message.endswith(f"but {len(text)} were streamed.")


@pytest.mark.parametrize("kind", ["text", "reasoning"])
async def test_a_piece_that_exceeds_an_event_is_cut(store: RunStore, kind: str) -> None:
    answer = answers()[kind]
    events = await log(store, agent(using()), Talker(answer, piece=LONG), streaming=True)
    assert "".join(texts(events)) == answer.text + "Done."
    assert "".join(thoughts(events)) == reasoning_of(answer.parts)


async def test_what_a_provider_keeps_back_of_a_long_text_is_told_at_the_end(
    store: RunStore,
) -> None:
    text = filler(LONG)

    class Late(Talker):
        async def answer(self, request: ModelRequest, output: Output) -> ModelAnswer:
            answer = await super().answer(request, output)
            return ModelAnswer(parts=[*answer.parts, Text(text="\ufffd")], finish_reason=STOP)

    model = Late(ModelAnswer(parts=[Text(text=text)], finish_reason=STOP))
    events = await log(store, agent(), model, streaming=True)
    assert folded(events).result().result == text + "\ufffd"


async def test_reasoning_that_readers_heard_otherwise_is_kept_as_it_goes_back(
    store: RunStore,
) -> None:
    """Some providers tell a summary, and sign something else."""
    said = Reasoning(text="What was signed. " * 50_000, state={"mock": {"signature": "s"}})

    class Summing(Talker):
        async def answer(self, request: ModelRequest, output: Output) -> ModelAnswer:
            await output.reasoning("A summary.")
            self.requests.append(request)
            return self.first if request.turn == 1 else DONE

    text = answers()["text"]
    answer = ModelAnswer(parts=[said, *text.calls], finish_reason=text.finish_reason)
    run_id = await interrupted(store, Summing(answer), asyncio.Event())
    model = Summing(answer)
    await resumed(store, run_id, model)
    assert model.conversation[-2].parts == tuple(answer.parts)


async def test_stop_conditions_see_the_whole_answer(store: RunStore) -> None:
    seen: list[tuple[int, list[int]]] = []

    @stop_condition
    def look(ctx: StopConditionContext) -> bool:
        step = ctx.steps[-1]
        seen.append(
            (len(step.content or ""), [len(one.function.arguments) for one in step.tool_calls])
        )
        return True

    answer = answers()["all"]
    events = await log(
        store, agent(using(), stop_conditions=[look]), Talker(answer), streaming=True
    )
    assert seen == [(len(answer.text), [len(one.arguments_json) for one in answer.calls])]
    assert events[-1].agent_finish.stop_condition == "look"
    assert folded(events).result().result == answer.text


@pytest.mark.parametrize("streaming", [True, False], ids=["streaming", "silent"])
@pytest.mark.parametrize("kind", KINDS)
async def test_nothing_is_stored_twice_and_all_of_it_is_small(
    tmp_path: Path, kind: str, *, streaming: bool
) -> None:
    store = await KeepingStore.open(tmp_path / "runs.db")
    try:
        await log(store, agent(using()), Talker(answers()[kind]), streaming=streaming)
    finally:
        await store.close()
    assert_bounded(store.kept, size_of(answers()[kind]))


class KeepingStore(SqliteStore):
    """The real store; `kept` is all that was appended."""

    def __init__(self, *args: Any) -> None:
        super().__init__(*args)
        self.kept: list[Entry] = []

    @classmethod
    async def open(cls, path: Path, *settings: Any) -> KeepingStore:
        store = await super().open(path, *settings)
        assert isinstance(store, KeepingStore)
        return store

    def append(self, claim: Claim, frame: Frame, private: bytes = b"") -> asyncio.Future[None]:
        self.kept.append(Entry(data=frame.data, private=private))
        return super().append(claim, frame, private)


@pytest.mark.parametrize("streaming", [True, False], ids=["streaming", "silent"])
@pytest.mark.parametrize("kind", ["all", "state"])
async def test_wherever_it_crashes_the_answer_is_whole_or_void(
    tmp_path: Path, kind: str, *, streaming: bool
) -> None:
    answer, crashes = answers()[kind], 0
    for appends in range(2, 42, 5):
        path = tmp_path / f"{appends}.db"
        run_id = await crashed(path, answer, appends, streaming=streaming)
        store = await SqliteStore.open(path)
        try:
            crashes += (await store.get("default", run_id)).state not in ENDED
            model = Talker(answer)
            events = await resumed(store, run_id, model)
        finally:
            await store.close()
        assert folded(events).text == answer.text + "Done."
        assert len(folded(events).result().tool_results) == len(answer.calls)
        if model.requests:
            assert model.conversation[-1 - len(answer.calls)].parts == tuple(answer.parts)
    assert crashes > 2


async def crashed(path: Path, answer: ModelAnswer, appends: int, *, streaming: bool) -> str:
    """Run an agent for so many appends at most, and no further."""
    store = await HeldStore.open(path)
    store.allow(appends)
    agents = catalog(agent(using()), model=Talker(answer))
    try:
        async with executing(store, agents):
            run_id = await started(store, agents, streaming=streaming)
            await until(
                lambda: len(store.asked) > appends or any(one.outcome for one in store.asked)
            )
        return run_id
    finally:
        await store.close()
