"""AgentStream: its members, alone, one after the other and beside each other."""

from __future__ import annotations

import asyncio
import gc
from contextlib import aclosing
from datetime import UTC, datetime
from typing import Any

import grpc
import pytest

from polos.v1 import event_pb2 as pb
from polos.v1 import run_pb2
from polos.v1.error_pb2 import FailureReason
from polos_client.calls.client import PolosClient
from polos_client.calls.handle import ExecutionHandle
from polos_client.calls.stream import AgentStream, TextChunk
from polos_client.define.agent import Agent
from polos_client.errors import (
    AgentNotFound,
    ConnectionLost,
    RunCancelled,
    RunFailed,
    RunTimeout,
)
from tests.support.fake_service import (
    AGENT,
    RUN,
    FakeService,
    Play,
    abort,
    answer_log,
    connected,
    delta,
    end_ok,
    event,
    finish,
    hang,
    numbered,
    refuse,
    run_of,
)

Code = grpc.StatusCode
ANSWER = "The sum is 3."


def demo() -> Agent:
    return Agent(AGENT, "scripted", "{}")


async def chunks(stream: Any) -> list[TextChunk]:
    return [one async for one in stream.text_chunks]


def retried_log() -> list[pb.Event]:
    """Return a run whose second model call is retried while a sub-agent speaks."""
    log = numbered(
        [
            delta("one ", step=1),
            delta("two", step=2),
            delta("sub", step=1),
            {"step_retry": pb.StepRetry(step_key="llm:1", attempt=2)},
            delta("sub again", step=1, attempt=2),
            {"step_retry": pb.StepRetry(step_key="llm:2", attempt=2)},
            delta("three", step=2, attempt=2),
            {"agent_finish": finish("three"), "terminal": True},
        ]
    )
    for index in (2, 3, 4):
        log[index].run_id, log[index].parent_run_id = "sub-1", RUN
    return log


def failed_log(**error: Any) -> list[pb.Event]:
    return numbered([delta("Half an"), {"error": pb.Error(**error), "terminal": True}])


async def test_events_of_a_stream_are_those_of_the_log() -> None:
    async with connected(FakeService()) as client:
        stream = await demo().stream(client, "1 + 2?")
        kinds = [one.event_type async for one in stream.events]
    assert stream.id == stream.agent_run_id == RUN
    assert kinds == ["agent_start", "step_start", *["text_delta"] * 4, "agent_finish"]


async def test_the_first_member_takes_over_the_call_and_the_next_reads_the_log_again() -> None:
    service = FakeService()
    async with connected(service) as client:
        stream = await demo().stream(client, "1 + 2?")
        assert await chunks(stream) == ["The ", "sum ", "is ", "3."]
        assert await stream.text() == ANSWER
        assert (await stream.result()).result == ANSWER
        assert [one.sequence_id async for one in stream.events] == [1, 2, 3, 4, 5, 6, 7]
    assert service.cursors == [-1, 0, 0]


async def test_a_stream_shows_its_run_and_says_what_to_iterate() -> None:
    async with connected(FakeService()) as client:
        stream: Any = await demo().stream(client, "1 + 2?")
        assert repr(stream) == f"<AgentStream {RUN}>"
        with pytest.raises(TypeError, match=r"stream\.text_chunks or stream\.partial"):
            async for _ in stream:
                pass


async def test_members_can_be_used_beside_each_other() -> None:
    async with connected(FakeService()) as client:
        stream = await demo().stream(client, "1 + 2?")
        text, result, said = await asyncio.gather(stream.text(), stream.result(), chunks(stream))
    assert text == result.result == "".join(said) == ANSWER


async def test_a_dropped_start_goes_on_without_loss_or_repetition() -> None:
    service = FakeService(plays=[Play(abort(Code.UNAVAILABLE), until=4)])
    async with connected(service) as client:
        stream = await demo().stream(client, "1 + 2?")
        assert "".join(await chunks(stream)) == ANSWER
    assert service.cursors[0] == -1
    assert len(service.cursors) == 2


