"""AgentStream.partial: the answer so far, over retries, repairs, failures and lost connections."""

from __future__ import annotations

import asyncio
import json
from contextlib import aclosing
from typing import Any

import grpc
import pytest

from polos.v1 import event_pb2 as pb
from polos.v1.error_pb2 import FailureReason
from polos_client.calls.client import PolosClient
from polos_client.calls.stream import AgentStream
from polos_client.define.agent import Agent
from polos_client.errors import ConnectionLost, DefinitionError, RunCancelled, RunFailed
from tests.support.fake_service import (
    AGENT,
    RUN,
    FakeService,
    Link,
    Play,
    abort,
    answer_log,
    connected,
    delta,
    end_ok,
    finish,
    hang,
    numbered,
    serving,
)

PIECES = ('{"item": ', '"te', 'a", ', '"price": 1', "2.5", "}")
TEA = "".join(PIECES)
DRAFTS = [{}, {"item": "te"}, {"item": "tea"}, {"item": "tea", "price": 12.5}]

START: dict[str, Any] = {
    "agent_start": pb.AgentStart(agent_id=AGENT, streaming=True, output_schema_name="app.Order")
}
END: dict[str, Any] = {"agent_finish": finish(TEA, result_is_json=True), "terminal": True}
"""How a run with the answer TEA ends."""

CALLS = pb.FINISH_REASON_TOOL_CALLS


def ended(step: int, text: str, **fields: Any) -> dict[str, Any]:
    """Return the end of a model call that said the text."""
    result = json.dumps({"content": text, "tool_calls": []})
    named = pb.StepFinish(step_key=f"llm:{step}", step_type="llm", result_json=result, **fields)
    return {"step_finish": named}


def said(step: int, *pieces: str, attempt: int = 1) -> list[dict[str, Any]]:
    return [delta(piece, step=step, attempt=attempt) for piece in pieces]


def log_of(*payloads: dict[str, Any]) -> list[pb.Event]:
    return numbered([START, *payloads])


TEA_LOG = log_of(*said(1, *PIECES), ended(1, TEA), END)


def served(log: list[pb.Event], **more: Any) -> FakeService:
    """Return a service that sends each event alone, so that every draft is seen."""
    return FakeService(log=log, **{"batch": 1, **more})


async def started(client: PolosClient) -> AgentStream:
    return await Agent(AGENT, "scripted", "{}").stream(client, "go")


async def drafts(stream: AgentStream) -> list[Any]:
    return [one async for one in stream.partial]


async def test_drafts_grow_up_to_the_answer_and_can_be_read_again() -> None:
    service = served(TEA_LOG)
    async with connected(service) as client:
        stream = await started(client)
        assert await drafts(stream) == DRAFTS
        assert await drafts(stream) == DRAFTS
        assert DRAFTS[-1] == json.loads(await stream.text()) == (await stream.result()).result
    assert service.cursors == [-1, 0, 0]


async def test_drafts_can_be_read_beside_the_other_members() -> None:
    async with connected(served(TEA_LOG)) as client:
        stream = await started(client)
        found = await asyncio.gather(drafts(stream), stream.text(), drafts(stream))
    assert found == [DRAFTS, TEA, DRAFTS]


async def test_pieces_that_come_together_make_one_draft() -> None:
    async with connected(served(TEA_LOG, batch=100)) as client:
        assert await drafts(await started(client)) == DRAFTS[-1:]
    async with connected(served(TEA_LOG, batch=4)) as client:
        assert await drafts(await started(client)) == [DRAFTS[2], DRAFTS[3]]


async def test_a_call_that_begins_anew_begins_from_nothing() -> None:
    log = log_of(
        *said(1, '{"item": "coffee", "price"'),
        {"step_retry": pb.StepRetry(step_key="llm:1", attempt=2)},
        *said(1, *PIECES, attempt=2),
        ended(1, TEA),
        END,
    )
    async with connected(served(log)) as client:
        assert await drafts(await started(client)) == [{"item": "coffee"}, *DRAFTS]


async def test_a_repair_begins_from_nothing() -> None:
    log = log_of(
        *said(1, '{"item": 7, "no', 'te": ""}'),
        ended(1, '{"item": 7, "note": ""}', invalid_output=pb.InvalidOutput()),
        *said(2, *PIECES),
        ended(2, TEA),
        END,
    )
    first = [{"item": 7}, {"item": 7, "note": ""}]
    async with connected(served(log)) as client:
        assert await drafts(await started(client)) == [*first, *DRAFTS]


async def test_what_is_said_beside_tool_calls_is_no_draft() -> None:
    log = log_of(
        *said(1, "3 shops ", "have [tea]."),
        ended(1, "3 shops have [tea].", finish_reason=CALLS),
        *said(2, *PIECES),
        ended(2, TEA),
        END,
    )
    async with connected(served(log)) as client:
        assert await drafts(await started(client)) == DRAFTS


