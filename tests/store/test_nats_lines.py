"""The lines of the queue on NATS: several replicas, several agents, and former versions."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial

import orjson
import pytest

from polos_service.store import Claim, NewRun
from polos_service.store.nats import NatsStore
from polos_service.store.nats.items import WorkItem
from polos_service.store.nats.lines import Line
from polos_service.store.nats.subjects import WORK, former_work_subject, work_subject
from tests.support.nats import CLAIM_TIMEOUT, NatsServer, replica
from tests.support.nats_stranger import Stranger
from tests.support.nats_wire import Wire, renewals
from tests.support.stores import COMPLETED, claimed, first_claim, frame, new_run, soon, until


async def end(store: NatsStore, claim: Claim) -> None:
    await store.append(claim, frame(claim.latest + 1, outcome=COMPLETED))


def holds(store: NatsStore, held: dict[str, int]) -> bool:
    """Return whether a replica takes this for what all replicas hold."""
    return store._shares.held() == held


async def queued_formerly(stranger: Stranger, run: NewRun) -> None:
    """Queue a run as versions did that knew no lines."""
    subject = former_work_subject(run.workflow_id, run.project, run.run_id)
    await stranger.store(subject, orjson.dumps([run.project, run.run_id, run.deadline]))


@contextmanager
def former(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Have replicas take what former versions have queued as those did."""
    with monkeypatch.context() as patched:
        patched.setattr(WorkItem, "stray", property(lambda _: False))
        yield


@pytest.mark.parametrize("project", ["default", "p", "a project", "x" * 1000])
@pytest.mark.parametrize("workflow", ["agent", "an agent", "+", "y" * 1000])
def test_the_subject_of_an_item_names_its_line(workflow: str, project: str) -> None:
    subject = work_subject(workflow, project, "run")
    line = Line.of(subject)
    assert Line.of(line.subjects) == line
    assert subject.startswith(line.subjects.removesuffix(">"))
    assert len(line.consumer) <= 255
    others = {Line(line.workflow, "other"), Line("other", line.project), Line("o", "ther")}
    assert line.consumer not in {other.consumer for other in others}


def test_former_versions_do_not_see_the_items_of_other_projects() -> None:
    assert work_subject("agent", "default", "run") == former_work_subject("agent", "default", "run")
    seen = Line("agent", "default").subjects.removesuffix(">")
    assert not work_subject("agent", "p", "run").startswith(seen)


async def test_the_next_slot_of_any_replica_goes_to_the_project_that_holds_nothing(
    one: NatsStore, other: NatsStore, nats_server: NatsServer
) -> None:
    third = await replica(nats_server)
    replicas = (one, other, third)
    for _ in range(4):
        await asyncio.gather(*(one.create(new_run(project="large")) for _ in range(50)))
    held = [await soon(first_claim(store, {"agent"})) for store in replicas]
    for turn, store in enumerate(replicas):
        await until(partial(holds, store, {"large": 3}))
        run_id = await other.create(new_run(project="small"))
        await end(store, held[turn])
        claim = await soon(first_claim(store, {"agent"}))
        assert (claim.project, claim.run_id) == ("small", run_id)
        await end(store, claim)
        held[turn] = await soon(first_claim(store, {"agent"}))
        assert held[turn].project == "large"
    await third.close()


async def test_runs_that_other_replicas_hold_count(one: NatsStore, other: NatsStore) -> None:
    for _ in range(3):
        await claimed(one, project="a")
    await until(lambda: other._shares.held() == {"a": 3})
    for project in ("a", "b"):
        for _ in range(3):
            await one.create(new_run(project=project))
    claims = [await soon(first_claim(other, {"agent"})) for _ in range(3)]
    assert [claim.project for claim in claims] == ["b", "b", "b"]


async def test_a_replica_that_is_gone_holds_nothing(
    one: NatsStore, nats_server: NatsServer
) -> None:
    gone = await replica(nats_server)
    await claimed(gone, project="a")
    await until(lambda: one._shares.held() == {"a": 1})
    await gone.close()
    await until(lambda: one._shares.held() == {})