async def test_leaving_a_loop_early_ends_the_call() -> None:
    service = FakeService(plays=[Play(hang, until=5)])
    async with connected(service) as client:
        stream = await demo().stream(client, "1 + 2?")
        async for _ in stream.events:
            break
        await service.no_open_calls()
        assert await stream.text() == ANSWER


async def test_leaving_the_chunks_early_ends_the_call() -> None:
    service = FakeService(plays=[Play(hang, until=5)])
    async with connected(service) as client:
        stream = await demo().stream(client, "1 + 2?")
        async with aclosing(stream.text_chunks) as text_chunks:
            async for _ in text_chunks:
                break
        await service.no_open_calls()


async def test_a_stream_that_is_dropped_unread_ends_its_call() -> None:
    service = FakeService(plays=[Play(hang, until=5)])
    async with connected(service) as client:
        stream = await demo().stream(client, "1 + 2?")
        assert service.open_calls == 1
        del stream
        gc.collect()
        await service.no_open_calls()


async def test_the_text_of_a_voided_attempt_is_taken_back_once() -> None:
    async with connected(FakeService(log=retried_log())) as client:
        stream = await demo().stream(client, "go")
        said = await chunks(stream)
        assert await stream.text() == "one three"
    assert said == ["one ", "two", "", "three"]
    assert [one.reset for one in said] == [False, False, True, False]
    assert [one.step_key for one in said] == ["llm:1", "llm:2", "llm:2", "llm:2"]


async def test_a_retry_before_any_text_is_silent() -> None:
    log = numbered(
        [
            {"step_retry": pb.StepRetry(step_key="llm:1", attempt=2)},
            delta("ok", attempt=2),
            {"agent_finish": finish("ok"), "terminal": True},
        ]
    )
    async with connected(FakeService(log=log)) as client:
        assert await chunks(await demo().stream(client, "go")) == ["ok"]


async def test_payloads_of_a_later_version_are_skipped() -> None:
    log = answer_log()
    log.insert(4, event(5))
    for index, one in enumerate(log, 1):
        one.sequence = index
    async with connected(FakeService(log=log)) as client:
        stream = await demo().stream(client, "1 + 2?")
        kinds = [one.event_type async for one in stream.events]
        assert await stream.text() == ANSWER
    assert kinds[4] == "unknown"


async def test_a_failed_run_raises_after_its_text_and_not_from_events() -> None:
    log = failed_log(
        message="the model is away",
        reason=FailureReason.FAILURE_REASON_MODEL_UNAVAILABLE,
        retryable=True,
        usage=pb.Usage(total_tokens=3),
    )
    said = []
    async with connected(FakeService(log=log)) as client:
        stream = await demo().stream(client, "go")
        assert [one.event_type async for one in stream.events] == ["text_delta", "error"]
        with pytest.raises(RunFailed, match="the model is away") as caught:
            async for chunk in stream.text_chunks:
                said.append(chunk)  # noqa: PERF401 - it raises at the end
        for member in (stream.text, stream.result):
            with pytest.raises(RunFailed):
                await member()
    assert said == ["Half an"]
    assert caught.value.reason == "model_unavailable"
    assert caught.value.retryable
    assert caught.value.text == "Half an"
    assert caught.value.usage.total_tokens == 3
    assert caught.value.run_id == RUN


async def test_a_run_that_took_too_long_raises_run_timeout() -> None:
    log = failed_log(message="too long", reason=FailureReason.FAILURE_REASON_RUN_TIMEOUT)
    async with connected(FakeService(log=log)) as client:
        with pytest.raises(RunTimeout, match="too long"):
            await (await demo().stream(client, "go")).text()


async def test_a_cancelled_run_raises_run_cancelled() -> None:
    log = numbered([delta("Half"), {"run_cancelled": pb.RunCancelled(), "terminal": True}])
    async with connected(FakeService(log=log)) as client:
        stream = await demo().stream(client, "go")
        with pytest.raises(RunCancelled):
            await chunks(stream)


async def test_a_cut_stream_never_passes_for_a_whole_answer() -> None:
    service = FakeService(plays=[Play(end_ok, until=5)])
    async with connected(service) as client:
        stream = await demo().stream(client, "go")
        with pytest.raises(ConnectionLost, match="not complete"):
            await chunks(stream)


