"""What the holder of a run makes of commands in its inbox: it obeys those that it knows."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

import pytest

from polos.v1.run_pb2 import RunState
from polos_service.runs.context import RunContext
from polos_service.runs.inbox import cancellation
from polos_service.store import CANCEL, Claim, Command
from polos_service.store.sqlite import SqliteStore
from tests.support.runs import done, executing, kinds, resting, runnable
from tests.support.stores import all_events, cancel, claimed, new_run, settled, soon, until


def strange(run_id: str, number: int) -> Command:
    """Return a command of a kind that this version does not know."""
    return Command(id=f"{number}", kind="answer", run_id=run_id, step_key="llm:1", payload=b"1")


class Looks(list[int]):
    """Counts how often a store's inboxes are asked for: what of them had been seen each time."""

    def __init__(self, store: SqliteStore, monkeypatch: pytest.MonkeyPatch) -> None:
        super().__init__()
        commands = store.commands

        async def counted(claim: Claim, seen: int) -> Sequence[Command]:
            self.append(seen)
            return await commands(claim, seen)

        monkeypatch.setattr(store, "commands", counted)


@pytest.fixture
def looks(store: SqliteStore, monkeypatch: pytest.MonkeyPatch) -> Looks:
    return Looks(store, monkeypatch)


async def test_a_cancel_is_found_among_commands_of_other_kinds(
    store: SqliteStore, looks: Looks
) -> None:
    claim = await claimed(store)
    waiting = asyncio.create_task(cancellation(store, claim))
    others = [
        strange(claim.run_id, 1),
        Command(id=f"{CANCEL}:7", kind=CANCEL, run_id=f"{claim.run_id}:7"),
        Command(id="2", kind="cancelled", run_id=claim.run_id),
    ]
    for one in others:
        await store.command("default", claim.run_id, one)
        await settled()
        assert not waiting.done()
    await store.command("default", claim.run_id, cancel(claim.run_id))
    await soon(waiting)
    assert looks == [0, 1, 2, 3]
    assert list(await store.commands(claim, 0)) == [*others, cancel(claim.run_id)]


async def test_commands_that_were_there_before_the_claim_are_not_looked_at_again(
    store: SqliteStore, looks: Looks
) -> None:
    run_id = await store.create(new_run())
    await store.command("default", run_id, cancel(run_id))
    claim = await store.claim_run("default", run_id)
    assert claim is not None
    waiting = asyncio.create_task(cancellation(store, claim))
    await settled()
    assert not waiting.done()
    assert looks == [1]
    waiting.cancel()


async def test_a_run_goes_on_whatever_unknown_commands_come(
    store: SqliteStore, looks: Looks
) -> None:
    begun, free = asyncio.Event(), asyncio.Event()

    async def run(ctx: RunContext) -> None:
        begun.set()
        await free.wait()
        await ctx.step("a", "tool", done)

    run_id = await store.create(new_run())
    for number in range(3):
        await store.command("default", run_id, strange(run_id, number))
    async with executing(store, runnable(run)):
        await soon(begun.wait())
        await until(lambda: looks == [3])
        await store.command("default", run_id, strange(run_id, 3))
        await until(lambda: looks == [3, 4])
        await settled()
        assert looks == [3, 4], "it looks again although nothing has come"
        free.set()
        events = await all_events(store, run_id)
    assert kinds(events)[-1] == "workflow_finish"


async def test_a_run_with_unknown_commands_is_cancelled(store: SqliteStore) -> None:
    begun = asyncio.Event()

    async def run(_ctx: RunContext) -> None:
        begun.set()
        await asyncio.Event().wait()

    run_id = await store.create(new_run())
    await store.command("default", run_id, strange(run_id, 1))
    async with executing(store, runnable(run)) as executor:
        await soon(begun.wait())
        await store.command("default", run_id, strange(run_id, 2))
        await executor.cancel("default", run_id)
        assert kinds(await all_events(store, run_id)) == ["run_cancelled"]


async def test_the_pause_of_a_failed_run_is_ended_by_its_cancel_only(
    store: SqliteStore, looks: Looks, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with resting(store, monkeypatch) as (executor, run_id):
        await store.command("default", run_id, strange(run_id, 1))
        await until(lambda: looks[-1] == 1)
        await settled()
        assert (await store.get("default", run_id)).state == RunState.RUN_STATE_RUNNING
        await executor.cancel("default", run_id)
        assert kinds(await all_events(store, run_id)) == ["run_cancelled"]
