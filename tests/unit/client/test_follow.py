"""A reader has every event once, whatever breaks."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Sequence
from contextlib import aclosing

import grpc
import pytest

from polos.v1.event_pb2 import Event
from polos_client.calls import follow as follow_module
from polos_client.calls.client import PolosClient
from polos_client.calls.follow import fold, follow
from polos_client.errors import ConnectionLost, InternalError, RunNotFound
from tests.support.fake_service import (
    RUN,
    End,
    FakeService,
    Link,
    Play,
    abort,
    answer_log,
    connected,
    draining,
    end_ok,
    event,
    hang,
    refuse,
    serving,
)

Code = grpc.StatusCode
Batches = AsyncGenerator[Sequence[Event], None]


async def sequences(client: PolosClient, after: int = 0) -> list[int]:
    async with asyncio.timeout(20), aclosing(follow(client, RUN, after=after)) as batches:
        return [one.sequence async for batch in batches for one in batch]


async def test_a_whole_log_is_read_in_order_and_the_call_is_closed() -> None:
    service = FakeService()
    async with connected(service) as client:
        assert await sequences(client) == [1, 2, 3, 4, 5, 6, 7]
        await service.no_open_calls()
    assert service.cursors == [0]


@pytest.mark.parametrize(
    "end",
    [
        abort(Code.UNAVAILABLE),
        abort(Code.INTERNAL, "Received RST_STREAM with error code 2"),
        abort(Code.UNKNOWN, "Stream removed"),
        abort(Code.CANCELLED, "the server stops"),
        abort(Code.DEADLINE_EXCEEDED),
        draining(0.01),
        refuse(Code.UNAVAILABLE, "STORE_UNAVAILABLE"),
    ],
    ids=["unavailable", "reset", "removed", "cancelled", "deadline", "draining", "store"],
)
@pytest.mark.parametrize("until", range(7))
async def test_after_a_drop_at_any_event_the_log_goes_on_from_the_cursor(
    end: End, until: int
) -> None:
    service = FakeService(plays=[Play(end, until=until)])
    async with connected(service) as client:
        assert await sequences(client) == [1, 2, 3, 4, 5, 6, 7]
    assert len(service.cursors) == 2
    # Core may throw away what it holds when a status comes, so the cursor may be earlier.
    assert 0 <= service.cursors[1] <= until


async def test_a_cut_connection_loses_and_repeats_nothing() -> None:
    service = FakeService(plays=[Play(hang, until=4)])
    seen = []
    async with serving(service) as address, Link(address).open() as link:
        client = PolosClient(link.address)
        async with asyncio.timeout(20), aclosing(follow(client, RUN)) as batches:
            async for batch in batches:
                seen += [one.sequence for one in batch]
                if seen == [1, 2, 3, 4]:
                    link.cut()
        await client.close()
    assert seen == [1, 2, 3, 4, 5, 6, 7]
    assert service.cursors == [0, 4]


async def test_a_service_that_restarts_is_found_again() -> None:
    service = FakeService(plays=[Play(hang, until=4)])
    seen: list[int] = []
    async with serving(service) as address:
        client = PolosClient(address)
        batches = follow(client, RUN)
        while len(seen) < 4:
            seen += [one.sequence for one in await anext(batches)]
        rest = asyncio.create_task(drain(batches))
    async with serving(service, port=int(address.rpartition(":")[2])):
        seen += await rest
    await client.close()
    assert seen == [1, 2, 3, 4, 5, 6, 7]


async def drain(batches: Batches) -> list[int]:
    return [one.sequence async for batch in batches for one in batch]


async def test_silence_is_taken_for_a_dead_link(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(follow_module, "SILENCE", 0.2)
    service = FakeService(plays=[Play(hang, until=2)])
    async with connected(service) as client:
        assert await sequences(client) == [1, 2, 3, 4, 5, 6, 7]
        await service.no_open_calls()
    assert service.cursors == [0, 2]


async def test_the_hint_of_a_draining_service_is_the_least_that_is_waited() -> None:
    service = FakeService(plays=[Play(draining(0.5), until=2)])
    async with connected(service) as client:
        begun = asyncio.get_running_loop().time()
        assert await sequences(client) == [1, 2, 3, 4, 5, 6, 7]
    assert asyncio.get_running_loop().time() - begun >= 0.5


async def test_events_that_come_again_are_skipped() -> None:
    service = FakeService(plays=[Play(abort(Code.UNAVAILABLE), until=5), Play(back=2)])
    async with connected(service) as client:
        assert await sequences(client) == [1, 2, 3, 4, 5, 6, 7]


async def test_a_gap_is_an_error_that_names_the_cursor() -> None:
    service = FakeService(plays=[Play(abort(Code.UNAVAILABLE), until=3), Play(gap=1)], batch=1)
    async with connected(service) as client:
        with pytest.raises(ConnectionLost, match="jumped from event") as caught:
            await sequences(client)
    assert caught.value.run_id == RUN
    assert service.cursors[1] == caught.value.cursor


async def test_an_end_without_the_terminal_event_is_an_error() -> None:
    service = FakeService(plays=[Play(end_ok, until=4)])
    async with connected(service) as client:
        with pytest.raises(ConnectionLost, match="after event 4, without the event") as caught:
            await sequences(client)
    assert caught.value.cursor == 4


async def test_an_empty_log_that_ends_is_an_error() -> None:
    async with connected(FakeService(log=[])) as client:
        with pytest.raises(ConnectionLost, match="after event 0"):
            await sequences(client)


async def test_a_cursor_at_the_terminal_event_ends_without_an_event() -> None:
    async with connected(FakeService()) as client:
        assert await sequences(client, after=7) == []


async def test_an_end_without_events_after_a_drop_is_no_quiet_end() -> None:
    service = FakeService(plays=[Play(abort(Code.UNAVAILABLE), until=3), Play(gap=99)], batch=1)
    async with connected(service) as client:
        with pytest.raises(ConnectionLost, match="without the event"):
            await sequences(client)


async def test_a_service_that_stays_away_is_given_up_with_the_cursor() -> None:
    away = abort(Code.UNAVAILABLE)
    nobody = Play(away, until=0, named=False)
    service = FakeService(plays=[Play(away, until=4), *[nobody] * 99])
    async with connected(service, reconnect_timeout=0.5) as client:
        with pytest.raises(ConnectionLost, match="reading run run-1 failed") as caught:
            await sequences(client)
    assert caught.value.run_id == RUN
    assert caught.value.cursor == max(service.cursors)


async def test_heartbeats_are_no_batches_and_keep_a_reader_patient() -> None:
    away = Play(abort(Code.UNAVAILABLE), until=0, heartbeats=2)
    service = FakeService(plays=[away] * 15)
    async with connected(service, reconnect_timeout=0.3) as client:
        assert await sequences(client) == [1, 2, 3, 4, 5, 6, 7]
    assert service.cursors == [0] * 16


@pytest.mark.parametrize(
    ("end", "kind"),
    [
        (refuse(Code.NOT_FOUND, "RUN_NOT_FOUND"), RunNotFound),
        (refuse(Code.INTERNAL, "INTERNAL"), InternalError),
        (abort(Code.UNIMPLEMENTED), ConnectionLost),
    ],
    ids=["unknown run", "defect", "no such method"],
)
async def test_a_refusal_is_raised_at_once(end: End, kind: type[Exception]) -> None:
    service = FakeService(plays=[Play(end, until=0)])
    async with connected(service) as client:
        with pytest.raises(kind):
            await sequences(client)
    assert service.cursors == [0]


async def test_cancelling_the_reader_ends_its_task_and_its_call() -> None:
    service = FakeService(plays=[Play(hang, until=2)])
    async with connected(service) as client:
        reader = asyncio.create_task(sequences(client))
        await asyncio.sleep(0)
        while service.open_calls == 0:
            await asyncio.sleep(0.01)
        reader.cancel()
        with pytest.raises(asyncio.CancelledError):
            await reader
        await service.no_open_calls()
    assert reader.cancelled()


async def test_closing_the_client_raises_connection_lost_in_its_readers() -> None:
    service = FakeService(plays=[Play(hang, until=2)])
    async with connected(service) as client:
        batches = follow(client, RUN)
        await anext(batches)
        rest = asyncio.create_task(drain(batches))
        await asyncio.sleep(0.05)
        await client.close()
        with pytest.raises(ConnectionLost, match="was closed"):
            await rest


async def test_events_of_a_later_version_are_passed_on() -> None:
    log = answer_log()
    log[3] = event(4)
    async with connected(FakeService(log=log)) as client:
        assert await sequences(client) == [1, 2, 3, 4, 5, 6, 7]


async def test_a_fold_goes_on_from_its_last_event() -> None:
    service = FakeService()
    async with connected(service) as client:
        folded = await fold(client, RUN)
        again = await fold(client, RUN, into=folded)
    assert again.text == "The sum is 3."
    assert service.cursors == [0, 7]