async def test_an_unknown_agent_is_raised_by_the_start() -> None:
    end = refuse(Code.NOT_FOUND, "AGENT_NOT_FOUND", agent_id=AGENT, known="other", text="no demo")
    async with connected(FakeService(plays=[Play(end, until=0, named=False)])) as client:
        with pytest.raises(AgentNotFound, match="no demo") as caught:
            await demo().stream(client, "go")
    assert caught.value.metadata == {"agent_id": AGENT, "known": "other"}


async def test_a_start_whose_answer_is_lost_is_the_same_start_again() -> None:
    lost = Play(abort(Code.UNAVAILABLE), until=0, named=False)
    service = FakeService(plays=[lost, lost])
    async with connected(service) as client:
        stream = await demo().stream(client, "go", session_id="s", seed=7)
        assert await stream.text() == ANSWER
    assert len(service.starts) == 3
    assert service.starts[0] == service.starts[1] == service.starts[2]
    assert service.starts[0].request_id
    assert service.starts[0].options.session_id == "s"
    assert service.starts[0].options.provider_options_json == '{"seed":7}'


async def test_a_stream_has_what_its_handle_has() -> None:
    service = FakeService(run=run_of(run_pb2.RUN_STATE_SUSPENDED))
    async with connected(service) as client:
        stream = await demo().stream(client, "go", session_id="s", user_id="u")
        got = await stream.get()
        assert stream.client is client
    assert stream.topic == f"workflow/{AGENT}/{RUN}"
    assert stream.id == stream.agent_run_id == stream.handle.id == RUN
    told = {name: getattr(stream, name) for name in ExecutionHandle.model_fields}
    assert stream.created_at is not None
    assert told == stream.handle.to_dict()
    assert told == {
        "id": RUN,
        "workflow_id": AGENT,
        "created_at": stream.created_at,
        "parent_execution_id": None,
        "root_workflow_id": AGENT,
        "root_execution_id": RUN,
        "session_id": "s",
        "user_id": "u",
        "step_key": None,
    }
    assert stream.to_dict() == {**told, "agent_run_id": RUN, "topic": stream.topic}
    assert datetime.fromisoformat(stream.created_at) <= datetime.now(UTC)
    assert got["status"] == "waiting"


async def test_a_service_that_names_no_run_is_not_a_polos_service() -> None:
    service = FakeService(plays=[Play(end_ok, until=0, named=False)])
    async with connected(service) as client:
        with pytest.raises(ConnectionLost, match="not a Polos service of this version"):
            await demo().stream(client, "go")


async def test_cancelling_a_start_ends_its_call() -> None:
    service = FakeService(plays=[Play(hang, until=0, named=False)])
    async with connected(service) as client:
        start = asyncio.create_task(demo().stream(client, "go"))
        while not service.open_calls:
            await asyncio.sleep(0.01)
        start.cancel()
        with pytest.raises(asyncio.CancelledError):
            await start
        await service.no_open_calls()


async def test_get_and_cancel_ask_the_service() -> None:
    run = run_pb2.Run(run_id=RUN, workflow_id=AGENT, state=run_pb2.RUN_STATE_RUNNING)
    service = FakeService(run=run)
    async with connected(service) as client:
        stream = await demo().stream(client, "go")
        assert (await stream.get())["status"] == "running"
        assert await stream.cancel() is True
    assert service.cancels == [RUN]


def test_a_stream_may_outlive_its_event_loop_unread() -> None:
    async def begin() -> AgentStream:
        async with connected(FakeService(plays=[Play(hang, until=5)])) as client:
            return await demo().stream(client, "1 + 2?")

    stream = asyncio.run(begin())
    finalizer = stream._unread
    del stream
    gc.collect()
    assert not finalizer.alive


def test_one_client_of_a_module_serves_two_event_loops() -> None:
    client = PolosClient()

    async def ask() -> str:
        async with connected(FakeService()) as other:
            client.address = other.address
            return await (await demo().stream(client, "1 + 2?")).text()

    assert asyncio.run(ask()) == ANSWER
    assert asyncio.run(ask()) == ANSWER
    assert len(client._channels._made) == 1