async def test_an_answer_in_a_fence_has_no_drafts_and_is_repaired() -> None:
    fenced = f"```json\n{TEA}\n```"
    log = log_of(
        *said(1, "```json\n", *PIECES, "\n```"),
        ended(1, fenced, invalid_output=pb.InvalidOutput()),
        *said(2, TEA),
        ended(2, TEA),
        END,
    )
    async with connected(served(log)) as client:
        assert await drafts(await started(client)) == DRAFTS[-1:]


async def test_children_have_drafts_of_their_own() -> None:
    log = log_of(*said(1, '{"item": "te'), *said(1, '"other'), *said(1, 'a", "price": 12.5}'), END)
    log[2].run_id, log[2].parent_run_id = "sub-1", RUN
    async with connected(served(log)) as client:
        assert await drafts(await started(client)) == [DRAFTS[1], DRAFTS[3]]


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ('[{"a": 1}]', [[], [{}], [{"a": 1}]]),
        ('"tea"', ["", "t", "te", "tea"]),
        ("125", [125]),
        ("true", [True]),
        ("null", [None]),
    ],
)
async def test_an_answer_may_be_any_json(text: str, found: list[Any]) -> None:
    end = {"agent_finish": finish(text, result_is_json=True), "terminal": True}
    async with connected(served(log_of(*said(1, *text), ended(1, text), end))) as client:
        assert await drafts(await started(client)) == found


async def test_an_answer_that_did_not_stream_comes_whole() -> None:
    async with connected(served(log_of(ended(1, TEA), END))) as client:
        assert await drafts(await started(client)) == DRAFTS[-1:]


async def test_an_answer_that_exceeds_an_event_comes_whole() -> None:
    end = {"agent_finish": finish("", result_is_json=True, result_step_key="llm:1")}
    long = pb.StepFinish(step_key="llm:1", step_type="llm", long_answer=pb.LongAnswer())
    log = log_of(*said(1, *PIECES), {"step_finish": long}, {**end, "terminal": True})
    async with connected(served(log)) as client:
        assert await drafts(await started(client)) == DRAFTS


async def test_an_agent_that_answers_with_text_says_what_to_do() -> None:
    async with connected(FakeService(log=answer_log())) as client:
        stream = await started(client)
        with pytest.raises(DefinitionError, match=r"'demo' has no output_schema.*text_chunks"):
            await drafts(stream)
        assert await stream.text() == "The sum is 3."


@pytest.mark.parametrize(
    ("end", "raised"),
    [
        ({"run_cancelled": pb.RunCancelled()}, RunCancelled),
        ({"error": pb.Error(reason=FailureReason.FAILURE_REASON_OUTPUT_INVALID)}, RunFailed),
    ],
)
async def test_a_run_that_ends_otherwise_raises_after_its_drafts(
    end: dict[str, Any], raised: type[Exception]
) -> None:
    found = []
    async with connected(
        served(log_of(*said(1, *PIECES[:3]), {**end, "terminal": True}))
    ) as client:
        with pytest.raises(raised):
            async for draft in (await started(client)).partial:
                found.append(draft)  # noqa: PERF401 - it raises at the end
    assert found == DRAFTS[:3]


@pytest.mark.parametrize("until", range(len(TEA_LOG)))
async def test_a_drop_at_any_event_loses_and_repeats_no_draft(until: int) -> None:
    service = served(TEA_LOG, plays=[Play(abort(grpc.StatusCode.UNAVAILABLE), until=until)])
    async with connected(service) as client:
        assert await drafts(await started(client)) == DRAFTS
    assert len(service.cursors) == 2


async def test_a_cut_connection_loses_and_repeats_no_draft() -> None:
    service = served(TEA_LOG, plays=[Play(hang, until=4)])
    found = []
    async with (
        serving(service) as address,
        Link(address).open() as link,
        PolosClient(link.address) as client,
    ):
        async for draft in (await started(client)).partial:
            found.append(draft)
            if found == DRAFTS[:3]:
                link.cut()
    assert found == DRAFTS
    assert service.cursors == [-1, 4]


async def test_a_cut_stream_never_passes_for_a_whole_answer() -> None:
    async with connected(served(TEA_LOG, plays=[Play(end_ok, until=5)])) as client:
        with pytest.raises(ConnectionLost, match="not complete"):
            await drafts(await started(client))


async def test_leaving_the_drafts_early_ends_the_call() -> None:
    service = served(TEA_LOG, plays=[Play(hang, until=5)])
    async with connected(service) as client:
        async with aclosing((await started(client)).partial) as partial:
            assert await anext(partial) == {}
        await service.no_open_calls()
