"""The contract of every store: the commands in a run's inbox."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from typing import Any

import pytest

from polos_client.errors import RunExpired, RunNotFound, TooManyCommands
from polos_service.store import (
    CANCEL,
    EARLY,
    INBOX_BYTES,
    SETTLED,
    Claim,
    Command,
    RunStore,
    refusals,
)
from tests.support.stores import cancel, claimed, ended, first_claim, new_run, settled, soon

PAYLOAD_LIMIT = 480 * 1024
"""Bytes of the largest payload."""

FEW = 50
"""Commands of an inbox that is filled up."""


def message(run_id: str, number: int = 1, **fields: Any) -> Command:
    """Return a command of a kind that only the test knows."""
    return Command(**{"id": f"command-{number}", "kind": "note", "run_id": run_id, **fields})


async def send(store: RunStore, *commands: Command) -> None:
    """Put commands for root runs into their inboxes, one after the other."""
    for one in commands:
        await store.command("default", one.run_id, one)


async def fill(store: RunStore, commands: Sequence[Command]) -> None:
    """Put many commands for root runs into their inboxes, a few at a time."""
    for start in range(0, len(commands), 10):
        few = commands[start : start + 10]
        await asyncio.gather(*(store.command("default", one.run_id, one) for one in few))


async def inbox(store: RunStore, claim: Claim) -> list[Command]:
    """Return what an inbox holds that is not empty."""
    return list(await soon(store.commands(claim, 0)))


async def test_a_command_reaches_the_holder(store: RunStore) -> None:
    claim = await claimed(store)
    arriving = asyncio.create_task(store.commands(claim, 0))
    await settled()
    assert not arriving.done()
    sent = message(claim.run_id, step_key="llm:1/a b", payload=b'{"yes": true}')
    await send(store, sent)
    assert list(await soon(arriving)) == [sent]
    assert await inbox(store, claim) == [sent]


async def test_commands_keep_their_order(store: RunStore) -> None:
    claim = await claimed(store)
    sent = [message(claim.run_id, number, kind=f"kind-{number % 2}") for number in (3, 1, 12, 2)]
    sent.insert(2, cancel(claim.run_id))
    await send(store, *sent)
    assert await inbox(store, claim) == sent
    for seen in range(len(sent)):
        assert list(await soon(store.commands(claim, seen))) == sent[seen:]


async def test_who_has_seen_all_commands_waits_for_the_next(store: RunStore) -> None:
    claim = await claimed(store)
    first, second = message(claim.run_id, 1), message(claim.run_id, 2)
    await send(store, first, cancel(claim.run_id))
    arriving = asyncio.create_task(store.commands(claim, 2))
    await send(store, first, cancel(claim.run_id))
    await settled()
    assert not arriving.done(), "a command that is repeated was told again"
    await send(store, second)
    assert list(await soon(arriving)) == [second]


async def test_of_commands_with_one_id_the_first_stays(store: RunStore) -> None:
    claim = await claimed(store)
    first = message(claim.run_id, payload=b'"first"')
    await send(store, first, message(claim.run_id, kind="other", step_key="s", payload=b'"second"'))
    assert await inbox(store, claim) == [first]


@pytest.mark.parametrize(
    "fields",
    [
        {"id": CANCEL},
        {"id": CANCEL, "kind": CANCEL, "run_id": "child"},
        {"id": "another", "kind": CANCEL},
    ],
    ids=["another kind", "of a child", "another id"],
)
async def test_no_other_command_takes_the_place_of_the_cancel(
    store: RunStore, fields: dict[str, Any]
) -> None:
    claim = await claimed(store)
    whole: dict[str, Any] = {"id": "1", "kind": "note", "run_id": claim.run_id}
    with pytest.raises(ValueError, match=f"cancels run {claim.run_id}"):
        await store.command("default", claim.run_id, Command(**{**whole, **fields}))
    await send(store, cancel(claim.run_id))
    assert await inbox(store, claim) == [cancel(claim.run_id)]


async def test_a_command_may_be_for_a_child(store: RunStore) -> None:
    claim = await claimed(store)
    sent = Command(id="cancel-7", kind="cancel", run_id=f"{claim.run_id}:7")
    await store.command("default", claim.run_id, sent)
    assert await inbox(store, claim) == [sent]


@pytest.mark.parametrize(
    "payload",
    [b"", b"\0", bytes(range(256)), b"\xff" * PAYLOAD_LIMIT],
    ids=["empty", "nul", "all", "largest"],
)
async def test_a_payload_is_kept_byte_for_byte(store: RunStore, payload: bytes) -> None:
    claim = await claimed(store)
    sent = message(claim.run_id, payload=payload)
    await send(store, sent)
    assert await inbox(store, claim) == [sent]


async def test_names_may_have_any_character(store: RunStore) -> None:
    claim = await claimed(store)
    names = ["a.b", "*", ">", " ", "a/b:2", "%2F", "ü", "🦜" * 32, "x" * 128, "\n", "'\"\\", "_"]
    sent = [message(claim.run_id, id=name, kind=name, step_key=name) for name in names]
    await send(store, *sent, *sent)
    assert await inbox(store, claim) == sent


async def test_a_claim_begins_with_the_commands_that_came_before(store: RunStore) -> None:
    run_id = await store.create(new_run())
    sent = (message(run_id, 2), cancel(run_id), message(run_id, 1, payload=b"1"))
    await send(store, *sent)
    claim = await store.claim_run("default", run_id)
    assert claim is not None
    assert claim.commands == sent
    await send(store, last := message(run_id, 3))
    forced = await store.claim_run("default", run_id, force=True)
    assert forced is not None
    assert forced.commands == (*sent, last)
    await store.release(forced)
    again = await soon(first_claim(store, {"agent"}))
    assert again.commands == (*sent, last)


@pytest.fixture
def limit(monkeypatch: pytest.MonkeyPatch) -> int:
    """Lower how many commands an inbox holds; `make test-peers` tests the limit as it is."""
    monkeypatch.setattr(refusals, "INBOX_LIMIT", FEW)
    return FEW


async def test_a_full_inbox_takes_nothing_but_a_cancel(store: RunStore, limit: int) -> None:
    claim = await claimed(store)
    sent = [message(claim.run_id, number) for number in range(limit + 3)]
    await fill(store, sent[: limit - 2])
    racing = (store.command("default", claim.run_id, one) for one in sent[limit - 2 :])
    answers = await soon(asyncio.gather(*racing, return_exceptions=True))
    assert sum(isinstance(one, Command) for one in answers) == 2
    refused = [one for one in answers if isinstance(one, TooManyCommands)]
    assert len(refused) == 3
    assert {one.metadata["run_id"] for one in refused} == {claim.run_id}
    await send(store, sent[0], cancel(claim.run_id), cancel(claim.run_id))
    held = await inbox(store, claim)
    assert len({one.id for one in held}) == len(held) == limit + 1
    assert held[-1] == cancel(claim.run_id)


async def test_a_cancel_takes_no_room(store: RunStore, limit: int) -> None:
    run_id = (await claimed(store)).run_id
    await send(store, cancel(run_id))
    await fill(store, [message(run_id, number) for number in range(limit)])
    with pytest.raises(TooManyCommands, match=f"{run_id}.*{limit}"):
        await send(store, message(run_id, limit))


async def test_payloads_are_bounded_in_all(store: RunStore) -> None:
    claim = await claimed(store)
    whole, rest = divmod(INBOX_BYTES, PAYLOAD_LIMIT)
    large = [message(claim.run_id, n, payload=b"x" * PAYLOAD_LIMIT) for n in range(whole)]
    await send(store, *large)
    with pytest.raises(TooManyCommands, match=str(INBOX_BYTES)):
        await send(store, message(claim.run_id, whole, payload=b"x" * (rest + 1)))
    fitting = message(claim.run_id, whole, payload=b"x" * rest)
    await send(store, fitting, large[0], empty := message(claim.run_id, whole + 1))
    with pytest.raises(TooManyCommands):
        await send(store, message(claim.run_id, whole + 2, payload=b"x"))
    await send(store, cancel(claim.run_id))
    assert await inbox(store, claim) == [*large, fitting, empty, cancel(claim.run_id)]


def settled_one(run_id: str, number: int) -> Command:
    return message(run_id, number, kind=SETTLED, payload=b"over")


async def test_a_settled_command_keeps_its_place_and_takes_no_room(
    store: RunStore, limit: int
) -> None:
    claim = await claimed(store)
    sent = [message(claim.run_id, number, payload=b"x") for number in range(limit)]
    await fill(store, sent)
    seen = len(sent)
    before = await inbox(store, claim)
    for one in sent:
        await store.settle("default", claim.run_id, settled_one(one.run_id, number_of(one)))
    await store.settle("default", claim.run_id, message(claim.run_id, 0, kind=SETTLED))
    await store.settle("default", claim.run_id, settled_one(claim.run_id, limit + 7))
    over = [settled_one(one.run_id, number_of(one)) for one in before]
    assert await inbox(store, claim) == over
    held = await store.inbox("default", claim.run_id)
    assert sorted(held, key=number_of) == sorted(over, key=number_of)
    assert await store.command("default", claim.run_id, sent[1]) == over[before.index(sent[1])]
    more = [message(claim.run_id, limit + number) for number in range(limit)]
    await fill(store, more)
    with pytest.raises(TooManyCommands):
        await send(store, message(claim.run_id, 2 * limit))
    assert sorted(await soon(store.commands(claim, seen)), key=number_of) == more
    await send(store, last := settled_one(claim.run_id, 2 * limit))
    assert list(await soon(store.commands(claim, 2 * limit))) == [last]
    assert await store.suspend(claim, wake_at=None, seen=2 * limit + 1, deadline=None)


def number_of(command: Command) -> int:
    return int(command.id.rpartition("-")[2])


async def test_early_commands_have_room_of_their_own(
    store: RunStore, limit: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(refusals, "EARLY_LIMIT", 3)
    monkeypatch.setattr(refusals, "EARLY_BYTES", 100)
    run_id = (await claimed(store)).run_id

    def early(number: int, size: int = 1) -> Command:
        return message(run_id, number, kind=EARLY, payload=b"x" * size)

    await send(store, early(0, 60))
    with pytest.raises(TooManyCommands, match=r"at most 3 with 100 bytes in all"):
        await send(store, early(1, 60))
    await send(store, early(1), early(2))
    with pytest.raises(TooManyCommands, match=f"Run {run_id} keeps no more answers"):
        await send(store, early(3))
    await fill(store, [message(run_id, 10 + number) for number in range(limit)])
    with pytest.raises(TooManyCommands, match=f"inbox of run {run_id} is full"):
        await send(store, message(run_id, 9))
    await store.settle("default", run_id, settled_one(run_id, 0))
    await send(store, early(3, 60))


async def test_of_many_senders_no_command_is_lost(store: RunStore) -> None:
    claim = await claimed(store)
    sent = [message(claim.run_id, number, payload=b"%d" % number) for number in range(40)]
    sending = asyncio.gather(*(store.command("default", claim.run_id, one) for one in sent))
    told: list[Command] = []
    while len(told) < len(sent):
        told += await soon(store.commands(claim, len(told)))
    await sending
    assert told == await inbox(store, claim), "what was told once keeps its place"
    assert sorted(told, key=lambda one: int(one.payload)) == sent


async def test_of_many_senders_of_one_id_one_wins(store: RunStore) -> None:
    claim = await claimed(store)
    sent = [message(claim.run_id, payload=b"%d" % number) for number in range(20)]
    await asyncio.gather(*(store.command("default", claim.run_id, one) for one in sent))
    (held,) = await inbox(store, claim)
    assert held in sent


async def test_a_command_of_one_run_is_not_that_of_another(store: RunStore) -> None:
    first, second = await claimed(store), await claimed(store)
    arriving = asyncio.create_task(store.commands(second, 0))
    await send(store, message(first.run_id))
    await settled()
    assert not arriving.done()
    arriving.cancel()
    await send(store, message(second.run_id))
    assert await inbox(store, second) == [message(second.run_id)]


async def test_a_run_that_has_ended_ignores_commands(store: RunStore) -> None:
    claim = await ended(store)
    before = await store.get("default", claim.run_id)
    await send(store, cancel(claim.run_id), message(claim.run_id))
    arriving = asyncio.create_task(store.commands(claim, 0))
    await settled()
    assert not arriving.done()
    arriving.cancel()
    assert await store.get("default", claim.run_id) == before


async def test_a_command_for_an_unknown_run_is_refused(store: RunStore) -> None:
    with pytest.raises(RunNotFound, match="nothing"):
        await send(store, message("nothing"))


async def test_a_command_for_an_expired_run_is_refused(store: RunStore) -> None:
    claim = await ended(store)
    while await store.expire(1 << 62):
        pass
    with pytest.raises(RunExpired, match=claim.run_id):
        await send(store, message(claim.run_id))


async def test_a_command_survives_that_its_sender_gave_up(store: RunStore) -> None:
    claim = await claimed(store)
    arriving = asyncio.create_task(store.commands(claim, 0))
    sending = asyncio.create_task(send(store, message(claim.run_id)))
    await asyncio.sleep(0)
    sending.cancel()
    assert list(await soon(arriving)) == [message(claim.run_id)]


async def test_an_inbox_survives_a_restart(
    open_store: Callable[[], Awaitable[RunStore]],
) -> None:
    store = await open_store()
    run_id = await store.create(new_run())
    sent = (message(run_id, 2, step_key="s", payload=b"\xff\0"), cancel(run_id), message(run_id, 1))
    await send(store, *sent)
    await store.close()
    store = await open_store()
    try:
        claim = await store.claim_run("default", run_id)
        assert claim is not None
        assert claim.commands == sent
        await send(store, last := message(run_id, 3))
        assert list(await soon(store.commands(claim, len(sent)))) == [last]
    finally:
        await store.close()
