"""Invariants 5 to 9: runs, calls, steps and the model's pace."""

from __future__ import annotations

import asyncio
from pathlib import Path

import grpc
import pytest

from polos.v1 import run_service_pb2 as pb
from polos.v1.error_pb2 import FailureReason
from polos.v1.event_pb2 import Event
from polos.v1.run_pb2 import RunState
from polos_client.define.agent import Agent
from polos_client.define.scripted import call, cut, fail, say, turn
from polos_service.runs.writer import BACKLOG_LIMIT
from polos_service.server import Service
from tests.support.control import Gate, HeldCommits, Talker
from tests.support.mock_answers import hold, status
from tests.support.mock_answers import say as answer
from tests.support.mock_provider import MockProvider
from tests.support.service import (
    BOUND,
    Served,
    answer_of,
    events_in,
    kinds,
    reaching,
    scripted,
    serving,
    settings_for,
    stored,
    text_of,
    until,
)


async def test_a_failed_run_is_an_event_and_the_call_is_ok(tmp_path: Path) -> None:
    failing = fail("model_not_found", "There is no such model.", retryable=False)
    agent = scripted(turn("half", failing))
    async with serving(tmp_path, agent) as served:
        live = served.runs.StreamRun(pb.StreamRunRequest(agent_id="demo", input="Go."))
        events = [event async for response in live for event in response.events]
        assert answer_of(events).error.message == "There is no such model."
        assert events[-1].error.reason == FailureReason.FAILURE_REASON_MODEL_NOT_FOUND
        assert await live.code() is grpc.StatusCode.OK
        got = await served.runs.GetRun(pb.GetRunRequest(run_id=events[0].run_id))
        assert (got.run.state, got.run.outcome) == (RunState.RUN_STATE_FAILED, events[-1])


async def test_dropping_the_stream_that_started_a_run_does_not_cancel_it(tmp_path: Path) -> None:
    gate = Gate()
    agent = scripted(turn(call("gate")), "after", tools=(gate.tool,))
    async with serving(tmp_path, agent) as served:
        live = served.runs.StreamRun(pb.StreamRunRequest(agent_id="demo", input="Go."))
        run_id = str((await live.initial_metadata())["polos-run-id"])
        await gate.reached()
        live.cancel()
        await until(lambda: not served.readers._tails, "the service sees the reader leave")
        gate.opened.set()
        assert answer_of(await served.events(run_id)).agent_finish.result == "after"


async def test_only_cancel_run_cancels_and_it_closes_the_connection_to_the_model(
    tmp_path: Path,
) -> None:
    agent = Agent("demo", "openai", "mock")
    async with MockProvider() as provider:
        provider.reply(answer("Hello"), hold(asyncio.Event()))
        known = {"openai_base_url": provider.url, "openai_api_key": "sk-test"}
        async with serving(tmp_path, agent, **known) as served:
            run_id = await served.start(agent)
            upstream = await provider.received()
            async for event in served.follow(run_id):
                if event.HasField("text_delta"):
                    break
            await until(lambda: not served.readers._tails, "the reader has left")
            assert not upstream.disconnected.is_set()
            ended = await served.runs.CancelRun(pb.CancelRunRequest(run_id=run_id))
            assert ended.run.state == RunState.RUN_STATE_CANCELLED
            assert ended.run.outcome.HasField("run_cancelled")
            async with asyncio.timeout(BOUND):
                await upstream.disconnected.wait()


async def test_a_finished_step_never_runs_again(tmp_path: Path) -> None:
    once, gate = Gate("once"), Gate()
    once.opened.set()
    agent = scripted(
        turn("Now. ", call("once")), turn(call("gate")), "after", tools=(once.tool, gate.tool)
    )
    async with serving(tmp_path, agent) as served:
        run_id = await served.start(agent)
        await gate.reached()
        before = stored(served.path, run_id)
    gate.opened.set()
    async with serving(tmp_path, agent) as served:
        events = await served.events(run_id)
        assert stored(served.path, run_id).startswith(before)
    assert (once.calls, gate.calls) == (1, 2)
    finished = [event.step_finish.step_key for event in events if event.HasField("step_finish")]
    assert finished == ["llm:1", "once", "llm:2", "gate", "llm:3"]
    retries = [event.step_retry for event in events if event.HasField("step_retry")]
    assert [(retry.step_key, retry.attempt) for retry in retries] == [("gate", 2)]
    assert retries[0].reason == FailureReason.FAILURE_REASON_PROCESS_RESTARTED


async def test_a_run_goes_on_in_a_process_that_has_its_agent_only(tmp_path: Path) -> None:
    gate = Gate()
    agent = scripted(turn(call("gate")), "after", tools=(gate.tool,))
    async with serving(tmp_path, agent) as served:
        run_id = await served.start(agent)
        await gate.reached()
    other = scripted("other", id="other")
    async with serving(tmp_path, other) as served:
        await served.events(await served.start(other))
        got = await served.runs.GetRun(pb.GetRunRequest(run_id=run_id))
        assert got.run.state == RunState.RUN_STATE_QUEUED


def triples(events: list[Event]) -> list[tuple[str, int, str]]:
    """Return step, attempt and text of each delta."""
    deltas = [event.text_delta for event in events if event.HasField("text_delta")]
    return [(delta.step_key, delta.attempt, delta.content) for delta in deltas]


