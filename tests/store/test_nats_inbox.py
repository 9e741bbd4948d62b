"""How the NATS store keeps commands, beside replicas of version 0.1.0 and strangers."""

from __future__ import annotations

import asyncio
import time

import pytest

from polos_client.errors import TooManyCommands
from polos_service.store import INBOX_LIMIT, SETTLED, Command
from polos_service.store.nats import NatsStore
from tests.support.nats_stranger import GARBAGE, Stranger
from tests.support.stores import COMPLETED, cancel, claimed, first_claim, frame, new_run, soon


def answer(number: int, payload: bytes = b"{}") -> Command:
    return Command(id=f"c{number}", kind="resume", run_id="r", step_key="step", payload=payload)


async def test_a_cancellation_by_a_replica_of_0_1_0_reaches_the_holder(
    one: NatsStore, stranger: Stranger
) -> None:
    claim = await claimed(one)
    arriving = asyncio.create_task(one.commands(claim, 0))
    await stranger.store(f"$KV.POLOS_COMMANDS.default.{claim.run_id}", b'["cancel"]')
    assert list(await soon(arriving)) == [cancel(claim.run_id)]


async def test_a_cancellation_stands_where_a_replica_of_0_1_0_looks_for_it(
    one: NatsStore, stranger: Stranger
) -> None:
    run_id = await one.create(new_run())
    await one.command("default", run_id, answer(1))
    await one.command("default", run_id, cancel(run_id))
    subject = f"$KV.POLOS_COMMANDS.default.{run_id}"
    assert await stranger.last("KV_POLOS_COMMANDS", subject) == b'["cancel"]'


async def test_kinds_of_another_version_beside_a_cancellation_stay(
    one: NatsStore, stranger: Stranger
) -> None:
    claim = await claimed(one)
    subject = f"$KV.POLOS_COMMANDS.default.{claim.run_id}"
    await stranger.store(subject, b'["pause"]')
    await one.command("default", claim.run_id, cancel(claim.run_id))
    assert await stranger.last("KV_POLOS_COMMANDS", subject) == b'["cancel","pause"]'
    assert list(await soon(one.commands(claim, 0))) == [cancel(claim.run_id)]


async def test_commands_put_by_many_replicas_at_once_arrive_once_and_in_one_order(
    one: NatsStore, other: NatsStore
) -> None:
    claim = await claimed(one)
    commands = [answer(number % 20, b"%d" % number) for number in range(40)]
    puts = (
        (one, other)[number % 2].command("default", claim.run_id, command)
        for number, command in enumerate(commands)
    )
    await soon(asyncio.gather(*puts))
    found = list(await soon(one.commands(claim, 0)))
    assert sorted(command.id for command in found) == sorted({one.id for one in commands})
    assert set(found) <= set(commands)
    await one.release(claim)
    again = await other.claim_run("default", claim.run_id)
    assert again is not None
    assert list(again.commands) == found


async def test_a_command_that_comes_while_a_claim_waits_is_behind_those_that_it_has_seen(
    one: NatsStore, other: NatsStore
) -> None:
    claim = await claimed(one)
    seen: list[Command] = []
    put: list[Command] = []
    for number in range(6):
        arriving = asyncio.create_task(one.commands(claim, len(seen)))
        put.append(cancel(claim.run_id) if number == 2 else answer(number))
        await other.command("default", claim.run_id, put[-1])
        seen += await soon(arriving)
    assert seen == put
    assert list(await soon(one.commands(claim, 4))) == put[4:]


async def test_two_who_wait_for_the_commands_of_a_claim_see_the_same(
    one: NatsStore, other: NatsStore
) -> None:
    claim = await claimed(one)
    waiting = [asyncio.create_task(one.commands(claim, 0)) for _ in range(2)]
    await other.command("default", claim.run_id, answer(1))
    assert [list(found) for found in await soon(asyncio.gather(*waiting))] == [[answer(1)]] * 2


async def test_a_full_inbox_refuses_commands_without_reading_it(
    one: NatsStore, stranger: Stranger
) -> None:
    claim = await claimed(one)
    await one.command("default", claim.run_id, answer(1))
    subject = f"$KV.POLOS_COMMANDS.default.{claim.run_id}"
    full = b'{"id":"last","kind":"x","run_id":"r","step_key":"","count":%d,"size":9}\n{}'
    await stranger.store(f"{subject}.last", full % INBOX_LIMIT)
    with pytest.raises(TooManyCommands):
        await one.command("default", claim.run_id, answer(2))
    await one.command("default", claim.run_id, answer(1))
    await one.command("default", claim.run_id, cancel(claim.run_id))
    assert [command.id for command in await soon(one.commands(claim, 0))] == [
        "c1",
        "last",
        "cancel",
    ]


