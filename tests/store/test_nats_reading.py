"""How logs, lists and definitions are read from NATS, and with how many requests."""

from __future__ import annotations

import asyncio
from collections import Counter

from polos_service.store import RunQuery, WaitRecord
from polos_service.store.nats import NatsStore
from tests.support.nats_wire import Wire, answers, asked
from tests.support.stores import ALL, claimed, frame, history, settled, soon


async def test_a_cursor_anywhere_in_a_long_log_among_others_is_found(
    wire: Wire, wired: NatsStore, one: NatsStore
) -> None:
    claim, noise = await claimed(one), await claimed(one)
    for number in range(1, 401):
        await one.append(claim, frame(2 * number - 1, 2 * number, b"%d" % number))
        await one.append(noise, frame(number))
    for cursor in (0, 1, 2, 399, 400, 555, 798, 799):
        found = await soon(wired.read("default", claim.run_id, cursor, 1))
        assert [part.first for part in found.frames] == [cursor // 2 * 2 + 1]
    before = len(wire.requests("STREAM.MSG.GET.POLOS_LOG"))
    cursor = 100
    for _ in range(50):
        cursor = (await wired.read("default", claim.run_id, cursor, 1)).frames[-1].last
    assert cursor == 200
    searches = wire.requests("STREAM.MSG.GET.POLOS_LOG")[before:]
    assert len(searches) <= 10, "who reads on does not search again"


async def test_a_replica_that_lags_behind_makes_no_hole_in_a_history(
    wire: Wire, wired: NatsStore
) -> None:
    claim = await claimed(wired)
    for number in range(1, 8):
        await wired.append(claim, frame(number, data=b"%d" % number))
    from_any = answers(asked("DIRECT.GET.POLOS_LOG"))
    wire.lose(lambda message: from_any(message) and message.payload in (b"3", b"7"))
    entries = await history(wired, claim)
    assert [entry.data for entry in entries] == [b"", *(b"%d" % n for n in range(1, 8))]
    found = await wired.read("default", claim.run_id, 0, ALL)
    assert [part.first for part in found.frames] == [1, 2], "a reader may see less, never a hole"


async def test_a_definition_larger_than_a_message_is_whole(one: NatsStore) -> None:
    definition = bytes(range(256)) * 9000
    assert (await claimed(one, definition=definition)).definition == definition


async def test_idle_readers_ask_nobody(wire: Wire, wired: NatsStore, one: NatsStore) -> None:
    claim = await claimed(one)
    await one.append(claim, frame(1))
    await wired.read("default", claim.run_id, 0, ALL)
    waits = [asyncio.create_task(wired.wait("default", claim.run_id, 1)) for _ in range(50)]
    await settled()
    before = len(wire.sent)
    await asyncio.gather(*(wired.read("default", claim.run_id, 1, ALL) for _ in range(50)))
    assert len(wire.sent) - before < 5
    await one.append(claim, frame(2))
    await soon(asyncio.gather(*waits))
    parts = await asyncio.gather(*(wired.read("default", claim.run_id, 1, ALL) for _ in range(50)))
    assert all(list(part.frames) == [frame(2)] for part in parts)
    assert len(wire.sent) - before < 20, "one read for all of them"


async def test_lists_read_large_frames_a_piece_at_a_time(
    wire: Wire, wired: NatsStore, one: NatsStore
) -> None:
    for _ in range(12):
        await one.append(await claimed(one), frame(1, data=b"x" * 400_000))
    found = await wired.list("default", RunQuery(limit=99))
    assert [run.latest for run in found] == [1] * 12
    pages: Counter[str] = Counter()
    for message in filter(answers(asked("DIRECT.GET.POLOS_LOG")), wire.answered):
        pages[message.subject] += len(message.payload)
    assert max(pages.values()) < 2 * 1024 * 1024
    assert sum(pages.values()) >= 12 * 400_000


async def test_a_page_of_waits_costs_the_same_however_many_there_are(
    wire: Wire, wired: NatsStore, one: NatsStore
) -> None:
    claim = await claimed(one)
    await one.append(claim, frame(1))
    waits = [
        WaitRecord(run_id=claim.run_id, wait_id=number, create_time=number, data=b"w")
        for number in range(1, 201)
    ]
    for wait in waits:
        await one.open_wait("default", wait)
    found = list(await wired.list_waits("default", 100))
    for _ in range(2):
        before = len(wire.sent)
        page = await wired.list_waits("default", 3, found[-1].place)
        asks = [one for one in wire.sent[before:] if b"batch" in one.payload]
        assert len(asks) == 2, "one for the waits, one for the ends of their runs' logs"
        assert b'"batch":3,' in asks[0].payload
        assert len(wire.sent) - before < 10
        found += page
    assert found == waits[:106]