async def test_agents_of_a_project_take_turns(one: NatsStore) -> None:
    await one.create(new_run(project="other", workflow_id="other"))
    for workflow in ("x", "y"):
        for _ in range(3):
            await one.create(new_run(project="p", workflow_id=workflow))
    claims = [await soon(first_claim(one, {"x", "y"})) for _ in range(6)]
    order = [claim.workflow_id for claim in claims]
    assert sorted(order[:2]) == ["x", "y"]
    assert order == order[:2] * 3


async def test_a_lost_consumer_of_a_line_is_made_again(one: NatsStore, stranger: Stranger) -> None:
    await one.create(new_run(project="p"))
    await end(one, await soon(first_claim(one, {"agent"})))
    await stranger.request(f"CONSUMER.DELETE.{WORK}.{Line('agent', 'p').consumer}")
    run_id = await one.create(new_run(project="p"))
    assert (await soon(first_claim(one, {"agent"}))).run_id == run_id


async def test_a_line_without_a_consumer_is_found_by_its_items(
    one: NatsStore, stranger: Stranger, nats_server: NatsServer
) -> None:
    run_id = await one.create(new_run(project="p"))
    await stranger.request(f"CONSUMER.DELETE.{WORK}.{Line('agent', 'p').consumer}")
    started = await replica(nats_server)
    claiming = asyncio.create_task(first_claim(started, {"agent"}))
    await started.overdue(0, 0)
    assert (await soon(claiming)).run_id == run_id
    await started.close()


async def test_with_one_project_a_claim_asks_for_nothing_but_an_item(
    wire: Wire, wired: NatsStore
) -> None:
    await wired.create(new_run())
    await end(wired, await soon(first_claim(wired, {"agent"})))
    before = len(wire.requests("CONSUMER.")), len(wire.requests("CONSUMER.MSG.NEXT"))
    for _ in range(5):
        await wired.create(new_run())
        await end(wired, await soon(first_claim(wired, {"agent"})))
    after = len(wire.requests("CONSUMER.")), len(wire.requests("CONSUMER.MSG.NEXT"))
    assert after[0] - before[0] == after[1] - before[1] <= 6


async def test_a_run_that_a_former_version_has_queued_is_claimed_from_its_own_line(
    one: NatsStore, stranger: Stranger
) -> None:
    run = new_run(project="p")
    await one._records.create(run)
    await queued_formerly(stranger, run)
    claim = await soon(first_claim(one, {"agent"}))
    assert claim.run_id == run.run_id
    assert claim.epoch == 1
    await end(one, claim)
    await stranger.empties(WORK)


async def test_a_run_that_is_queued_twice_is_claimed_once(
    one: NatsStore, other: NatsStore, stranger: Stranger
) -> None:
    run = new_run(project="p")
    await one.create(run)
    await queued_formerly(stranger, run)
    claim = await soon(first_claim(one, {"agent"}))
    again = asyncio.create_task(first_claim(other, {"agent"}))
    done, _ = await asyncio.wait({again}, timeout=3 * CLAIM_TIMEOUT)
    assert not done
    await one.append(claim, frame(1))
    await one.append(claim, frame(2, outcome=COMPLETED))
    await stranger.empties(WORK)
    again.cancel()


async def test_a_run_that_a_former_version_holds_is_left_to_it(
    wire: Wire,
    wired: NatsStore,
    other: NatsStore,
    stranger: Stranger,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    run = new_run(project="p")
    await wired._records.create(run)
    await queued_formerly(stranger, run)
    with former(monkeypatch):
        held = await soon(first_claim(wired, {"agent"}))
    record = await other._records.find("p", run.run_id)
    assert record is not None
    await other._queue.put(record)
    claiming = asyncio.create_task(first_claim(other, {"agent"}))
    done, _ = await asyncio.wait({claiming}, timeout=3 * CLAIM_TIMEOUT)
    assert not done, "it was taken from a living holder"
    await wired.append(held, frame(1))
    wire.lose(renewals)
    assert (await soon(claiming)).run_id == run.run_id