@pytest.mark.parametrize("kind", GARBAGE)
async def test_foreign_messages_in_an_inbox_are_skipped_and_count_for_nothing(
    one: NatsStore, other: NatsStore, stranger: Stranger, kind: str
) -> None:
    claim = await claimed(one)
    subject = f"$KV.POLOS_COMMANDS.default.{claim.run_id}"
    for token in ("c1", "x", "=!", "a.b"):
        await stranger.store(f"{subject}.{token}", *GARBAGE[kind])
    await other.command("default", claim.run_id, answer(1))
    await stranger.store(f"{subject}.y", *GARBAGE[kind])
    await other.command("default", claim.run_id, answer(2))
    await other.command("default", claim.run_id, answer(1, b"again"))
    found: list[Command] = []
    while len(found) < 2:
        found += await soon(one.commands(claim, len(found)))
    assert found == [answer(1), answer(2)]


async def test_a_command_whose_subject_is_another_ones_is_foreign(
    one: NatsStore, stranger: Stranger
) -> None:
    claim = await claimed(one)
    subject = f"$KV.POLOS_COMMANDS.default.{claim.run_id}"
    line = b'{"id":"mine","kind":"x","run_id":"r","step_key":"","count":1,"size":0}\n'
    await stranger.store(f"{subject}.other", line)
    await stranger.store(f"{subject}.mine", line.replace(b"}", b',"v":2}'))
    found = await soon(one.commands(claim, 0))
    assert [command.id for command in found] == ["mine"], "a newer version may add to it"


@pytest.mark.parametrize("way", ["delete", "expire"])
async def test_a_removed_run_leaves_no_command(
    one: NatsStore, stranger: Stranger, way: str
) -> None:
    claim = await claimed(one)
    await one.command("default", claim.run_id, answer(1))
    await one.command("default", claim.run_id, cancel(claim.run_id))
    await one.append(claim, frame(1, outcome=COMPLETED))
    if way == "delete":
        await one.delete("default", claim.run_id)
    else:
        assert await one.expire(time.time_ns())
    assert await stranger.count("KV_POLOS_COMMANDS") == 0


async def test_ids_and_keys_of_any_characters_come_back(one: NatsStore) -> None:
    claim = await claimed(one, project="läufe.>*")
    command = Command(
        id="a.b *>" + "ü" * 120, kind="k\n", run_id="r", step_key="a/\n\0b", payload=b'"\n\xff"'
    )
    await one.command(claim.project, claim.run_id, command)
    assert list(await soon(one.commands(claim, 0))) == [command]


async def test_large_commands_are_read_whole(one: NatsStore, other: NatsStore) -> None:
    run_id = await one.create(new_run())
    commands = [answer(number, bytes([number]) * 480 * 1024) for number in range(1, 9)]
    for command in commands:
        await one.command("default", run_id, command)
    claim = await soon(first_claim(other, {"agent"}))
    assert list(claim.commands) == commands


async def test_commands_that_an_older_version_has_counted_are_settled(
    one: NatsStore, other: NatsStore, stranger: Stranger
) -> None:
    claim = await claimed(one)
    subject = f"$KV.POLOS_COMMANDS.default.{claim.run_id}"
    old = b'{"id":"c%d","kind":"answer","run_id":"r","step_key":"k","count":%d,"size":%d}\n{}'
    await stranger.store(f"{subject}.c1", old % (1, 1, 2))
    await stranger.store(f"{subject}.c2", old % (2, INBOX_LIMIT, 2 * INBOX_LIMIT))
    seen = list(await soon(one.commands(claim, 0)))
    with pytest.raises(TooManyCommands):
        await other.command("default", claim.run_id, answer(3))
    over = Command(id="c1", kind=SETTLED, run_id="r")
    await other.settle("default", claim.run_id, over)
    await other.command("default", claim.run_id, answer(3))
    assert list(await soon(one.commands(claim, len(seen)))) == [answer(3)]
    assert await one.command("default", claim.run_id, answer(1)) == over


async def test_settling_and_sending_at_once_by_many_replicas_loses_nothing(
    one: NatsStore, other: NatsStore
) -> None:
    claim = await claimed(one)
    for number in range(10):
        await one.command("default", claim.run_id, answer(number))
    settling = (
        (one, other)[number % 2].settle(
            "default", claim.run_id, Command(id=f"c{number}", kind=SETTLED, run_id="r")
        )
        for number in range(10)
    )
    sending = (other.command("default", claim.run_id, answer(10 + number)) for number in range(10))
    await soon(asyncio.gather(*settling, *sending))
    found = await other.inbox("default", claim.run_id)
    assert {one.id for one in found} == {f"c{number}" for number in range(20)}
    assert sum(one.kind == SETTLED for one in found) == 10
    assert len(await soon(one.commands(claim, 10))) == 10
