"""ListWaits over a real service: pages, their order, their size and their tokens."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from polos.v1 import run_service_pb2 as pb
from polos_client.define.context import WorkflowContext
from polos_client.define.workflow import workflow
from polos_client.errors import (
    InvalidRequest,
)
from polos_service import waits
from polos_service.api.grpc.messages import PAGE_BYTES
from tests.support.access import refusal
from tests.support.service import Served, serving
from tests.support.waits import (
    answer,
    ask,
    asking,
    listed,
    napping,
    opened,
    run_of,
)


@pytest.fixture
async def served(tmp_path: Path) -> AsyncIterator[Served]:
    async with serving(tmp_path, asking, napping, max_runs=400) as one:
        yield one


@workflow(id="large")
async def large(ctx: WorkflowContext) -> None:
    """Wait for twelve answers at once, each shown with a long text."""
    data = {"text": "x" * 200_000}
    await asyncio.gather(*(ctx.step.suspend(f"ask{number}", data) for number in range(12)))


async def test_the_waits_of_300_runs_are_listed_oldest_first(served: Served) -> None:
    runs = await asyncio.gather(*(ask(served, ok=None) for _ in range(300)))
    naps = [served.runs.CreateRun(pb.CreateRunRequest(agent_id="napping")) for _ in range(10)]
    await asyncio.gather(*naps)
    every = await opened(served, 300)
    assert {one.run_id for one in every} == set(runs)
    times = [one.create_time.ToNanoseconds() for one in every]
    assert times == sorted(times)
    assert await listed(served, page_size=7) == every
    assert await listed(served, page_size=100) == every
    first = await served.runs.ListWaits(pb.ListWaitsRequest())
    assert list(first.waits) == every[:50]
    last = await served.runs.ListWaits(pb.ListWaitsRequest(page_size=300))
    assert (len(last.waits), last.next_page_token) == (300, "")
    assert await listed(served, workflow_id="napping") == []
    for number in (0, 150, 299):
        await answer(served, every[number].run_id, "ok")
    assert await listed(served) == [*every[1:150], *every[151:299]]


async def test_a_page_of_one_workflow_is_full_though_others_wait(
    served: Served, monkeypatch: pytest.MonkeyPatch
) -> None:
    for _ in range(3):
        await asyncio.gather(*(ask(served, ok=None) for _ in range(20)))
    every = await opened(served, 60)
    rare = every[20].run_id
    open_waits = served.store.list_waits

    async def of_two(*arguments: Any) -> Any:
        found = []
        for record in await open_waits(*arguments):
            wait = type(every[0]).FromString(record.data)
            if record.run_id != rare:
                wait.workflow_id = "other"
            found.append(
                type(record)(
                    run_id=record.run_id,
                    wait_id=record.wait_id,
                    create_time=record.create_time,
                    data=wait.SerializeToString(),
                )
            )
        return found

    monkeypatch.setattr(served.store, "list_waits", of_two)
    page = await served.runs.ListWaits(pb.ListWaitsRequest(page_size=1, workflow_id="asking"))
    assert [one.run_id for one in page.waits] == [rare]
    assert page.next_page_token == ""
    request = pb.ListWaitsRequest(page_size=20, workflow_id="other")
    pages = []
    while True:
        page = await served.runs.ListWaits(request)
        pages.append(len(page.waits))
        request.page_token = page.next_page_token
        if not page.next_page_token:
            break
    assert pages == [20, 20, 19]


async def test_large_waits_are_cut_into_responses_that_every_client_takes(
    tmp_path: Path,
) -> None:
    async with serving(tmp_path, large) as served:
        run_id = (await served.runs.CreateRun(pb.CreateRunRequest(agent_id="large"))).run.run_id
        await opened(served, 12)
        page = await served.runs.ListWaits(pb.ListWaitsRequest(page_size=1000))
        assert 1 < len(page.waits) < 12
        assert page.ByteSize() <= PAGE_BYTES + 1000
        run = await run_of(served, run_id)
        assert list(run.open_waits) == list(page.waits)
        assert run.ByteSize() <= PAGE_BYTES + 1000


@pytest.mark.parametrize(
    "token",
    [
        *("x", "1.2", "1.2.", "1.2.a b", "-1.2.a", "1.-2.a", "9223372036854775808.1.a", "\x00"),
        *("1.9223372036854775808.a", "[1, 2, 3]", "1.2." + "a" * 129, "1e3.2.a", "\u0661.2.a"),
        *("1.2.\u00e9", "[" * 5000, "a" * 100_000, "1.2.a\n"),
    ],
)
async def test_a_token_that_is_of_no_page_is_refused(served: Served, token: str) -> None:
    error = await refusal(served.runs.ListWaits(pb.ListWaitsRequest(page_token=token)))
    assert isinstance(error, InvalidRequest)
    assert list(error.violations) == ["page_token"]


async def test_a_token_that_somebody_has_made_up_is_a_place_like_any_other(
    served: Served,
) -> None:
    await ask(served, ok=None)
    (wait,) = await opened(served, 1)
    for token, found in ((f"{2**63 - 1}.1.a", []), (f"0.{2**63 - 1}.zzz", [wait])):
        page = await served.runs.ListWaits(pb.ListWaitsRequest(page_token=token))
        assert list(page.waits) == found
    error = await refusal(served.runs.ListWaits(pb.ListWaitsRequest(page_size=-1)))
    assert isinstance(error, InvalidRequest)


async def test_a_fraction_of_the_waits_is_looked_at_for_a_page(
    served: Served, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(waits, "AT_FIRST", 2)
    monkeypatch.setattr(waits, "AT_ONCE", 2)
    monkeypatch.setattr(waits, "LOOKED_AT", 3)
    for _ in range(5):
        await ask(served, ok=None)
    await opened(served, 5)
    request = pb.ListWaitsRequest(workflow_id="napping")
    pages = [await served.runs.ListWaits(request)]
    while pages[-1].next_page_token:
        request.page_token = pages[-1].next_page_token
        pages.append(await served.runs.ListWaits(request))
    assert [len(page.waits) for page in pages] == [0, 0]