async def test_a_retried_step_takes_back_exactly_its_own_triple(tmp_path: Path) -> None:
    gate = Gate()
    gate.opened.set()
    agent = scripted(
        turn("First. ", call("gate")),
        turn(say(["lost ", "words"]), cut(), retried=["Second. ", call("gate")]),
        "Third.",
        tools=(gate.tool,),
    )
    async with serving(tmp_path, agent) as served:
        stream = await agent.stream(served.client, "Go.")
        assert await stream.text() == "First. Second. Third."
        events = await served.events(stream.id)
        assert triples(events) == [
            ("llm:1", 1, "First."),
            ("llm:1", 1, " "),
            ("llm:2", 1, "lost "),
            ("llm:2", 1, "words"),
            ("llm:2", 2, "Second."),
            ("llm:2", 2, " "),
            ("llm:3", 1, "Third."),
        ]
        retries = [event.step_retry for event in events if event.HasField("step_retry")]
        assert [(retry.step_key, retry.attempt) for retry in retries] == [("llm:2", 2)]
        assert retries[0].reason == FailureReason.FAILURE_REASON_MODEL_CUT_SHORT


async def test_a_retry_before_the_first_output_is_silent(tmp_path: Path) -> None:
    agent = Agent("demo", "openai", "mock")
    async with MockProvider() as provider:
        provider.reply(status(503))
        provider.reply(answer("Hello"))
        known = {"openai_base_url": provider.url, "openai_api_key": "sk-test"}
        async with serving(tmp_path, agent, **known) as served:
            events = await served.events(await served.start(agent))
        assert len(provider.requests) == 2
    assert "step_retry" not in kinds(events)
    assert text_of(events) == answer_of(events).agent_finish.result == "Hello"


@pytest.fixture
def agent() -> Agent:
    return scripted("not played: the model is replaced")


def replace_model(service: Service, model: Talker) -> None:
    """Let this model speak instead of the scripts."""
    service._providers._models["scripted"] = model


async def test_the_model_never_waits_for_storage_token_by_token(
    tmp_path: Path, agent: Agent
) -> None:
    async with serving(tmp_path, agent) as served:
        model = Talker(pieces=500)
        replace_model(served.service, model)
        commits = HeldCommits(served.service)
        run_id = await served.start(agent)
        await until(model.asked.is_set, "the model is asked")
        commits.hold()
        model.begin.set()
        await until(lambda: model.said == 500, "the model is done while a commit waits")
        assert commits.waiting.is_set()
        assert len(events_in(stored(served.path, run_id))) < 500
        commits.release()
        assert text_of(await served.events(run_id)) == "x" * 500


async def test_the_model_waits_while_the_backlog_is_over_its_bound(
    tmp_path: Path, agent: Agent
) -> None:
    size = 64 * 1024
    async with serving(tmp_path, agent) as served:
        model = Talker(pieces=64, size=size)
        replace_model(served.service, model)
        commits = HeldCommits(served.service)
        run_id = await served.start(agent)
        await until(model.asked.is_set, "the model is asked")
        commits.hold()
        model.begin.set()
        await until(lambda: model.said * size > BACKLOG_LIMIT - 3 * size, "the backlog fills")
        for _ in range(100):
            await asyncio.sleep(0)
        assert model.said * size <= BACKLOG_LIMIT + 2 * size
        commits.release()
        assert len(text_of(await served.events(run_id))) == 64 * size


async def test_a_tool_runs_only_after_what_led_to_it_is_durable(tmp_path: Path) -> None:
    first, gate = Gate("first"), Gate()
    gate.opened.set()
    agent = scripted(turn(call("first")), turn(call("gate")), "end", tools=(first.tool, gate.tool))
    async with serving(tmp_path, agent) as served:
        run_id = await served.start(agent)
        await first.reached()
        commits = HeldCommits(served.service)
        for step in ("first", "llm:2", "gate"):
            await passes_no_further(served, commits, first if step == "first" else None)
            assert gate.calls == 0, f"the tool ran while the commit after {step} was held"
        commits.release()
        assert answer_of(await served.events(run_id)).agent_finish.result == "end"
        assert gate.calls == 1


async def passes_no_further(served: Served, commits: HeldCommits, gate: Gate | None) -> None:
    """Let one commit pass, if one is held, and wait until the next one is."""
    commits.release()
    commits.hold()
    if gate is not None:
        gate.opened.set()
    await until(commits.waiting.is_set, "the next commit waits")


async def test_a_reader_resumes_over_a_restart_without_loss_or_repetition(tmp_path: Path) -> None:
    gate = Gate()
    agent = scripted(turn("Before. ", call("gate")), "After.", tools=(gate.tool,))
    service = await Service.start(settings_for(tmp_path), [agent])
    try:
        async with reaching(service, tmp_path / "runs.db") as served:
            stream = await agent.stream(served.client, "Go.")
            reading = asyncio.create_task(stream.text())
            await gate.reached()
            await service.stop(0)
            gate.opened.set()
            again = settings_for(tmp_path, listen=f"127.0.0.1:{service.port}")
            service = await Service.start(again, [agent])
            async with asyncio.timeout(BOUND):
                assert await reading == "Before. After."
    finally:
        await service.stop(0)
